-- Changes a subscription.
--
-- ARGV    2 the id, 3 a new ttl or '', 4 whether there is a new subscriber, 5 which, 6 new options or '', 7 '1' or '0' to
--         note whether it is confirmed, or '', 8 the subscriber that it must have, or '', 9 where changes are published,
--         10 what is published
-- Result  nil while subscriptions are not settled, else {now, id, subscription}, or {now} if there is none, or 0:
--         another has that subscriber, or 1: it has another subscriber than it must have

if not settle() then return false end
local id = ARGV[2]
local value = call('HGET', about, id)
if not value then return { now } end
local made, ttl = struct.unpack('>dd', value)
local confirmed, subscriber = string.sub(value, 17, 17), subscriber_of(value)
local options = string.sub(value, 22 + #subscriber)

if ARGV[8] ~= '' and ARGV[8] ~= subscriber then return 1 end
local moves = ARGV[4] == '1' and ARGV[5] ~= subscriber
if moves and call('HEXISTS', whose, ARGV[5]) == 1 then return 0 end
call('PUBLISH', ARGV[9], ARGV[10])
if moves then
  call('HDEL', whose, subscriber)
  subscriber, confirmed = ARGV[5], '0'
end
if ARGV[3] ~= '' then made, ttl = now, tonumber(ARGV[3]) end
if ARGV[6] ~= '' then options = ARGV[6] end
if ARGV[7] ~= '' then confirmed = ARGV[7] end
write(id, made, ttl, confirmed, subscriber, options)
-- One that lives no longer is gone for the next call.
return { now, id, call('HGET', about, id) }
