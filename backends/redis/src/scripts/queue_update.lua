-- Replaces a queue's record if it still has a version.
--
-- KEYS    1 hash: name -> version and metadata
-- ARGV    1 the name, 2 the old version (8 bytes), 3 the new version and metadata, 4 where changes are published,
--         5 the queue's tag
-- Result  whether it was replaced

local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old or string.sub(old, 1, 8) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
