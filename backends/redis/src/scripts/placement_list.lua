-- Reads the index of stores.
--
-- KEYS    1 zset: store/queue, all of score 0
-- ARGV    1 where it starts, 2 where it ends, as ZRANGE BYLEX wants them, 3 how many
-- Result  {the moment, in milliseconds since 1970, entries...}

local time = redis.call('TIME')
local found = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, ARGV[3])
table.insert(found, 1, time[1] * 1000 + math.floor(time[2] / 1000))
return found
