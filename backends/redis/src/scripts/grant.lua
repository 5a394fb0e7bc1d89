-- Judges deliveries. What is granted joins the claim, or is deleted when it is popped.
--
-- KEYS    1-13 the queue
-- ARGV    2 what for: 'claim', 'more' for a claim that runs already, 'pop', 3 the claim, 4 its ttl, 5 the grace, 6 how many
--         claims deliver a message or '', 7 '1' if the queue is its own dead-letter queue, 8 the claim (17 bytes) of what
--         is over the limit, 9 how many may be granted, 10 the server's moment, 11 the deadline, 12.. four values a delivery: the
--         id; its terms (>dddI4ddB: left, delay, age, claims counted, arrival, posted, whether it awaits its record); its value, but for the
--         version, the moment of the post and the rank; the receipt
-- Result  text when it is too late; nil while the queue is not settled, else {now, verdict...}, a verdict being one of
--         {'granted', value, mark, whether it lives longer than the broker was told}
--         {'spent', value, mark}: as it was; the value is '' where the delivery has it
--         {'free'}, {'held', for how long}, {'gone'}

local late = too_late(ARGV[11])
if late then return late end
if not settle() then return false end
present_epoch()
local purpose, claim, ttl, grace = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most, itself, nameless = tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8]
local limit, sent = tonumber(ARGV[9]), tonumber(ARGV[10])

local record = purpose ~= 'pop' and call('HGET', here.claim, claim)
if purpose == 'more' and not record then limit = 0 end
local claim_ttl, renewed = ttl, now
if record then claim_ttl, renewed = struct.unpack('>dd', record) end

-- `newest` is the most transfers with which each id was delivered in this call.
local ids, newest = {}, {}
for at = 12, #ARGV, 4 do
  local id, transfers = ARGV[at], transfers_of(ARGV[at + 2])
  ids[#ids + 1] = id
  newest[id] = math.max(newest[id] or 0, transfers)
end
local rows, list = load(ids)
local granted, exceeded, answer, shown = {}, {}, { now }, {}

local function held_until(row)
  if row.holder == claim then return renewed + claim_ttl end
  if row.holder == nameless then return now + ttl end
  return tonumber(call('ZSCORE', here.time, 'c' .. row.holder))
end

-- Takes a message that nobody holds, and says so.
local function take_it(row)
  if limit == 0 then return { 'free' } end
  if most and not itself and row.count >= most then
    local verdict = { 'spent', '', marked(row, '') }
    if not row.new then shown[#shown + 1] = { row.id, verdict } end
    row.holder, row.taken, row.changed = nameless, not row.new, true
    exceeded[#exceeded + 1] = row
    return verdict
  end
  limit = limit - 1
  local verdict = { 'granted', '' }
  if not row.new then shown[#shown + 1] = { row.id, verdict } end
  if purpose == 'pop' then
    verdict[3], verdict[4] = marked(row, ''), 0
    row.state, row.deleted = 'deleted', not row.new
  else
    if most then
      if itself and row.count >= most then row.count = 0 end
      row.count = row.count + 1
    end
    if row.expires - now <= ttl then
      row.shown = ttl + grace
      row.expires = now + ttl + grace
    end
    row.holder, row.taken, row.changed = claim, not row.new, true
    granted[#granted + 1] = row
    verdict[3], verdict[4] = marked(row, claim), row.expires > row.kept and 1 or 0
  end
  row.ends = math.max(row.ends, row.expires, sent + row.expires - now)
  return verdict
end

-- Judges a message that has no row, or that of an earlier post of its id: by its envelope; it gets one unless it is free.
local function meet(row, left, delay, age, count, arrival, posted, awaited, value, receipt)
  local copy, due = posted + left, posted + delay
  if copy <= now then return { 'gone' } end
  if due <= now and limit == 0 then return { 'free' } end
  arrive(row)
  row.expires, row.kept, row.ends = copy, copy, math.max(copy, row.ends or 0)
  row.shown, row.count, row.holder, row.receipt = 0, count, '', receipt
  row.posted, row.rest, row.arrival, row.awaited = posted - age, value, arrival, awaited
  row.transfers, row.due = transfers_of(value), nil
  if due <= now then return take_it(row) end
  row.due = due
  return { 'held', due - now }
end

local function judge(at)
  local row, value, receipt = rows[ARGV[at]], ARGV[at + 2], ARGV[at + 3]
  local left, delay, age, count, arrival, posted, awaited = struct.unpack('>dddI4ddB', ARGV[at + 1])
  local copy, transfers = posted + left, transfers_of(value)
  local is_old = transfers < newest[row.id] or row.state and transfers < row.transfers
  local is_new = not row.state or transfers > row.transfers or row.state == 'expired' and copy > row.ends
  if not row.state and is_old then return { 'gone' } end
  if is_new and not is_old then
    return meet(row, left, delay, age, count, arrival, posted, awaited == 1, value, receipt)
  end
  if copy > row.ends then row.ends, row.changed = copy, true end
  if is_old or row.state ~= 'live' then return { 'gone' } end
  local ends = row.holder ~= '' and held_until(row) or row.due
  if ends then
    row.receipt, row.changed = receipt, true
    return { 'held', ends - now }
  end
  local before = row.receipt
  row.receipt = receipt
  local verdict = take_it(row)
  if verdict[1] == 'free' then row.receipt = before end
  return verdict
end

for at = 12, #ARGV, 4 do answer[#answer + 1] = judge(at) end
if #shown > 0 then
  local names = {}
  for at, one in ipairs(shown) do names[at] = one[1] end
  local values = gather('HMGET', here.data, names)
  for at, one in ipairs(shown) do one[2][2] = values[at] end
end
flush(list)
if #granted > 0 then fill_claim(claim, claim_ttl, renewed, granted) end
if #exceeded > 0 then fill_claim(nameless, ttl, now, exceeded) end
return answer
