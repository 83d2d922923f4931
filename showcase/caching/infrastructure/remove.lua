-- Put a floor in place of an older entry (`entry.merged`), take the lease away, and tell.
-- KEYS: entry, lease. ARGV: floor, how long it is kept (ms), channel, news.
local floor, ttl_ms, channel, news = unpack(ARGV)
local bits, version = head_of(floor)
local old_bits, old_version = head_at(KEYS[1])

local stays = old_version > version or (old_version == version and not has(bits, GONE))
if version == 0 then -- without a version it removes whatever is there, and what that says of versions goes on to hold
  if has(old_bits, FLOOR) then
    bits = old_bits
  end
  version, stays = old_version, false
end
if not stays then
  redis.call('SET', KEYS[1], struct.pack('>BBi8', 0xC1, bits, version) .. floor:sub(11), 'PX', ttl_ms)
end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', channel, news)
