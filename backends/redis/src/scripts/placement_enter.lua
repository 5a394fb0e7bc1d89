-- Enters a queue into the index of stores, under each store that its record is about to name.
--
-- KEYS    1 zset: store/queue, all of score 0, 2 zset: those to be looked at again, by when they were entered
-- ARGV    entries
-- Result  the moment, in milliseconds since 1970

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, entry in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], 0, entry)
  redis.call('ZADD', KEYS[2], now, entry)
end
return now
