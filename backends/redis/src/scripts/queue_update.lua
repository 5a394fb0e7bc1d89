-- Replaces a queue's record if it still has a version.
--
-- KEYS    1 hash: name -> version, place and metadata
-- ARGV    1 the name, 2 the old version (8 bytes), 3 the new record, 4 until when the queue is sure to be in the index
--         of stores (milliseconds since 1970), 5 where changes are published, 6 the queue's tag
-- Result  the old place, or 0: the record has changed or gone, or -1: it is too late

local time = redis.call('TIME')
if time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[4]) then return -1 end
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old or string.sub(old, 1, 8) ~= ARGV[2] then return 0 end
redis.call('PUBLISH', ARGV[5], ARGV[6])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
if string.sub(old, 9, 9) == '{' then return '' end
return string.sub(old, 9, string.find(old, '\n', 9, true) - 1)
