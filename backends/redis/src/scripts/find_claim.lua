-- Reads a live claim and what it still holds.
--
-- KEYS    1-8 the queue
-- ARGV    2 the claim
-- Result  nil while the queue is not settled, else {now} where there is no such claim, or {now, ttl, when it was
--         renewed, messages...}

if not settle(here) then return false end
local record = call('HGET', here.claim, ARGV[2])
if not record then return { now } end
local ttl, renewed = struct.unpack('>dd', record)
local ids, marks = members(here, ARGV[2])
return show({ now, ttl, renewed }, here, ids, { marks = marks, dues = {} })
