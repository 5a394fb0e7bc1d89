-- Deletes every subscription of a queue.
--
-- ARGV    2 where changes are published, 3 what is published
-- Result  1

call('PUBLISH', ARGV[2], ARGV[3])
call('UNLINK', about, whose, order, ends)
return 1
