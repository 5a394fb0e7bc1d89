-- Reads subscriptions by id.
--
-- ARGV    2 where it starts, as ZRANGE BYLEX wants it, 3 how many
-- Result  nil while subscriptions are not settled, else {now, id, subscription...}

if not settle() then return false end
local ids = call('ZRANGE', order, ARGV[2], '+', 'BYLEX', 'LIMIT', 0, ARGV[3])
local answer = { now }
if #ids == 0 then return answer end
local values = call('HMGET', about, unpack(ids))
for at, id in ipairs(ids) do
  answer[at * 2] = id
  answer[at * 2 + 1] = values[at]
end
return answer
