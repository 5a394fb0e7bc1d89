-- Stores a pool: a new one, or one in the place of the version that is named.
--
-- KEYS    1 hash: name -> pool, 2 zset: names, all of score 0
-- ARGV    1 the name, 2 the old version (8 bytes) or '', 3 the pool, 4 where changes are published, 5 what is published
-- Result  whether it was stored

local old = redis.call('HGET', KEYS[1], ARGV[1])
if (old and string.sub(old, 1, 8) or '') ~= ARGV[2] then return 0 end
redis.call('PUBLISH', ARGV[4], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
