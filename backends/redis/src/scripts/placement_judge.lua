-- Closes the case of entries of the index of stores whose records were read, unless one was entered again too late for
-- that reading to be the last word.
--
-- KEYS    1 zset: store/queue, all of score 0, 2 zset: those to be looked at again, by when they were entered
-- ARGV    1 the moment up to which an entry must have been made, 2.. by turns an entry, and 1 if its record names the
--         store or 0 if it does not
-- Result  how many are out

local out = 0
for at = 2, #ARGV, 2 do
  local entered = redis.call('ZSCORE', KEYS[2], ARGV[at])
  if not entered or tonumber(entered) <= tonumber(ARGV[1]) then
    redis.call('ZREM', KEYS[2], ARGV[at])
    if ARGV[at + 1] == '0' then out = out + redis.call('ZREM', KEYS[1], ARGV[at]) end
  end
end
return out
