-- Reads a live claim and what it still holds.
--
-- KEYS    1-8 the queue, or 1-12 that of a ledger
-- ARGV    2 the claim
-- Result  nil while the queue is not settled, else {now} where there is no such claim, or {now, ttl, when it was
--         renewed, messages...}

if not settle(here) then return false end
local record = call('HGET', here.claim, ARGV[2])
if not record then return { now } end
local ttl, renewed = struct.unpack('>dd', record)
local ids, marks = members(here, ARGV[2])
if KEYS[12] then
  -- Some may have got their ranks after they were claimed.
  local ranks, order = gather('ZMSCORE', here.held, ids), {}
  for at, id in ipairs(ids) do order[at] = { id, marks[at], tonumber(ranks[at]) } end
  table.sort(order, function(a, b) return a[3] < b[3] end)
  for at, one in ipairs(order) do ids[at], marks[at] = one[1], one[2] end
end
return show({ now, ttl, renewed }, here, ids, { marks = marks, dues = {} })
