-- Stores a subscription, unless there is one for that subscriber.
--
-- ARGV    2 the id, 3 its ttl, 4 '1' if it is confirmed, 5 the subscriber, 6 options, 7 where changes are published,
--         8 what is published
-- Result  nil while subscriptions are not settled, else 1, or 0: there is one of that id, or {now, id, subscription} of
--         the one that is there

if not settle() then return false end
local present = call('HGET', whose, ARGV[5])
if present then return { now, present, call('HGET', about, present) } end
if call('HEXISTS', about, ARGV[2]) == 1 then return 0 end
call('PUBLISH', ARGV[7], ARGV[8])
write(ARGV[2], now, tonumber(ARGV[3]), ARGV[4], ARGV[5], ARGV[6])
return 1
