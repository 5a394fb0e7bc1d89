-- What every script about a queue's subscriptions begins with. Each settles them first, in a bounded step; where that is
-- not enough it answers nil, and is called again.
--
-- KEYS   1 about  hash  id -> the subscription: when its life began and its ttl (>dd, milliseconds), '1' if it is
--                       confirmed, the length of the subscriber (>I4), the subscriber, options as JSON
--        2 whose  hash  subscriber -> id
--        3 order  zset  ids, all of score 0
--        4 ends   zset  ids, by when they end
-- ARGV   1 clock: milliseconds that the store is ahead of the server's clock, or '@' and the present moment

local call = redis.call
local about, whose, order, ends = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- Subscriptions that one call ends.
local STEP = 500
-- How long the keys outlive the last subscription: whose clock is not the server's may be slower.
local LINGER = 3600000

local function moment(clock)
  if string.sub(clock, 1, 1) == '@' then return tonumber(string.sub(clock, 2)) end
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(clock)
end

local now = moment(ARGV[1])

local function subscriber_of(value)
  return string.sub(value, 22, 21 + struct.unpack('>I4', value, 18))
end

local function drop(id)
  local value = call('HGET', about, id)
  if not value then return 0 end
  call('HDEL', about, id)
  call('HDEL', whose, subscriber_of(value))
  call('ZREM', order, id)
  call('ZREM', ends, id)
  return 1
end

local function settle()
  local ended = call('ZRANGE', ends, '-inf', now, 'BYSCORE', 'LIMIT', 0, STEP)
  for _, id in ipairs(ended) do drop(id) end
  return #ended < STEP
end

local function write(id, made, ttl, confirmed, subscriber, options)
  local head = struct.pack('>dd', made, ttl) .. confirmed .. struct.pack('>I4', #subscriber)
  call('HSET', about, id, head .. subscriber .. options)
  call('HSET', whose, subscriber, id)
  call('ZADD', order, 0, id)
  call('ZADD', ends, string.format('%.0f', made + ttl), id)
  local last = call('ZRANGE', ends, 0, 0, 'REV', 'WITHSCORES')
  local left = string.format('%.0f', math.max(last[2] - now, 0) + LINGER)
  for _, key in ipairs(KEYS) do call('PEXPIRE', key, left) end
end
