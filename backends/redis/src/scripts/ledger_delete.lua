-- Deletes messages that have a row, as far as the precondition allows: all of them or none.
--
-- KEYS    1-13 the queue
-- ARGV    2 the precondition: 'any', 'free' or 'held', 3 '1' if an id without a row refuses all, 4 how many claims follow,
--         5.. claims, then ids
-- Result  nil while the queue is not settled, else {how many are gone, receipts...}, or why none is: -1 another claim
--         holds one, -2 no claim holds one, -3 none of these claims is live, -4 one may exist that was never claimed

if not settle() then return false end
local precondition, claims, ids = ARGV[2], {}, {}
local first = 5 + tonumber(ARGV[4])
for at = 5, first - 1 do claims[ARGV[at]] = true end
for at = first, #ARGV do ids[#ids + 1] = ARGV[at] end
local _, list = load(ids)

local function live()
  for claim in pairs(claims) do
    if call('HEXISTS', here.claim, claim) == 1 then return true end
  end
  return false
end

if ARGV[3] == '1' then
  for _, row in ipairs(list) do
    if not row.state then return precondition == 'held' and -2 or -4 end
  end
end
local deleted, answer = {}, { 0 }
for _, row in ipairs(list) do
  if row.state == 'live' then
    if precondition == 'free' and row.holder ~= '' then return -1 end
    if precondition == 'held' then
      if row.holder == '' then return -2 end
      if not claims[row.holder] then return live() and -1 or -3 end
    end
    deleted[#deleted + 1] = row.id
    if row.receipt then answer[#answer + 1] = row.receipt end
  end
end
answer[1] = leave(here.deleted, deleted)
return answer
