-- Store an entry, unless what is there is newer (`entry.beats`); the lease is given back. Returns whether it is stored.
-- KEYS: entry, lease. ARGV: entry, how long it is kept (ms), who must have the lease or '', channel, news or ''.
local entry, ttl_ms, holder, channel, news = unpack(ARGV)

if holder ~= '' then
  if redis.pcall('GET', KEYS[2]) ~= holder then
    return 0 -- a load that took too long, or during which a writer came: what it has may be old
  end
  redis.call('DEL', KEYS[2])
end

local bits, version = head_of(entry)
local old_bits, old_version = head_at(KEYS[1])
local is_same = version == old_version and version ~= 0
if version < old_version or (is_same and has(old_bits, GONE, ABSENT) and not has(bits, GONE, ABSENT)) then
  return 0
end

redis.call('SET', KEYS[1], entry, 'PX', ttl_ms)
redis.call('DEL', KEYS[2]) -- whoever loads now may have read what was there before
if news ~= '' then
  redis.call('PUBLISH', channel, news)
end
return 1
