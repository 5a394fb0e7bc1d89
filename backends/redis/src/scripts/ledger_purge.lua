-- Deletes every message and every claim, and begins a new epoch. What stays of the messages is when their copies end: a
-- few become tombstones at once; many keep that under another name, which takes no time.
--
-- KEYS    1-13 the queue
-- Result  nil where it must be called again, else 1

if call('EXISTS', here.meta) == 0 then return 1 end

local function to_tombstones(terms)
  local tombstones, ids, moved = {}, {}, {}
  for at = 1, #terms, 2 do
    local _, ends, transfers = read_terms(terms[at + 1])
    ids[#ids + 1] = terms[at]
    if ends > now then
      tombstones[#tombstones + 1] = ends
      tombstones[#tombstones + 1] = terms[at]
      if transfers > 0 then
        moved[#moved + 1] = terms[at]
        moved[#moved + 1] = transfers
      end
    end
  end
  each('ZADD', here.expired, tombstones)
  each('HSET', here.moved, moved)
  return ids
end

if call('HLEN', here.terms) <= STEP then
  to_tombstones(call('HGETALL', here.terms))
  call('UNLINK', here.terms)
elseif call('EXISTS', here.old) == 1 then
  -- Many were purged not long ago: they make room, by and by.
  local part = call('HSCAN', here.old, 0, 'COUNT', STEP)
  each('HDEL', here.old, to_tombstones(part[2]))
  return false
else
  call('RENAME', here.terms, here.old)
  local latest = tonumber(call('HGET', here.meta, 'latest') or 0)
  call('PEXPIRE', here.old, string.format('%.0f', math.max(latest - now, 0) + LINGER))
end
call('UNLINK', here.data, here.free, here.held, here.wait, here.time, here.mark, here.claim)
begin_epoch()
return 1
