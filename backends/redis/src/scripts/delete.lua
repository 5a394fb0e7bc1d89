-- Deletes messages, as far as the precondition allows: all of them or none.
--
-- KEYS    1-8 the queue
-- ARGV    2 the precondition: 'any', 'free' or 'held', 3 how many claims follow, 4.. claims, then ids
-- Result  nil while the queue is not settled, else how many are gone, or why none is: -1 another claim holds one,
--         -2 no claim holds one, -3 none of these claims is live

if not settle(here) then return false end
local precondition, claims, ids = ARGV[2], {}, {}
local first = 4 + tonumber(ARGV[3])
for at = 4, first - 1 do claims[ARGV[at]] = true end
for at = first, #ARGV do ids[#ids + 1] = ARGV[at] end

local function live(claims)
  for claim in pairs(claims) do
    if call('HEXISTS', here.claim, claim) == 1 then return true end
  end
  return false
end

if precondition ~= 'any' then
  local marks = gather('HMGET', here.mark, ids)
  for at, id in ipairs(ids) do
    local _, _, _, holder = read_mark(marks[at])
    if holder ~= '' then
      if precondition == 'free' then return -1 end
      if not claims[holder] then return live(claims) and -1 or -3 end
    elseif precondition == 'held' and call('HEXISTS', here.data, id) == 1 then
      return -2
    end
  end
end
return drop(here, ids, precondition == 'held' and here.held)
