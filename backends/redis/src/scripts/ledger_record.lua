-- Writes rows for messages that the broker has accepted, and notes how long it was told to keep them.
--
-- KEYS    1-13 the queue
-- ARGV    2 the epoch or '', 3 the server's moment, 4.. three values a message: its id; its terms (>dddI4d: left, delay, age,
--         claims counted, arrival); its value, but for the version, the moment of the post and the rank
-- Result  nil while the queue is not settled, else the present epoch

if not settle(here, nil, true) then return false end
local epoch = present_epoch()
if ARGV[2] ~= '' and ARGV[2] ~= epoch or not ARGV[4] then return epoch end
local sent, ids = tonumber(ARGV[3]), {}
for at = 4, #ARGV, 3 do ids[#ids + 1] = ARGV[at] end
local rows, list = load(ids)

for at = 4, #ARGV, 3 do
  local row = rows[ARGV[at]]
  local left, delay, age, count, arrival = struct.unpack('>dddI4d', ARGV[at + 1])
  local lives, copy = now + left, sent + left
  local transfers = transfers_of(ARGV[at + 2])
  local anew = not row.state or transfers > row.transfers or row.state == 'expired' and transfers == row.transfers
  if ARGV[2] ~= '' and anew then
    arrive(row)
    row.transfers, row.receipt = transfers, nil
    row.kept, row.expires = lives, lives
    row.ends = math.max(lives, copy, row.ends or 0)
    row.shown, row.count, row.holder = 0, count, ''
    row.due = delay > 0 and now + delay or nil
    row.posted, row.rest, row.arrival = now - age, ARGV[at + 2], arrival
  elseif row.state then
    -- One that is live or was deleted, or that is not to be written.
    row.changed, row.ends = true, math.max(row.ends, copy)
    if transfers == row.transfers then row.kept = math.max(row.kept or 0, lives) end
    -- An older post says nothing about where this one stands.
    row.recorded = row.recorded or transfers >= row.transfers
    row.arrival = arrival
  end
end
if ARGV[2] ~= '' then
  -- In the order of the post, those too whose delivery was faster than this record.
  local ranks, waiting = ledger_ranks(), gather('ZMSCORE', here.time, named('n', ids))
  for at, id in ipairs(ids) do
    local row = rows[id]
    if row.new and not row.rank then
      row.rank = rank_for(here, ranks, row.arrival)
    elseif waiting[at] and row.recorded and row.state == 'live' then
      give_number(id, ranks, math.max(-row.arrival, 0))
    end
  end
  keep_ledger_ranks(ranks)
end
flush(list)
return epoch
