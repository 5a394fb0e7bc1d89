-- Reads a part of a queue in order of arrival.
--
-- KEYS    1-8 the queue
-- ARGV    2 where it starts: '' at the oldest, 'r' rank after that rank, 'i' id after that message, 3 how many messages
--         are walked over, 4 a client whose messages are left out or '', 5 which besides the free ones: 'c' claimed,
--         'd' delayed, 'cd', ''
-- Result  nil while the queue is not settled, else {now, rank of the last message walked over, whether there may be
--         more, messages...}

if not settle(here) then return false end
local start, count, own, which = ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

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

-- The first of each order, then the first of all.
local walks = {}
local function walk(order)
  local part = call('ZRANGE', order, after, '+inf', 'BYSCORE', 'LIMIT', 0, count, 'WITHSCORES')
  if #part > 0 then walks[#walks + 1] = { part = part, at = 1, rank = tonumber(part[2]) } end
end
walk(here.free)
if string.find(which, 'c', 1, true) then walk(here.held) end
if string.find(which, 'd', 1, true) then walk(here.wait) end

local ids, ranks = {}, {}
while #ids < count and #walks > 0 do
  local first = 1
  for at = 2, #walks do
    if walks[at].rank < walks[first].rank then first = at end
  end
  local one = walks[first]
  ids[#ids + 1] = one.part[one.at]
  ranks[#ranks + 1] = one.part[one.at + 1]
  one.at = one.at + 2
  one.rank = tonumber(one.part[one.at + 1])
  if not one.rank then table.remove(walks, first) end
end

local answer = { now, ranks[#ranks] or '0', #ids < count and 0 or 1 }
if own ~= '' then
  local others, their_ranks = {}, {}
  local values = gather('HMGET', here.data, ids)
  for at, id in ipairs(ids) do
    -- The client follows the version, the moment, the ttl and the flags.
    if string.sub(values[at], 19, 18 + #own) ~= own then
      others[#others + 1] = id
      their_ranks[#their_ranks + 1] = ranks[at]
    end
  end
  ids, ranks = others, their_ranks
end
local delayed = string.find(which, 'd', 1, true)
return show(answer, here, ids, { ranks = ranks, dues = not delayed and {} or nil })
