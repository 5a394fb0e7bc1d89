-- Reads messages by id.
--
-- KEYS    1-8 the queue
-- ARGV    2.. ids
-- Result  nil while the queue is not settled, else {now, messages...}

if not settle(here) then return false end
local ids = {}
for at = 2, #ARGV do ids[at - 1] = ARGV[at] end
return show({ now }, here, ids, {})
