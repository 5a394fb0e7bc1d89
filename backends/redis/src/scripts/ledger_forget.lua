-- Forgets messages that no claim holds and no delay holds back. They leave no tombstones.
--
-- KEYS    1-12 the queue
-- ARGV    2.. ids
-- Result  nil while the queue is not settled, else how many are forgotten

if not settle() then return false end
local ids, gone = {}, {}
for at = 2, #ARGV do ids[#ids + 1] = ARGV[at] end
local _, list = load(ids)
for _, row in ipairs(list) do
  if row.state == 'live' and row.holder == '' and not row.due then gone[#gone + 1] = row.id end
end
each('HDEL', here.terms, gone)
return drop(here, gone)
