-- Takes free messages out of circulation, oldest first. Those that were claimed too often move to the dead-letter
-- queue, or, where that is out of reach, under a claim of their own whose holder moves them.
--
-- KEYS    1-8 the queue, 9-16 the dead-letter queue where it is within reach
-- ARGV    2 the claim, 3 its ttl, 4 the grace, 5 the limit, 6 how many claims deliver a message or '', 7 the life of a
--         moved message or '', 8 above which rank it stands in the dead-letter queue, '=' at its own, 9 the deadline,
--         10 the claim of those that are to be moved by the caller, 11 its ttl
-- Result  text when it is too late; nil while the queue is not settled, else {now, how many are taken, messages..., messages to be moved...}

local late = too_late(ARGV[9])
if late then return late end
if not settle(here) then return false end
local claim, ttl, grace, limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local most, new_life = tonumber(ARGV[6]), tonumber(ARGV[7])

-- A call that is repeated, its answer having been lost on the way, is answered with what it took.
if call('HEXISTS', here.claim, claim) == 1 then
  local ids, marks = members(here, claim)
  return show({ now, #ids }, here, ids, { marks = marks, dues = {} })
end

local taken = { ids = {}, ranks = {}, marks = {}, dues = {} }
local exceeded = { ids = {}, ranks = {}, marks = {}, dues = {} }

-- Puts messages under a claim, and notes what becomes of them: those that must live longer have a new end.
local function put_under_claim(claim, ttl, which, shown, counted)
  local held, marks = {}, {}
  for at, id in ipairs(which.ids) do
    local old, ends, count = read_mark(which.marks[at])
    local new = shown[at] or 0
    if new == 0 then new = old else ends = which.ends[at] end
    which.marks[at] = mark_of(new, ends, count + counted, claim)
    held[at * 2 - 1], held[at * 2] = which.ranks[at], id
    marks[at * 2 - 1], marks[at * 2] = id, which.marks[at]
  end
  each('ZADD', here.held, held)
  each('HSET', here.mark, marks)
  write_claim(here, claim, ttl, which.ids)
end

local function dead_letter(target)
  local ranks = ranks_of(target)
  for at, id in ipairs(exceeded.ids) do
    local value = call('HGET', here.data, id)
    local shown, changed = read_mark(exceeded.marks[at])
    if new_life then shown, changed = new_life, now + new_life end
    local ends = end_of(value, changed)
    drop(here, { id })
    -- The target has it when it was posted again after a move, its answer having been lost.
    drop(target, { id })
    local rank = rank_for(target, ranks, ARGV[8] == '=' and rank_in(value) or -tonumber(ARGV[8]))
    call('HSET', target.data, id, transferred(ranked(value, rank)))
    call('ZADD', target.free, rank, id)
    call('ZADD', target.time, ends, 'x' .. id)
    write_mark(target, id, shown, changed, 0, '')
  end
  keep_ranks(target, ranks)
end

while #taken.ids < limit and #exceeded.ids < STEP do
  local head = call('ZPOPMIN', here.free, math.min(limit - #taken.ids, STEP))
  if #head == 0 then break end
  local ids = {}
  for at = 1, #head, 2 do ids[#ids + 1] = head[at] end
  local marks = gather('HMGET', here.mark, ids)
  for at, id in ipairs(ids) do
    local _, _, count = read_mark(marks[at])
    local which = most and count >= most and exceeded or taken
    which.ids[#which.ids + 1] = id
    which.ranks[#which.ranks + 1] = head[at * 2]
    which.marks[#which.marks + 1] = marks[at]
  end
end

local answer = { now, #taken.ids }
if #taken.ids > 0 then
  taken.values, taken.ends = gather('HMGET', here.data, taken.ids), {}
  -- What is too much for one answer goes back where it was.
  for at = #taken.ids, fitting(taken.values) + 1, -1 do
    call('ZADD', here.free, taken.ranks[at], taken.ids[at])
    taken.ids[at], taken.ranks[at], taken.marks[at], taken.values[at] = nil, nil, nil, nil
  end
  answer[2] = #taken.ids
  for at, value in ipairs(taken.values) do
    local _, ends = read_mark(taken.marks[at])
    taken.ends[at] = end_of(value, ends)
  end
  local shown = outlive(here, taken.ids, taken.ends, ttl, grace)
  put_under_claim(claim, ttl, taken, shown, most and 1 or 0)
  show(answer, here, taken.ids, taken)
end
if #exceeded.ids > 0 then
  if KEYS[9] then
    dead_letter(queue_at(9))
  else
    -- They go through the answer. What is too much for it goes back where it was, and moves with a later claim.
    local bytes = 0
    for at = 1, #exceeded.ids do
      bytes = bytes + call('HSTRLEN', here.data, exceeded.ids[at])
      if at > 1 and bytes > PAGE_BYTES then
        for back = #exceeded.ids, at, -1 do
          call('ZADD', here.free, exceeded.ranks[back], exceeded.ids[back])
          exceeded.ids[back], exceeded.ranks[back], exceeded.marks[back] = nil, nil, nil
        end
        break
      end
    end
    put_under_claim(ARGV[10], tonumber(ARGV[11]), exceeded, {}, 0)
    show(answer, here, exceeded.ids, exceeded)
  end
end
return answer
