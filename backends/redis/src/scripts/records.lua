-- Reads records by name.
--
-- KEYS    1 hash: name -> record, 2 zset: names, all of score 0
-- ARGV    1 where it starts, 2 where it ends, as ZRANGE BYLEX wants them, 3 how many
-- Result  {name, record...}

local names = redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])
local answer = {}
if #names == 0 then return answer end
local records = redis.call('HMGET', KEYS[1], unpack(names))
for at, name in ipairs(names) do
  answer[at * 2 - 1] = name
  answer[at * 2] = records[at]
end
return answer
