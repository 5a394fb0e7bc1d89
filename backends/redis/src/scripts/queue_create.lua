-- Creates a queue's record, unless it is there.
--
-- KEYS    1 hash: name -> version, place and metadata, 2 zset: names, all of score 0
-- ARGV    1 the name, 2 its record, 3 until when the queue is sure to be in the index of stores (milliseconds since
--         1970), 4 where changes are published, 5 the queue's tag
-- Result  whether it was created, or -1: it is too late

local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[3]) then return -1 end
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end
-- First, as everywhere: Redis does not undo what was written before a step that it refuses.
redis.call('PUBLISH', ARGV[4], ARGV[5])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return 1
