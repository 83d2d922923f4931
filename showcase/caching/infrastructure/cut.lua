-- Whatever has a tag, and was loaded up to now, is no longer valid. Tells, and returns from when on it is (µs).
-- KEYS: cuts. ARGV: tag, who cuts, channel, how many are remembered.
local tag, origin, channel, limit = unpack(ARGV)
local member = member_of(tag)
local at = math.max(birth(), now() + 1, cut_at(member) or 0) -- the clock may have been set back

redis.call('ZADD', KEYS[1], at, member)
if redis.call('ZCARD', KEYS[1]) > tonumber(limit) then -- forget the oldest cut: what was loaded before goes with it
  local oldest = redis.call('ZRANGE', KEYS[1], 1, 1, 'WITHSCORES')
  redis.call('ZADD', KEYS[1], oldest[2], BIRTH)
  redis.call('ZREM', KEYS[1], oldest[1])
end
redis.call('PUBLISH', channel, cmsgpack.pack({ 'cut', origin, tag, at }))
return at
