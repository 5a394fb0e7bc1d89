-- Ends a claim.
--
-- KEYS    1-13 the queue
-- ARGV    2 the claim, 3 '1' where it was no delivery
-- Result  nil while the queue is not settled, else the receipts of what it held

if not settle() then return false end
local terms, receipts = gather('HMGET', here.terms, (members(here, ARGV[2]))), {}
for _, text in ipairs(terms) do
  local _, _, _, receipt = read_terms(text)
  if receipt then receipts[#receipts + 1] = receipt end
end
end_claim(here, ARGV[2], ARGV[3] == '1')
return receipts
