-- When each tag was cut last (µs). One that is not known was not cut since the birth.
-- KEYS: cuts. ARGV: tags.
local since, cuts = birth(), {}
for place, tag in ipairs(ARGV) do
  cuts[place] = cut_at(member_of(tag)) or since
end
return cuts
