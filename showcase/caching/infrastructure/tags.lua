-- Put before each script about tags. KEYS[1] is a sorted set: tags, by the time each was cut last (µs). Its lowest
-- member, BIRTH, says since when no cut has been forgotten. If Redis has lost the set, it begins anew: whatever was
-- loaded before is no longer valid, for nobody knows what was cut.

local BIRTH = 'birth'

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function cut_at(member)
  return tonumber(redis.pcall('ZSCORE', KEYS[1], member))
end

local function member_of(tag)
  return 'tag:' .. tag
end

-- Since when no cut has been forgotten.
local function birth()
  local at = cut_at(BIRTH)
  if not at then
    at = now()
    redis.call('DEL', KEYS[1]) -- of another type
    redis.call('ZADD', KEYS[1], at, BIRTH)
  end
  return at
end
