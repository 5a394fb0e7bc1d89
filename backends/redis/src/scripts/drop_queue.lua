-- Deletes a queue. Where its ranks have run ahead of the clock the last one stays until the clock is there, so that a queue
-- of that name which is made meanwhile begins behind it.
--
-- KEYS    1-8 the queue
-- Result  1

call('UNLINK', here.data, here.free, here.held, here.wait, here.time, here.mark, here.claim)
local ahead = tonumber(call('GET', here.rank) or 0) - now
if ahead > 0 then
  call('PEXPIRE', here.rank, string.format('%.0f', math.min(ahead, 2 ^ 50) + 60000))
else
  call('UNLINK', here.rank)
end
return 1
