-- Settles a queue by one step, for nobody in particular.
--
-- KEYS    1-13 the queue
-- Result  {whether it is settled, the moment at which something ends next or nothing}

local settled, next = settle(), nil
for _, key in ipairs({ here.time, here.deleted, here.expired }) do
  local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  local moment = tonumber(first[2])
  if moment and (not next or moment < next) then next = moment end
end
return { settled and 1 or 0, next and string.format('%.0f', next) or nil }
