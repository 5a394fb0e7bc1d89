-- Deletes a queue's record.
--
-- KEYS    1 hash: name -> version, place and metadata, 2 zset: names
-- ARGV    1 the name, 2 where changes are published, 3 the queue's tag
-- Result  the record, or nil

local old = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return old
