-- Starts a live claim's time again, on new terms.
--
-- KEYS    1-13 the queue
-- ARGV    2 the claim, 3 its ttl, 4 the grace, 5 the server's moment
-- Result  nil while the queue is not settled, else 0 where there is no such claim, or {now, how many receipts there are,
--         receipts, messages that live longer than the broker was told, by turns with 'r' and the receipt or ''}

if not settle() then return false end
local claim, ttl, grace = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if call('HEXISTS', here.claim, claim) == 0 then return 0 end
local ahead = math.max(tonumber(ARGV[5]) - now, 0)
local ids, marks = members(here, claim)
local lives = gather('ZMSCORE', here.time, named('x', ids))
local shown = outlive(here, ids, lives, ttl, grace)
local terms, latest = gather('HMGET', here.terms, ids), 0
local new_marks, new_terms, receipts, longer, notes = {}, {}, {}, {}, {}
for at, id in ipairs(ids) do
  local row = {}
  row.kept, row.ends, row.transfers, row.receipt = read_terms(terms[at])
  local expires = tonumber(lives[at])
  local ends = math.max(row.ends, expires > row.kept and expires + ahead or expires)
  if ends > row.ends then
    row.ends = ends
    new_terms[#new_terms + 1] = id
    new_terms[#new_terms + 1] = write_terms(row)
    latest = math.max(latest, ends)
  end
  if shown[at] > 0 then
    local _, _, count = read_mark(marks[at])
    marks[at] = mark_of(shown[at], expires, count, claim)
    new_marks[#new_marks + 1] = id
    new_marks[#new_marks + 1] = marks[at]
  end
  if row.receipt then receipts[#receipts + 1] = row.receipt end
  if expires > row.kept then
    longer[#longer + 1] = id
    notes[#notes + 1] = row.receipt and 'r' .. row.receipt or ''
  end
end
each('HSET', here.mark, new_marks)
each('HSET', here.terms, new_terms)
write_claim(here, claim, ttl, ids)
touch(latest)

local answer = { now, #receipts }
for _, receipt in ipairs(receipts) do answer[#answer + 1] = receipt end
for at, id in ipairs(longer) do
  show(answer, here, { id }, { dues = {} })
  answer[#answer + 1] = notes[at]
end
return answer
