-- Give the right to load, where nobody has it. Returns the time (µs), then 1 or 0 for each lease.
-- KEYS: cuts, leases. ARGV: who asks, for how long (ms).
birth() -- before anything is loaded: what is loaded from here on outlives the first look at the tags
local answer = { now() }
for place = 2, #KEYS do
  if redis.call('PTTL', KEYS[place]) == -1 then
    redis.call('DEL', KEYS[place]) -- what never ends is no lease
  end
  local given = redis.call('SET', KEYS[place], ARGV[1], 'NX', 'PX', ARGV[2])
  answer[place] = given and 1 or 0
end
return answer
