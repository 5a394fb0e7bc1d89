-- What the scripts of the ledger have beside common.lua: a queue of a scope, whose messages a broker delivers.
--
-- KEYS   1-7 as in common.lua, of the messages that have a row and are live; `data` is empty for none of them
--        8 meta   hash    'era', 'rank' the last rank given, 'unnoted' the same of messages without a number, 'latest' the
--                         last end of any row
--        9 terms  hash    id -> how long the broker was told to keep the message, when no copy can be alive any more
--                         (moments), how often it was transferred (>ddI4), 'r' and the newest receipt if there is one
--       10 deleted zset    ids of deleted messages, by when no copy can be alive any more
--       11 expired zset    the same of messages that ended or were purged, whose ids may be posted again
--       12 old    hash    as terms, of messages that were purged when there were many
--       13 moved  hash    id -> how often a message in `deleted` or `expired` was transferred, where it was (text)
--
-- The mark of a message that is on its way to a dead-letter queue has a claim of 17 bytes, which nobody can name.

here.meta, here.terms, here.deleted, here.expired, here.old, here.moved =
  KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]

-- How long an epoch outlives the last row. A server that remembers a forgotten one posts once more.
local LINGER = 86400000

-- How often a message was transferred, by its value without the version and the moment of the post.
local function transfers_of(rest)
  return (struct.unpack('>I4', rest))
end

local function read_terms(terms)
  local kept, ends, transfers = struct.unpack('>ddI4', terms)
  return kept, ends, transfers, #terms > 20 and string.sub(terms, 22) or nil
end

local function write_terms(row)
  return struct.pack('>ddI4', row.kept, row.ends, row.transfers) .. (row.receipt and 'r' .. row.receipt or '')
end

-- Takes live messages out, and leaves tombstones where copies may be alive. Returns how many there were.
local function leave(tombstones, ids)
  if #ids == 0 then return 0 end
  local terms, left, moved = gather('HMGET', here.terms, ids), {}, {}
  for at, id in ipairs(ids) do
    local ends, transfers = 0, 0
    if terms[at] then
      local _
      _, ends, transfers = read_terms(terms[at])
    end
    if ends > now then
      left[#left + 1] = ends
      left[#left + 1] = id
      if transfers > 0 then
        moved[#moved + 1] = id
        moved[#moved + 1] = transfers
      end
    end
  end
  each('ZADD', tombstones, left)
  each('HSET', here.moved, moved)
  each('HDEL', here.terms, ids)
  return drop(here, ids)
end

-- How long a row that a delivery has made waits for the record of its message: longer than a post may take between the
-- broker and the ledger.
local RECORD_TIMEOUT = 10000

local function ledger_ranks()
  return ranks_after(call('HGET', here.meta, 'rank'))
end

local function keep_ledger_ranks(ranks)
  call('HSET', here.meta, 'rank', string.format('%.0f', ranks.last))
end

-- Gives a message that has no number yet one at the end, above another. One that has its number keeps it.
local function give_number(id, ranks, above)
  for _, order in ipairs({ here.free, here.held, here.wait }) do
    if tonumber(call('ZSCORE', order, id) or 0) >= UNNUMBERED then
      local rank = next_rank(ranks, above)
      call('ZADD', order, rank, id)
      call('HSET', here.data, id, ranked(call('HGET', here.data, id), rank))
    end
  end
  call('ZREM', here.time, 'n' .. id)
end

-- Numbers what nobody has recorded in time, in the order in which it was delivered: whoever posted it is gone, and the message
-- is there.
local function number_unnoted(ids)
  local ranks, delivered = ledger_ranks(), {}
  for _, id in ipairs(ids) do
    delivered[id] = 0
    for _, order in ipairs({ here.free, here.held, here.wait }) do
      delivered[id] = math.max(delivered[id], tonumber(call('ZSCORE', order, id) or 0))
    end
  end
  table.sort(ids, function(a, b) return delivered[a] < delivered[b] end)
  for _, id in ipairs(ids) do give_number(id, ranks, 0) end
  keep_ledger_ranks(ranks)
end

local settle_messages = settle
local function settle(_, _, grows)
  if not grows then despite_full(here) end
  -- A tombstone past its end is none, so nobody waits for this.
  for _, tombstones in ipairs({ here.deleted, here.expired }) do
    local ended = call('ZRANGE', tombstones, '-inf', now, 'BYSCORE', 'LIMIT', 0, STEP)
    each('ZREM', tombstones, ended)
    each('HDEL', here.moved, ended)
  end
  return settle_messages(here, function(_, expired) leave(here.expired, expired) end, grows, number_unnoted)
end

-- Keeps the queue's record for as long as its last row.
local function touch(ends)
  local latest = tonumber(call('HGET', here.meta, 'latest') or 0)
  if ends > latest then
    latest = ends
    call('HSET', here.meta, 'latest', string.format('%.0f', latest))
  end
  call('PEXPIRE', here.meta, string.format('%.0f', math.max(latest - now, 0) + LINGER))
end

-- Begins an epoch: the microsecond, or the next one that was none yet.
local function begin_epoch()
  local time = call('TIME')
  local epoch, old = time[1] * 1000000 + time[2], tonumber(call('HGET', here.meta, 'era') or 0)
  epoch = string.format('%.0f', math.max(epoch, old + 1))
  call('HSET', here.meta, 'era', epoch)
  touch(0)
  return epoch
end

local function present_epoch()
  return call('HGET', here.meta, 'era') or begin_epoch()
end

-- Reads the rows of ids, each once: by id, and in a list. A row is live, or a tombstone ('deleted', 'expired'), or none.
local function load(ids)
  local rows, list = {}, {}
  for _, id in ipairs(ids) do
    if not rows[id] then
      rows[id] = { id = id }
      list[#list + 1] = rows[id]
    end
  end
  local names = {}
  for at, row in ipairs(list) do names[at] = row.id end
  local live, rest, terms = {}, {}, gather('HMGET', here.terms, names)
  for at, id in ipairs(names) do
    local row = rows[id]
    if terms[at] then
      row.state = 'live'
      row.kept, row.ends, row.transfers, row.receipt = read_terms(terms[at])
      live[#live + 1] = id
    else
      rest[#rest + 1] = id
    end
  end

  local marks = gather('HMGET', here.mark, live)
  local lives, dues = gather('ZMSCORE', here.time, named('x', live)), gather('ZMSCORE', here.time, named('d', live))
  local ranks = gather('ZMSCORE', here.free, live)
  for at, id in ipairs(live) do
    local row, shown, _, count, holder = rows[id], read_mark(marks[at])
    row.shown, row.count, row.holder = shown, count, holder
    row.expires, row.due, row.rank = tonumber(lives[at]), tonumber(dues[at] or nil), tonumber(ranks[at] or nil)
  end

  local deleted, expired = gather('ZMSCORE', here.deleted, rest), gather('ZMSCORE', here.expired, rest)
  local old = #rest > 0 and call('EXISTS', here.old) == 1 and gather('HMGET', here.old, rest) or {}
  local moved = #rest > 0 and call('EXISTS', here.moved) == 1 and gather('HMGET', here.moved, rest) or {}
  for at, id in ipairs(rest) do
    local row, ends = rows[id], tonumber(deleted[at] or expired[at] or nil)
    local state = deleted[at] and 'deleted' or 'expired'
    row.transfers = tonumber(moved[at] or nil) or 0
    if not ends and old[at] then
      local _
      _, ends, row.transfers = read_terms(old[at])
    end
    row.tombstone = ends ~= nil
    if ends and ends > now then row.state, row.ends = state, ends end
  end
  return rows, list
end

-- The mark of a row under a holder. It says when the message ends, whether or not the value would say the same.
local function marked(row, holder)
  return mark_of(row.shown, row.expires, row.count, holder)
end

-- Whether a new row differs from what its value says.
local function needs_mark(row)
  return row.shown ~= 0 or row.count ~= 0 or row.holder ~= '' or row.posted + select(2, struct.unpack('>I4I8', row.rest)) ~= row.expires
end

-- Rows that are to be written, in the order of their arrival.
local fresh = {}

-- Gives a message a row, in place of that of an earlier post of its id.
local function arrive(row)
  if row.new then
    for at = 1, #fresh do
      if fresh[at] == row then
        table.remove(fresh, at)
        break
      end
    end
  elseif row.state == 'live' then
    drop(here, { row.id })
    call('HDEL', here.terms, row.id)
  end
  row.new, row.state, row.rank = true, 'live', nil
  fresh[#fresh + 1] = row
end

-- Writes new rows with their values, and of those in the list what has changed.
local function flush(list)
  local data, terms, marks, time, tombstones, taken, moved = {}, {}, {}, {}, {}, {}, {}
  local orders = { free = {}, held = {}, wait = {}, deleted = {}, expired = {} }
  local deleted, latest, ranks = {}, 0, nil
  local function add(values, a, b)
    values[#values + 1] = a
    values[#values + 1] = b
  end
  local function give_rank(row)
    if row.rank then return end
    if row.awaited and row.arrival <= 0 then
      row.rank = UNNUMBERED + call('HINCRBY', here.meta, 'unnoted', 1)
      add(time, now + RECORD_TIMEOUT, 'n' .. row.id)
      return
    end
    ranks = ranks or ledger_ranks()
    row.rank = rank_for(here, ranks, row.arrival)
  end
  local function write(row)
    local id = row.id
    if row.new and row.tombstone then tombstones[#tombstones + 1] = id end
    if row.state == 'live' and (row.new or row.changed) then
      add(terms, id, write_terms(row))
      if row.new then
        give_rank(row)
        add(data, id, value_of(row.posted, row.rank, row.rest))
        add(orders[row.due and 'wait' or row.holder ~= '' and 'held' or 'free'], row.rank, id)
        if row.due then add(time, row.due, 'd' .. id) end
      elseif row.taken then
        taken[#taken + 1] = id
        add(orders.held, row.rank, id)
      end
      if row.new or row.taken then
        add(time, row.expires, 'x' .. id)
        if row.taken or needs_mark(row) then add(marks, id, marked(row, row.holder)) end
      end
      latest = math.max(latest, row.ends)
    elseif row.deleted then
      add(terms, id, write_terms(row))
      deleted[#deleted + 1] = id
      latest = math.max(latest, row.ends)
    elseif row.state and (row.new or row.changed) then
      add(orders[row.state], row.ends, id)
      if row.new and row.transfers > 0 then add(moved, id, row.transfers) end
      latest = math.max(latest, row.ends)
    end
  end
  for _, row in ipairs(fresh) do write(row) end
  for _, row in ipairs(list) do
    if not row.new then write(row) end
  end
  if ranks then keep_ledger_ranks(ranks) end
  each('ZREM', here.deleted, tombstones)
  each('ZREM', here.expired, tombstones)
  each('HDEL', here.old, tombstones)
  each('HDEL', here.moved, tombstones)
  each('HSET', here.moved, moved)
  each('HSET', here.data, data)
  each('HSET', here.terms, terms)
  each('HSET', here.mark, marks)
  each('ZADD', here.time, time)
  each('ZREM', here.free, taken)
  for order, values in pairs(orders) do each('ZADD', here[order], values) end
  leave(here.deleted, deleted)
  touch(latest)
end

-- Writes the record of a claim that holds these rows, the oldest first, and what it held before.
local function fill_claim(claim, ttl, renewed, rows)
  local order = {}
  for _, row in ipairs(rows) do order[#order + 1] = { row.id, row.rank } end
  local before = members(here, claim)
  if #before > 0 then
    local ranks = gather('ZMSCORE', here.held, before)
    local seen = {}
    for _, row in ipairs(rows) do seen[row.id] = true end
    for at, id in ipairs(before) do
      if not seen[id] then order[#order + 1] = { id, tonumber(ranks[at]) } end
    end
  end
  table.sort(order, function(a, b) return a[2] < b[2] end)
  local ids = {}
  for at, one in ipairs(order) do ids[at] = one[1] end
  write_claim(here, claim, ttl, ids, renewed)
end
