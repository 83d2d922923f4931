-- Make an entry stale where it lies, take the lease away, and tell. How long it is kept stays as it is.
-- KEYS: entry, lease. ARGV: channel, news.
local is_ours = redis.pcall('GETRANGE', KEYS[1], 0, 0) == '\193' and redis.call('STRLEN', KEYS[1]) >= 18
if is_ours then
  redis.call('SETRANGE', KEYS[1], 10, ('\0'):rep(8)) -- the float 0.0: until when it was fresh
end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[1], ARGV[2])
