-- Ends a claim: what is left of it is free at once.
--
-- KEYS    1-8 the queue
-- ARGV    2 the claim, 3 '1' where it was no delivery
-- Result  nil while the queue is not settled, else how many messages are free again

if not settle(here) then return false end
despite_full(here)
return end_claim(here, ARGV[2], ARGV[3] == '1')
