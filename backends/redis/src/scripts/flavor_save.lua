-- Stores a flavor and makes pools its members. A pool's value begins with its version (>d) and its flavor, with the
-- length in front (>I2).
--
-- KEYS    1 hash: name -> pool, 2 hash: flavor -> its project, 3 zset: project/flavor, all of score 0
-- ARGV    1 the flavor, 2 its project, 3 the entry of both, 4 whether other members leave, 5 where changes are published,
--         6 what is published, 7.. names of pools
-- Result  1, or 0: another project has that flavor, or the first pool that does not exist

local flavor = ARGV[1]
local owner = redis.call('HGET', KEYS[2], flavor)
if owner and owner ~= ARGV[2] then return 0 end
local named = {}
for at = 7, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 0 then return ARGV[at] end
  named[ARGV[at]] = true
end

local function assign(name, pool, old, new)
  local version = struct.unpack('>d', pool) + 1
  local rest = string.sub(pool, 11 + #old)
  redis.call('HSET', KEYS[1], name, struct.pack('>dI2', version, #new) .. new .. rest)
end

redis.call('PUBLISH', ARGV[5], ARGV[6])
local pools = redis.call('HGETALL', KEYS[1])
for at = 1, #pools, 2 do
  local name, pool = pools[at], pools[at + 1]
  local old = string.sub(pool, 11, 10 + struct.unpack('>I2', pool, 9))
  if named[name] then
    if old ~= flavor then assign(name, pool, old, flavor) end
  elseif old == flavor and ARGV[4] == '1' then
    assign(name, pool, old, '')
  end
end
redis.call('HSET', KEYS[2], flavor, ARGV[2])
redis.call('ZADD', KEYS[3], 0, ARGV[3])
return 1
