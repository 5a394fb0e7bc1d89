-- Reads queue records by name.
--
-- KEYS    1 hash: name -> version and metadata, 2 zset: names
-- ARGV    1 the name after which it starts, or '', 2 how many
-- Result  {name, version and metadata...}

local start = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local names = redis.call('ZRANGE', KEYS[2], start, '+', 'BYLEX', 'LIMIT', 0, ARGV[2])
local answer = {}
if #names == 0 then return answer end
local records = redis.call('HMGET', KEYS[1], unpack(names))
for at, name in ipairs(names) do
  answer[at * 2 - 1] = name
  answer[at * 2] = records[at]
end
return answer
