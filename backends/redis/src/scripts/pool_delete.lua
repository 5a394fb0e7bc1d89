-- Deletes a pool, unless it is the last one of a flavor that exists. A pool's value begins with its version (>d) and its
-- flavor, with the length in front (>I2).
--
-- KEYS    1 hash: name -> pool, 2 zset: names, 3 hash: flavor -> its project
-- ARGV    1 the name, 2 where changes are published, 3 what is published
-- Result  whether there was one, or the flavor that would have none

local function flavor_of(pool)
  return string.sub(pool, 11, 10 + struct.unpack('>I2', pool, 9))
end

local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old then return 0 end
local flavor = flavor_of(old)
if flavor ~= '' and redis.call('HEXISTS', KEYS[3], flavor) == 1 then
  local members = 0
  for _, pool in ipairs(redis.call('HVALS', KEYS[1])) do
    if flavor_of(pool) == flavor then members = members + 1 end
  end
  if members == 1 then return flavor end
end
redis.call('PUBLISH', ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
