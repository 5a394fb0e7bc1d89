-- Appends messages in their order, or none of them. One whose id is there already is left as it is.
--
-- KEYS    1-8 the queue
-- ARGV    2 how many messages the queue may have then, or '', 3 the deadline; 4.. three values a message: its id; its terms
--         (>dddI4d: left, delay, age, claims counted, arrival); its value, but for the version, the moment of the post and
--         the rank
-- Result  text when it is too late; 1; 0 where they are too many; nil where that cannot be told while the queue is not
--         settled

local late = too_late(ARGV[3])
if late then return late end
local is_settled, most = settle(here, nil, true), tonumber(ARGV[2])
if most then
  local count = call('ZCARD', here.free) + call('ZCARD', here.held) + call('ZCARD', here.wait)
  if count + (#ARGV - 3) / 3 > most then
    if not is_settled then return false end
    local seen, before = {}, count
    for at = 4, #ARGV, 3 do
      local id = ARGV[at]
      if not seen[id] and call('HEXISTS', here.data, id) == 0 then count = count + 1 end
      seen[id] = true
    end
    if count > before and count > most then return 0 end
  end
end
local ranks = ranks_of(here)
local free, wait, time = {}, {}, {}
for at = 4, #ARGV, 3 do
  local id = ARGV[at]
  local left, delay, age, count, arrival = struct.unpack('>dddI4d', ARGV[at + 1])
  local rank = rank_for(here, ranks, arrival)
  local value = value_of(now - age, rank, ARGV[at + 2])
  local new = call('HSETNX', here.data, id, value) == 1
  if not new then
    -- It may have expired and wait for its turn, or stand in this very post.
    local ends = call('ZSCORE', here.time, 'x' .. id)
    if ends and tonumber(ends) <= now then
      drop(here, { id })
      call('HSET', here.data, id, value)
      new = true
    end
  end
  if new then
    local order = free
    time[#time + 1] = now + left
    time[#time + 1] = 'x' .. id
    if delay > 0 then
      order = wait
      time[#time + 1] = now + delay
      time[#time + 1] = 'd' .. id
    end
    order[#order + 1] = rank
    order[#order + 1] = id
    -- The ttl stands in front of the rest of the value.
    local ends = now + left
    if end_of(value, 0) == ends then ends = 0 end
    if count > 0 or ends > 0 then write_mark(here, id, 0, ends, count, '') end
  end
end
keep_ranks(here, ranks)
each('ZADD', here.free, free)
each('ZADD', here.wait, wait)
each('ZADD', here.time, time)
return 1
