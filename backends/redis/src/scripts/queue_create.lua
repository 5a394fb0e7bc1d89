-- Creates a queue's record, unless it is there.
--
-- KEYS    1 hash: name -> version and metadata, 2 zset: names, all of score 0
-- ARGV    1 the name, 2 its version and metadata, 3 where changes are published, 4 the queue's tag
-- Result  whether it was created

if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], 0, ARGV[1])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
