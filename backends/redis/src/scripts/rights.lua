-- Finds out what the user may not do of what the other scripts do, and leaves nothing behind: every command is about a key
-- that is not there, and is one that then does nothing.
--
-- KEYS    1 a key that nobody has
-- ARGV    1 where changes are published, 2 a text that tells nobody anything
-- Result  the commands that are refused; a command with its channel where it is the channel

local key = KEYS[1]
local refused = {}

-- Redis 7 and newer, Valkey, Redis 6: `ACL failure in script`, `NOPERM`, `The user executing the script can't ...`.
local function is_refusal(answer)
  local text = type(answer) == 'table' and answer.err or ''
  return string.find(text, 'NOPERM', 1, true) or string.find(text, 'ACL failure', 1, true)
    or string.find(text, 'The user executing the script', 1, true)
end

local function try(command, ...)
  local may = not is_refusal(redis.pcall(command, ...))
  if not may then refused[#refused + 1] = command end
  return may
end

for _, command in ipairs({ 'EXISTS', 'GET', 'HGETALL', 'HLEN', 'HVALS', 'ZCARD', 'ZPOPMIN' }) do try(command, key) end
for _, command in ipairs({ 'HDEL', 'HEXISTS', 'HGET', 'HMGET', 'HSTRLEN', 'ZMSCORE', 'ZREM', 'ZSCORE' }) do
  try(command, key, 'x')
end
try('HINCRBY', key, 'x', 'no number')
try('HSCAN', key, 0)
-- One value too few.
try('HSET', key, 'x', 'x', 'x')
try('INCRBY', key, 'no number')
try('PEXPIRE', key, 1)
try('RENAME', key, key)
try('SET', key, 'x', 'XX')
try('TIME')
try('ZADD', key, 'XX', 0, 'x')
try('ZCOUNT', key, 0, 0)
try('ZLEXCOUNT', key, '-', '+')
try('ZRANGE', key, 0, 0)
-- There is no way to call this one in vain.
if try('UNLINK', key) and try('HSETNX', key, 'x', 'x') then redis.call('UNLINK', key) end
if not try('PUBLISH', ARGV[1], ARGV[2]) then
  refused[#refused] = 'PUBLISH and SUBSCRIBE on the channel ' .. ARGV[1]
end
return refused
