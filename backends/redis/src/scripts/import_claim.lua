-- Puts free messages under a claim that was made elsewhere. One that is there already keeps its time.
--
-- KEYS    1-8 the queue
-- ARGV    2 the claim, 3 its ttl, 4 how long ago it was renewed, 5.. ids
-- Result  nil while the queue is not settled, else how many of the ids the claim holds now

if not settle(here) then return false end
local claim, ttl, renewed = ARGV[2], tonumber(ARGV[3]), now - tonumber(ARGV[4])
local record = call('HGET', here.claim, claim)
if record then ttl, renewed = struct.unpack('>dd', record) end
if renewed + ttl <= now then return 0 end

local asked = {}
for at = 5, #ARGV do asked[#asked + 1] = ARGV[at] end
local free = gather('ZMSCORE', here.free, asked)
local marks = gather('HMGET', here.mark, asked)

local count, seen, ids, held, new_marks = 0, {}, {}, {}, {}
for at, id in ipairs(asked) do
  local shown, ends, counted, holder = read_mark(marks[at])
  if free[at] and not seen[id] then
    ids[#ids + 1] = id
    held[#held + 1] = free[at]
    held[#held + 1] = id
    new_marks[#new_marks + 1] = id
    new_marks[#new_marks + 1] = mark_of(shown, ends, counted, claim)
  end
  if not seen[id] and (free[at] or holder == claim) then count = count + 1 end
  seen[id] = true
end
if #ids == 0 then return count end

-- With those that it has: the oldest first, as in every claim.
for _, id in ipairs((members(here, claim))) do ids[#ids + 1] = id end
each('ZREM', here.free, ids)
each('ZADD', here.held, held)
each('HSET', here.mark, new_marks)
local ranks, order = gather('ZMSCORE', here.held, ids), {}
for at, id in ipairs(ids) do order[at] = { id, tonumber(ranks[at]) } end
table.sort(order, function(a, b) return a[2] < b[2] end)
for at, one in ipairs(order) do ids[at] = one[1] end
write_claim(here, claim, ttl, ids, renewed)
return count
