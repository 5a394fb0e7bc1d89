-- Settles a queue by one step, for nobody in particular.
--
-- KEYS    1-8 the queue
-- Result  {whether it is settled, the moment at which something ends next or nothing}

local settled = settle(here)
local first = call('ZRANGE', here.time, 0, 0, 'WITHSCORES')
return { settled and 1 or 0, first[2] }
