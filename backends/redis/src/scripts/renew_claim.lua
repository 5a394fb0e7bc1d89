-- Starts a live claim's time again, on new terms.
--
-- KEYS    1-8 the queue
-- ARGV    2 the claim, 3 its ttl, 4 the grace
-- Result  nil while the queue is not settled, else whether there is such a claim

if not settle(here) then return false end
despite_full(here)
local claim, ttl, grace = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if call('HEXISTS', here.claim, claim) == 0 then return 0 end
local ids, marks = members(here, claim)
local ends = gather('ZMSCORE', here.time, named('x', ids))
local shown = outlive(here, ids, ends, ttl, grace)
for at, id in ipairs(ids) do
  if shown[at] > 0 then
    local _, _, count = read_mark(marks[at])
    write_mark(here, id, shown[at], ends[at], count, claim)
  end
end
write_claim(here, claim, ttl, ids)
return 1
