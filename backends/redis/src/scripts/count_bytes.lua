-- Adds up the bytes of a part of a queue, in order of arrival, without reading a body.
--
-- KEYS    1-8 the queue
-- ARGV    2 the rank behind which it starts, or '' at the oldest, 3 how many messages of one kind are passed
-- Result  nil while the queue is not settled, else {bytes, and where there may be more the rank of the last one passed}

if not settle(here) then return false end
local count = tonumber(ARGV[3])
local after = ARGV[2] == '' and '-inf' or '(' .. ARGV[2]

-- What the value of a message that a client with a UUID has posted has beside its checksum, headers and body: the head that
-- `value_of` writes, and what the server encodes.
local BESIDE = 49

-- Of each kind no more than has been read of every other: a message counts once, wherever it goes between two steps.
local parts, upto = {}, nil
for _, order in ipairs({ here.free, here.held, here.wait }) do
  local part = call('ZRANGE', order, after, LISTED, 'BYSCORE', 'LIMIT', '0', ARGV[3], 'WITHSCORES')
  parts[#parts + 1] = part
  if #part == 2 * count then
    local last = part[#part]
    if not upto or tonumber(last) < tonumber(upto) then upto = last end
  end
end
local bytes, most = 0, upto and tonumber(upto) or math.huge
for _, part in ipairs(parts) do
  for at = 1, #part, 2 do
    if tonumber(part[at + 1]) > most then break end
    bytes = bytes + math.max(call('HSTRLEN', here.data, part[at]) - BESIDE, 0)
  end
end
return { string.format('%.0f', bytes), upto }
