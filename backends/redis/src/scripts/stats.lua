-- Counts the messages of a queue.
--
-- KEYS    1-8 the queue
-- Result  nil while the queue is not settled, else {now, free and delayed ones, claimed ones, the last rank given}, and
--         where there are any the first and the last of them: id, the start of its value

if not settle(here) then return false end
local free, held, wait = call('ZCARD', here.free), call('ZCARD', here.held), call('ZCARD', here.wait)
local last = KEYS[12] and call('HGET', KEYS[8], 'rank') or not KEYS[12] and call('GET', here.rank)
local answer = { now, free + wait, held, last or '0' }

local function edge(better, ...)
  local best, best_rank
  for _, order in ipairs({ here.free, here.held, here.wait }) do
    local found = call('ZRANGE', order, 0, 0, ...)
    local rank = tonumber(found[2])
    if rank and (not best or better(rank, best_rank)) then best, best_rank = found[1], rank end
  end
  answer[#answer + 1] = best
  answer[#answer + 1] = string.sub(call('HGET', here.data, best), 1, 9)
end

if free + held + wait > 0 then
  edge(function(a, b) return a < b end, 'WITHSCORES')
  edge(function(a, b) return a > b end, 'REV', 'WITHSCORES')
end
return answer
