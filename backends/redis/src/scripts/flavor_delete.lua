-- Deletes a flavor of a project, and has its pools leave it. A pool's value begins with its version (>d) and its flavor,
-- with the length in front (>I2).
--
-- KEYS    1 hash: name -> pool, 2 hash: flavor -> its project, 3 zset: project/flavor
-- ARGV    1 the flavor, 2 the project, 3 the entry of both, 4 where changes are published, 5 what is published
-- Result  whether there was one

if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('PUBLISH', ARGV[4], ARGV[5])
local pools = redis.call('HGETALL', KEYS[1])
for at = 1, #pools, 2 do
  local pool = pools[at + 1]
  local flavor = string.sub(pool, 11, 10 + struct.unpack('>I2', pool, 9))
  if flavor == ARGV[1] then
    local version = struct.unpack('>d', pool) + 1
    redis.call('HSET', KEYS[1], pools[at], struct.pack('>dI2', version, 0) .. string.sub(pool, 11 + #flavor))
  end
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[3])
return 1
