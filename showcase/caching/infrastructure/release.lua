-- Give leases back, where this holder has them. KEYS: leases. ARGV: who holds.
for _, key in ipairs(KEYS) do
  if redis.pcall('GET', key) == ARGV[1] then
    redis.call('DEL', key)
  end
end
