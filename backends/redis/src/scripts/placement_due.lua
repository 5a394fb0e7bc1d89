-- Reads which entries of the index of stores are to be looked at again.
--
-- KEYS    1 zset: store/queue, by when they were entered
-- ARGV    1 how long ago that must be, in milliseconds, 2 how many
-- Result  {the moment, in milliseconds since 1970, entries...}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = string.format('%.0f', now - ARGV[1])
local found = redis.call('ZRANGE', KEYS[1], '-inf', due, 'BYSCORE', 'LIMIT', 0, ARGV[2])
table.insert(found, 1, now)
return found
