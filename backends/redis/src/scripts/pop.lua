-- Deletes free messages from the head and returns them.
--
-- KEYS    1-8 the queue
-- ARGV    2 the limit, 3 the deadline
-- Result  text when it is too late; nil while the queue is not settled, else {now, messages...}

local late = too_late(ARGV[3])
if late then return late end
if not settle(here) then return false end
local head = call('ZPOPMIN', here.free, ARGV[2])
local ids = {}
for at = 1, #head, 2 do ids[#ids + 1] = head[at] end
local values = gather('HMGET', here.data, ids)
-- What is too much for one answer goes back where it was.
for at = #ids, fitting(values) + 1, -1 do
  call('ZADD', here.free, head[at * 2], ids[at])
  ids[at], values[at] = nil, nil
end
local answer = show({ now }, here, ids, { values = values, dues = {} })
-- They have left `free` already.
each('HDEL', here.data, ids)
each('HDEL', here.mark, ids)
each('ZREM', here.time, named('x', ids))
return answer
