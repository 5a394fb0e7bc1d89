-- Deletes a subscription.
--
-- ARGV    2 the id, 3 where changes are published, 4 what is published
-- Result  nil while subscriptions are not settled, else whether there was one

if not settle() then return false end
call('PUBLISH', ARGV[3], ARGV[4])
return drop(ARGV[2])
