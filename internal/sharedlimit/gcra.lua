-- One request of one key: internal/ratelimit's algorithm (GCRA), on the store's clock.
--
-- KEYS[1]  the counter: "<at> <debt> <pace>"
-- ARGV[1]  the limit's interval: the nanoseconds that one counted request takes to run out
-- ARGV[2]  the limit's burst
--
-- The answer is the debt in nanoseconds, that is when the counter will have run out: positive if the request was counted,
-- negative if it is refused.
--
-- A counter is kept as the debt that was left at a time in microseconds, and the interval that it runs out at. So a clock
-- that is set back loses nothing and holds nobody back. All numbers are whole and below 2^51, where doubles are exact.

-- scale returns d*num/den, rounded up, for num and den up to 10^9. The product would not be exact, so num is taken in two parts.
local function scale(d, num, den)
  local whole, rest = math.floor(d / den), d % den
  local high = rest * math.floor(num / 32768)
  local low = (high % den) * 32768 + rest * (num % 32768)
  return whole * num + math.floor(high / den) * 32768 + math.ceil(low / den)
end

local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

local function keep(debt, pace)
  -- One millisecond more, because expiry counts in whole ones.
  local ttl = math.ceil(debt / 1000000) + 1
  redis.call('SET', KEYS[1], string.format('%.0f %.0f %.0f', now, debt, pace), 'PX', string.format('%.0f', ttl))
end

local debt, pace, stale = 0, interval, false
local at, owed, per = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+) (%d+)$')
if at then
  pace = tonumber(per)
  debt = math.max(tonumber(owed) - math.max(now - tonumber(at), 0) * 1000, 0)
  stale = now < tonumber(at)
end

-- A counter of another limit is translated: counted requests stay counted. A faster limit takes it over for good, under
-- a slower one it goes on running out at its own pace until a request is counted.
if interval < pace then
  debt, pace, stale = scale(debt, interval, pace), interval, true
end
local seen = debt
if interval > pace and debt > 0 then
  local full = (burst - 1) * pace
  if debt > full then
    seen = (burst - 1) * interval + debt - full
  else
    seen = scale(debt, interval, pace)
  end
end

if seen + interval > burst * interval then
  if stale then
    keep(debt, pace)
  end
  return -seen
end
keep(seen + interval, interval)
return seen + interval
