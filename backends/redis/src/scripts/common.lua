-- What every script begins with: the keys of a queue, the moment, and the steps that several scripts share.
--
-- KEYS   1 data    hash    id -> the message as it was posted
--        2 free    zset    ids of free messages, by rank
--        3 held    zset    ids of claimed messages, by rank
--        4 wait    zset    ids of delayed messages, by rank
--        5 time    zset    what ends by itself, by its moment: 'x' id (a life), 'd' id (a delay), 'c' claim, and in a ledger
--                          'n' id (the wait for a record)
--        6 mark    hash    id -> what has changed since the post: the ttl, the end, the claims counted, the claim
--        7 claim   hash    claim -> its ttl, when it was renewed, the ids that it took
--        8 rank    string  the last rank given: ranks are numbers of arrival (see the contract)
-- ARGV   1 clock: milliseconds that the store is ahead of the server's clock, or '@' and the present moment
--
-- A queue is settled when nothing in it has ended: then `free`, `held` and `wait` are exactly what they are called, and
-- no script compares with the clock. A script settles its queue first, in a bounded step; where that is not enough it
-- answers nil, has changed nothing else, and is called again.

local call = redis.call
-- What one call settles, about. It keeps a script near a millisecond.
local STEP, STEP_TEXT = 500, '500'
-- `unpack` fails near 8,000 values.
local CHUNK = 1000
-- Bytes that one answer has at the most, unless its first message has more (see the contract).
local PAGE_BYTES = 8388608

local function queue_at(first)
  return {
    data = KEYS[first], free = KEYS[first + 1], held = KEYS[first + 2], wait = KEYS[first + 3],
    time = KEYS[first + 4], mark = KEYS[first + 5], claim = KEYS[first + 6], rank = KEYS[first + 7],
  }
end

-- What this server's own clock shows, in milliseconds. As text: a number in a command's arguments is written with all its
-- digits each time, at the price of a small command.
local shown
local function server_time()
  if not shown then
    local time = call('TIME')
    shown = time[1] .. string.sub('00000' .. time[2], -6, -4)
  end
  return shown
end

local function moment(clock)
  if string.sub(clock, 1, 1) == '@' then return string.sub(clock, 2) end
  local present = server_time()
  return clock == '0' and present or string.format('%.0f', present + clock)
end

-- What this server's clock shows, if it is too late to do what nobody waits for any more. The caller has said until when, by
-- this clock, or '' for always.
local function too_late(deadline)
  return deadline ~= '' and tonumber(deadline) < tonumber(server_time()) and server_time()
end

local here = queue_at(1)
local present = moment(ARGV[1])
local now = tonumber(present)

-- Calls a command with a long list of values, and adds up what it answers.
local function each(command, key, values)
  local sum = 0
  for first = 1, #values, CHUNK do
    sum = sum + call(command, key, unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
  return sum
end

-- Reads a long list of values; what is missing is false.
local function gather(command, key, names)
  local found = {}
  for first = 1, #names, CHUNK do
    local part = call(command, key, unpack(names, first, math.min(first + CHUNK - 1, #names)))
    for at = 1, #part do found[first + at - 1] = part[at] end
  end
  return found
end

-- How many of these values are no more than an answer may have: one at least.
local function fitting(values)
  local bytes = 0
  for at = 1, #values do
    bytes = bytes + (values[at] and #values[at] or 0)
    if at > 1 and bytes > PAGE_BYTES then return at - 1 end
  end
  return #values
end

local function named(kind, ids)
  local names = {}
  for at = 1, #ids do names[at] = kind .. ids[at] end
  return names
end

-- Reads a mark: the ttl that is shown and when the message ends (0: as posted), the claims counted, the claim that has
-- the message or ''.
local function read_mark(mark)
  if not mark then return 0, 0, 0, '' end
  local ttl, ends, count = struct.unpack('>ddI4', mark)
  return ttl, ends, count, string.sub(mark, 21)
end

local function mark_of(ttl, ends, count, claim)
  return struct.pack('>ddI4', ttl, ends, count) .. claim
end

local function write_mark(queue, id, ttl, ends, count, claim)
  if ttl == 0 and ends == 0 and count == 0 and claim == '' then
    call('HDEL', queue.mark, id)
  else
    call('HSET', queue.mark, id, mark_of(ttl, ends, count, claim))
  end
end

-- When a message ends, by its value, which says when it was posted and its ttl, unless its mark says otherwise.
local function end_of(value, ends)
  if ends > 0 then return ends end
  local posted, _, _, ttl = struct.unpack('>ddI4I8', value, 2)
  return posted + ttl
end

-- A value as it is stored: the version, when its message was posted, its rank, and the rest, which the server has encoded.
local function value_of(posted, rank, rest)
  return struct.pack('>Bdd', 3, posted, rank) .. rest
end

-- Where the client begins in a value.
local CLIENT_AT = 31

local function rank_in(value)
  return (struct.unpack('>d', value, 10))
end

-- A value with another rank.
local function ranked(value, rank)
  return string.sub(value, 1, 9) .. struct.pack('>d', rank) .. string.sub(value, 18)
end

-- The value of a message that is transferred to another queue: it has been transferred once more.
local function transferred(value)
  return string.sub(value, 1, 17) .. struct.pack('>I4', struct.unpack('>I4', value, 18) + 1) .. string.sub(value, 22)
end

-- Ranks from here on are of messages that have no number of arrival yet: only a ledger has such, and lists none of them.
local UNNUMBERED, LISTED = 4503599627370496, '(4503599627370496'

-- Ranks of a queue that gave this one last.
local function ranks_after(last)
  return { last = tonumber(last or 0), given = {} }
end

-- The rank of one more message at the end: behind the last one, above a number, and not before this moment, so that it
-- is beyond every rank of an earlier queue of that name.
local function next_rank(ranks, above)
  ranks.last = math.max(ranks.last, above, now - 1) + 1
  return ranks.last
end

local function is_taken(queue, ranks, rank)
  return ranks.given[rank] or call('ZCOUNT', queue.free, rank, rank) + call('ZCOUNT', queue.held, rank, rank)
    + call('ZCOUNT', queue.wait, rank, rank) > 0
end

-- The rank of a message by its arrival: a positive number is its rank already, if that is not taken; a negative one, or 0,
-- is what its rank is to be above.
local function rank_for(queue, ranks, arrival)
  if arrival <= 0 or arrival >= UNNUMBERED or is_taken(queue, ranks, arrival) then
    return next_rank(ranks, arrival < 0 and -arrival or 0)
  end
  ranks.given[arrival] = true
  ranks.last = math.max(ranks.last, arrival)
  return arrival
end

local function ranks_of(queue)
  return ranks_after(call('GET', queue.rank))
end

local function keep_ranks(queue, ranks)
  call('SET', queue.rank, string.format('%.0f', ranks.last))
end

-- Deletes messages and returns how many there were. They stand in one order, or wherever it may be.
local function drop(queue, ids, order)
  if #ids == 0 then return 0 end
  local dropped = each('HDEL', queue.data, ids)
  each('HDEL', queue.mark, ids)
  each('ZREM', queue.time, named('x', ids))
  if each('ZREM', order or queue.free, ids) < dropped and not order then
    each('ZREM', queue.held, ids)
    if each('ZREM', queue.wait, ids) > 0 then each('ZREM', queue.time, named('d', ids)) end
  end
  return dropped
end

-- Moves messages from one order to another, at their old ranks.
local function move(from, to, ids)
  local ranks = gather('ZMSCORE', from, ids)
  local pairs_ = {}
  for at = 1, #ids do
    if ranks[at] then
      pairs_[#pairs_ + 1] = ranks[at]
      pairs_[#pairs_ + 1] = ids[at]
    end
  end
  each('ZREM', from, ids)
  each('ZADD', to, pairs_)
end

-- The ids that a claim still holds, oldest first, and their marks.
local function members(queue, claim)
  local record = call('HGET', queue.claim, claim)
  local all, ids, marks = {}, {}, {}
  for at = 17, record and #record or 0, 16 do all[#all + 1] = string.sub(record, at, at + 15) end
  local found = gather('HMGET', queue.mark, all)
  for at = 1, #all do
    local _, _, _, holder = read_mark(found[at])
    if holder == claim then
      ids[#ids + 1] = all[at]
      marks[#marks + 1] = found[at]
    end
  end
  return ids, marks
end

-- Ends a claim, frees what it holds, and returns how many that were. A claim that is undone was no delivery.
local function end_claim(queue, claim, is_undone)
  local ids, marks = members(queue, claim)
  for at = 1, #ids do
    local ttl, ends, count = read_mark(marks[at])
    if is_undone then count = math.max(count - 1, 0) end
    write_mark(queue, ids[at], ttl, ends, count, '')
  end
  move(queue.held, queue.free, ids)
  call('HDEL', queue.claim, claim)
  call('ZREM', queue.time, 'c' .. claim)
  return #ids
end

-- A server that is full (maxmemory, noeviction) refuses a script at its first write, if that might take memory, and at none
-- after it. What adds nothing that lasts goes on: it first deletes what is never there.
local function despite_full(queue)
  call('HDEL', queue.data, '')
end

-- Ends what has ended, about STEP messages of it, and returns whether that was all. What becomes of a message at the end
-- of its life, and of one that nobody has recorded in time, somebody else may say. A script that `grows` the queue is refused
-- by a full server, whatever has ended.
local function settle(queue, expire, grows, number)
  local ended = call('ZRANGE', queue.time, '-inf', present, 'BYSCORE', 'LIMIT', '0', STEP_TEXT)
  if #ended == 0 then return true end
  if not grows then despite_full(queue) end
  local expired, due, unnoted, done = {}, {}, {}, 0
  for at = 1, #ended do
    local kind, name = string.sub(ended[at], 1, 1), string.sub(ended[at], 2)
    if kind == 'x' then
      expired[#expired + 1] = name
    elseif kind == 'd' then
      due[#due + 1] = name
    elseif kind == 'n' then
      unnoted[#unnoted + 1] = name
    elseif done < STEP then
      done = done + end_claim(queue, name)
    end
  end
  if #due > 0 then
    move(queue.wait, queue.free, due)
    each('ZREM', queue.time, named('d', due))
  end
  expire = expire or drop
  expire(queue, expired)
  if #unnoted > 0 then number(unnoted) end
  return #ended < STEP and done < STEP
end

-- Sees to it that messages outlive a claim: one that would end before or with it lives for ttl and grace from now on.
-- `ends` says when each ends, also afterwards. Returns the ttl that each shows from now on, or 0.
local function outlive(queue, ids, ends, ttl, grace)
  local shown, later = {}, {}
  for at = 1, #ids do
    shown[at] = 0
    if ends[at] - now <= ttl then
      shown[at] = ttl + grace
      ends[at] = now + ttl + grace
      later[#later + 1] = ends[at]
      later[#later + 1] = 'x' .. ids[at]
    end
  end
  each('ZADD', queue.time, later)
  return shown
end

-- Writes the record of a claim that was renewed at this moment, or at another.
local function write_claim(queue, claim, ttl, ids, renewed)
  renewed = renewed or now
  call('HSET', queue.claim, claim, struct.pack('>dd', ttl, renewed) .. table.concat(ids))
  call('ZADD', queue.time, renewed + ttl, 'c' .. claim)
end

-- Appends messages to an answer, one text each: a byte with the length of the mark, and 128 for a delayed one; the id;
-- when a delayed one is due (float); the mark; the value. What the caller knows of them need not be read: `values`,
-- `marks`, and `dues`, which only delayed ones have.
local function show(answer, queue, ids, known)
  local values = known.values or gather('HMGET', queue.data, ids)
  local marks = known.marks or gather('HMGET', queue.mark, ids)
  local dues = known.dues
  if not dues then
    dues = call('EXISTS', queue.wait) == 1 and gather('ZMSCORE', queue.time, named('d', ids)) or {}
  end
  local size = #answer
  for at = 1, #ids do
    if values[at] then
      local mark, due, head = marks[at] or '', dues[at], 0
      if due then due, head = struct.pack('>d', due), 128 end
      size = size + 1
      answer[size] = string.char(head + #mark) .. ids[at] .. (due or '') .. mark .. values[at]
    end
  end
  return answer
end
