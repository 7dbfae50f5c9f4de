"""What `limits.book` does, in Lua, so that Redis does it in one step. A test compares the two on random sequences.

Keys, all in one slot: `time` (the last time seen, and by how much the server's clock has stepped back), `due` (when a
reservation is let go), `open` (its charges), `holders` (when each was last heard of), a sequence number for each of
them, and one string for each counter: a rate is `at held when low when low ...`, a gauge `in_use`, a budget
`settled reserved`.

Lua's numbers are doubles: everything here is a whole number below 2**53, and then quotients, too, round as they should.
A holder's settlements are numbered and come in order, so "have I seen this one?" is one number for each holder, however
many there are and however long the connection was gone.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

import msgspec

from penstock.limits.bucket import LOWS, NEAREST, NEVER
from penstock.limits.budget import GRACE, SOON

VERSION: Final = 1  # of the keys' meaning; it is in their names
HOLDER_SECONDS: Final = 7 * 86_400  # that a holder's sequence number is remembered
MOST_DEAD: Final = 100  # reservations told of by one TEND


class Script(msgspec.Struct, frozen=True):
    name: str
    text: str

    @property
    def sha(self) -> str:
        """As Redis names it: not for security."""
        return sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_COMMON = f"""
local MICRO, SOON, GRACE, LOWS, NEAREST = 1000000, {SOON}, {GRACE}, {LOWS}, {NEAREST}
local NEVER, HOLDER_SECONDS, MOST_DEAD = {NEVER}, {HOLDER_SECONDS}, {MOST_DEAD}
local COUNTER, KIND, LIMIT, COST, WINDOW, SOFT = 1, 2, 3, 4, 5, 6
local RATE, GAUGE, BUDGET = 0, 1, 2

local function text(number) return string.format('%.0f', number) end

-- Microseconds that never run backwards. `given` is empty but in simulations.
local function onward(key, stored, given)
  local now
  if given == '' then
    local time = redis.call('TIME')
    now = time[1] * MICRO + time[2]
  else
    now = tonumber(given)
  end
  local last, shift = string.match(stored or '0 0', '(%d+) (%d+)')
  shift = tonumber(shift)
  if now < tonumber(last) then shift = shift + tonumber(last) - now end
  redis.call('SET', key, text(now) .. ' ' .. text(shift))
  return now + shift
end

local function numbers(stored)
  local all = {{}}
  for digits in string.gmatch(stored, '%d+') do all[#all + 1] = tonumber(digits) end
  return all
end

-- A bucket is at, held, when, low, when, low ...
local function bucket(stored, charge, now)
  if not stored then return {{now, 0}} end
  local b = numbers(stored)
  local ticks = math.floor((now - b[1]) / charge[WINDOW])
  local left = b[2] - ticks * charge[LIMIT]
  if left > 0 then
    b[1], b[2] = b[1] + ticks * charge[WINDOW], left
  else
    b[1], b[2] = now, 0
  end
  return b
end

local function add(b, units, now)
  while #b > 2 and b[#b] >= b[2] do
    b[#b] = nil
    b[#b] = nil
  end
  b[#b + 1] = now
  b[#b + 1] = b[2]
  if #b == 2 + 2 * LOWS then
    local ratios, sorted, merged = {{}}, {{}}, {{b[1], b[2], b[3], b[4]}}
    for i = 5, #b, 2 do
      ratios[i] = (b[i + 1] + 1) / (b[i - 1] + 1)
      sorted[#sorted + 1] = ratios[i]
    end
    table.sort(sorted)
    for i = 5, #b, 2 do
      if ratios[i] <= sorted[NEAREST] then
        merged[#merged - 1] = b[i]
      else
        merged[#merged + 1] = b[i]
        merged[#merged + 1] = b[i + 1]
      end
    end
    b = merged
  end
  b[2] = b[2] + units * MICRO
  return b
end

local function give_back(b, units, since)
  local later = #b + 1
  while later > 3 and b[later - 2] > since do later = later - 2 end
  local amount = math.min(units * MICRO, b[2])
  if later <= #b then amount = math.min(amount, b[later + 1]) end
  b[2] = b[2] - amount
  for i = later + 1, #b, 2 do b[i] = b[i] - amount end
  local least = b[later + 1] or b[2]
  while later > 3 and b[later - 1] >= least do
    table.remove(b, later - 1)
    table.remove(b, later - 2)
    later = later - 2
  end
end

local function keep_bucket(key, b, charge)
  local dry = 0
  if charge[LIMIT] > 0 then dry = math.ceil(b[2] / charge[LIMIT]) * charge[WINDOW] / 1000 end
  for i = 1, #b do b[i] = text(b[i]) end
  redis.call('SET', key, table.concat(b, ' '), 'PX', text(math.ceil(dry) + 60000))
end

local function keep_gauge(key, in_use)
  redis.call('SET', key, text(in_use), 'EX', GRACE)
end

local function keep_budget(key, settled, reserved, window)
  redis.call('SET', key, text(settled) .. ' ' .. text(reserved), 'EX', text(window + GRACE))
end
"""

# KEYS: time, due, open, counters. ARGV: now, id, hold (0: only look), charges.
# Returns {1, now, used...}, {0, now, which, wait (-1: never), used...} or {2, now, which...}, counting from 0.
RESERVE: Final = Script(
    "penstock_reserve_1",
    _COMMON
    + """
local charges, hold = cmsgpack.unpack(ARGV[4]), tonumber(ARGV[3])
local stored = redis.call('MGET', KEYS[1], unpack(KEYS, 4))
local now = onward(KEYS[1], stored[1], ARGV[1])
local states, used, unseeded = {}, {}, {2, now}
local refused, which, longest = false, 0, 0
for i, charge in ipairs(charges) do
  local state, limit, cost, wait = stored[i + 1], charge[LIMIT], charge[COST], 0
  if charge[KIND] == RATE then
    state = bucket(state, charge, now)
    used[i] = math.ceil(state[2] / MICRO)
    if cost > 0 and state[2] + cost * MICRO > limit * MICRO then
      wait = math.huge
      if cost <= limit then
        wait = math.ceil((state[2] + (cost - limit) * MICRO) / limit) * charge[WINDOW] - (now - state[1])
        if wait >= NEVER then wait = math.huge end
      end
    end
  elseif charge[KIND] == GAUGE then
    state = tonumber(state or 0)
    used[i] = state
    if cost > 0 and state + cost > limit then wait = SOON end
  else
    if not state then unseeded[#unseeded + 1] = i - 1 end
    state = numbers(state or '0 0')
    used[i] = state[1] + state[2]
    if cost > 0 and used[i] + cost > limit and not charge[SOFT] then
      wait = charge[WINDOW] * MICRO
      if state[1] + cost <= limit then wait = SOON end
    end
  end
  if wait > 0 then
    refused = true
    if cost > limit then wait = math.huge end
    if wait > longest then which, longest = i - 1, wait end
  end
  states[i] = state
end
if hold == 0 then return {1, now, unpack(used)} end
if #unseeded > 2 then return unseeded end
if refused then
  if longest == math.huge then longest = -1 end
  return {0, now, which, longest, unpack(used)}
end
for i, charge in ipairs(charges) do
  local key, state, cost = KEYS[i + 3], states[i], charge[COST]
  if charge[KIND] == RATE then
    if cost > 0 then
      state = add(state, cost, now)
      used[i] = math.ceil(state[2] / MICRO)
      keep_bucket(key, state, charge)
    end
  else
    used[i] = used[i] + cost
    if charge[KIND] == GAUGE then
      keep_gauge(key, used[i])
    else
      keep_budget(key, state[1], state[2] + cost, charge[WINDOW])
    end
  end
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
redis.call('ZADD', KEYS[2], text(now + hold), ARGV[2])
return {1, now, unpack(used)}
""",
)

# KEYS: time, due, open, holder, counters. ARGV: now, id, mode, charges, costs, since (but to settle: hold), number.
# `settle` counts once for each number of its holder; `cancel` undoes a reservation whose answer nobody has seen;
# `expire` lets go of a dead one. Returns {1, now, over...}, or {0} when there was nothing to do.
SETTLE: Final = Script(
    "penstock_settle_1",
    _COMMON
    + """
local id, mode, charges, costs = ARGV[2], ARGV[3], cmsgpack.unpack(ARGV[4]), cmsgpack.unpack(ARGV[5])
local stored, since = redis.call('MGET', KEYS[1], unpack(KEYS, 5)), tonumber(ARGV[6])
local now = onward(KEYS[1], stored[1], ARGV[1])
if mode == 'settle' then
  if tonumber(ARGV[7]) <= tonumber(redis.call('GET', KEYS[4]) or 0) then return {0} end
  redis.call('SET', KEYS[4], ARGV[7], 'EX', HOLDER_SECONDS)
else
  local due = tonumber(redis.call('ZSCORE', KEYS[2], id) or -1)
  if mode == 'expire' and due > now then return {0} end
  since = due - since
end
local held = redis.call('HDEL', KEYS[3], id) == 1
redis.call('ZREM', KEYS[2], id)
if not held and mode ~= 'settle' then return {0} end
local over = {1, now}
for i, charge in ipairs(charges) do
  local key, state, limit, cost, by = KEYS[i + 4], stored[i + 1], charge[LIMIT], costs[i], 0
  local more = cost - charge[COST]
  if charge[KIND] == RATE then
    if more ~= 0 and mode ~= 'expire' then
      local b = bucket(state, charge, now)
      if more > 0 then
        b = add(b, more, now)
        by = math.min(more, math.max(0, math.ceil(b[2] / MICRO) - limit))
      else
        give_back(b, -more, since)
      end
      keep_bucket(key, b, charge)
    end
  elseif charge[KIND] == GAUGE then
    if held and state then keep_gauge(key, math.max(0, state - charge[COST])) end
  elseif state then
    local reserved = 0
    if held then reserved = charge[COST] end
    state = numbers(state)
    local settled, left = state[1] + cost, math.max(0, state[2] - reserved)
    if cost > reserved and not charge[SOFT] then
      by = math.max(0, math.min(cost - reserved, settled + left - limit))
    end
    keep_budget(key, settled, left, charge[WINDOW])
  end
  over[i + 2] = by
end
return over
""",
)

# KEYS: time, budget. ARGV: now, settled, window.
SEED: Final = Script(
    "penstock_seed_1",
    _COMMON
    + """
local state = numbers(redis.call('GET', KEYS[2]) or '0 0')
keep_budget(KEYS[2], math.max(state[1], tonumber(ARGV[2])), state[2], tonumber(ARGV[3]))
""",
)

# KEYS: time, due, open. ARGV: now, hold, ids that live. Returns {id, charges, id, charges ...} of some that do not.
TEND: Final = Script(
    "penstock_tend_1",
    _COMMON
    + """
local now = onward(KEYS[1], redis.call('GET', KEYS[1]), ARGV[1])
for i = 3, #ARGV do redis.call('ZADD', KEYS[2], 'XX', text(now + ARGV[2]), ARGV[i]) end
local dead = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now), 'LIMIT', 0, MOST_DEAD)) do
  dead[#dead + 1] = id
  dead[#dead + 1] = redis.call('HGET', KEYS[3], id)
end
return dead
""",
)

# KEYS: time, holders. ARGV: now, holder, hold. Returns how many holders have said this within `hold`.
HOLDERS: Final = Script(
    "penstock_holders_1",
    _COMMON
    + """
local now = onward(KEYS[1], redis.call('GET', KEYS[1]), ARGV[1])
redis.call('ZADD', KEYS[2], text(now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now - ARGV[3]))
redis.call('PEXPIRE', KEYS[2], text(math.ceil(ARGV[3] / 1000)))
return redis.call('ZCARD', KEYS[2])
""",
)

ALL: Final = (RESERVE, SETTLE, SEED, TEND, HOLDERS)
