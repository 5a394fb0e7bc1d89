-- Reads a subscription.
--
-- ARGV    2 the id
-- Result  nil while subscriptions are not settled, else {now, id, subscription} or {now}

if not settle() then return false end
local value = call('HGET', about, ARGV[2])
if not value then return { now } end
return { now, ARGV[2], value }
