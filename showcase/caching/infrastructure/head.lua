-- Put before each script that compares entries: what an entry's head says, as `entry.head` reads it.

local ABSENT, FLOOR, GONE = 2, 4, 8

local function has(bits, ...)
  return bit.band(bits, bit.bor(...)) ~= 0
end

-- The bits and the version of an entry; 0 and 0 for what is none: nothing, another type of key, bytes of others.
local function head_of(text)
  if type(text) ~= 'string' or #text < 18 or text:byte(1) ~= 0xC1 then
    return 0, 0
  end
  local _, bits, version = struct.unpack('>BBi8', text)
  if version < 0 or version > 9007199254740991 then -- beyond, numbers are no longer exact
    return 0, 0
  end
  return bits, version
end

local function head_at(key)
  return head_of(redis.pcall('GETRANGE', key, 0, 17))
end
