-- Reads a part of a queue in order of arrival.
--
-- KEYS    1-8 the queue
-- ARGV    2 where it starts: '' at the oldest, 'r' rank after that rank, 'i' id after that message, 3 how many messages
--         are walked over, 4 how many of them are wanted, 5 a client whose messages are left out or '', 6 which besides
--         the free ones: 'c' claimed, 'd' delayed, 'cd', ''
-- Result  nil while the queue is not settled, else {now, rank of the last message walked over, whether there may be
--         more (1) or there is and had no room in bytes (2), rank of the last message that follows, messages...}

if not settle(here) then return false end
local start, count, wanted, own, which = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]

-- Byte by byte: Lua compares text as the server's locale has it.
local function later(a, b)
  for at = 1, 16 do
    local x, y = string.byte(a, at), string.byte(b, at)
    if x ~= y then return x > y end
  end
  return false
end

-- The rank of the last message in an order whose id is not later than this one. Ids grow with ranks, up to messages
-- that were minted at the same moment.
local function nearest(order, id)
  local low, high, rank = 0, call('ZCARD', order) - 1, 0
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local found = call('ZRANGE', order, middle, middle, 'WITHSCORES')
    if later(found[1], id) then
      high = middle - 1
    else
      low, rank = middle + 1, tonumber(found[2])
    end
  end
  return rank
end

local function position(id)
  local orders = { here.free, here.held, here.wait }
  for _, order in ipairs(orders) do
    local rank = call('ZSCORE', order, id)
    if rank then return rank end
  end
  local rank = 0
  for _, order in ipairs(orders) do rank = math.max(rank, nearest(order, id)) end
  return string.format('%.0f', rank)
end

local after = '-inf'
if string.sub(start, 1, 1) == 'r' then
  after = '(' .. string.sub(start, 2)
elseif string.sub(start, 1, 1) == 'i' then
  after = '(' .. position(string.sub(start, 2))
end

-- The first of each order, then the first of all. Free messages alone need no comparing, and their ranks no spelling.
local ids, ranks, walks = {}, nil, {}
local function walk(order, due)
  local part = call('ZRANGE', order, after, LISTED, 'BYSCORE', 'LIMIT', '0', ARGV[3], 'WITHSCORES')
  if #part > 0 then walks[#walks + 1] = { part = part, at = 1, rank = tonumber(part[2]), due = due } end
end
if string.find(which, 'c', 1, true) then walk(here.held) end
if string.find(which, 'd', 1, true) then walk(here.wait, true) end

local delayed = {}
if #walks == 0 then
  ids = call('ZRANGE', here.free, after, LISTED, 'BYSCORE', 'LIMIT', '0', ARGV[3])
else
  ranks = {}
  walk(here.free)
end
while #ids < count and #walks > 0 do
  local first = 1
  for at = 2, #walks do
    if walks[at].rank < walks[first].rank then first = at end
  end
  local one = walks[first]
  local id = one.part[one.at]
  ids[#ids + 1] = id
  ranks[#ranks + 1] = one.part[one.at + 1]
  if one.due then delayed[id] = call('ZSCORE', here.time, 'd' .. id) end
  one.at = one.at + 2
  one.rank = tonumber(one.part[one.at + 1])
  if not one.rank then table.remove(walks, first) end
end

local function rank_at(at)
  return ids[at] and (ranks and ranks[at] or call('ZSCORE', here.free, ids[at])) or '0'
end

local more, values = #ids < count and 0 or 1, gather('HMGET', here.data, ids)
for at = #ids, fitting(values) + 1, -1 do
  ids[at], values[at], more = nil, nil, 2
  if ranks then ranks[at] = nil end
end
local last = rank_at(#ids)
local final = last
-- What is left out has no bytes: the next part may have room for more.
if own ~= '' then
  more = math.min(more, 1)
  local others, their_values, shown, at = {}, {}, 0, 0
  while at < #ids and #others < wanted do
    at = at + 1
    if string.sub(values[at], CLIENT_AT, CLIENT_AT - 1 + #own) ~= own then
      others[#others + 1] = ids[at]
      their_values[#others] = values[at]
      shown = at
    end
  end
  if at < #ids then last, more = rank_at(at), 1 end
  final = rank_at(shown)
  ids, values = others, their_values
end
local dues = {}
for at, id in ipairs(ids) do dues[at] = delayed[id] end
return show({ now, last, more, final }, here, ids, { values = values, dues = dues })
