-- Puts a queue's next sweep off, unless somebody has asked for one meanwhile.
--
-- KEYS    1 zset: queues by when they are swept next
-- ARGV    1 the queue, 2 its score as it was read, 3 its new score, or '' to strike it off
-- Result  whether that was done

if redis.call('ZSCORE', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
