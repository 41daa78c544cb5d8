//! What Redis decides in one step for limits that processes share, by its own clock.
//!
//! Each script has one key and tells: units granted, units left, microseconds
//! until there are more. Times are whole microseconds: Lua's numbers hold them
//! exactly until the year 2255. A key whose state is not to be understood counts
//! as new; one from the future, after the server's clock stepped back, as used
//! by now. Nothing lives longer than it matters.

use redis::Script;

/// `KEYS[1]` = when the bucket is full again. ARGV: microseconds a unit, units of a full bucket, units wanted.
const TOKEN_BUCKET: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local period, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local whole = period * burst
local full = tonumber(redis.call('GET', KEYS[1]) or nil) or now
local early = full > now + whole
full = math.min(math.max(full, now), now + whole)
local left = math.floor((now + whole - full) / period)
local granted = math.min(wanted, left)
full = full + granted * period
if granted > 0 or early then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000))
end
local more = 0
if full > now then more = (full - now - 1) % period + 1 end
return {granted, left - granted, more}
";

/// `KEYS[1]` = the number of a window and what was used in it. ARGV: microseconds of a window, limit, units wanted.
const FIXED_WINDOW: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local length, limit, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local window = math.floor(now / length)
local stored, used = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
stored, used = tonumber(stored), tonumber(used)
if not stored or stored < window then used = 0 end
local granted = math.max(math.min(wanted, limit - used), 0)
used = used + granted
local ends = (window + 1) * length - now
if granted > 0 or (stored and stored > window) then
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', window, used), 'PX', math.ceil(ends / 1000))
end
local more = 0
if used > 0 then more = ends end
return {granted, math.max(limit - used, 0), more}
";

/// `KEYS[1]` = what was used, by the number of a part of a window. ARGV: microseconds of a part, limit, units wanted,
/// parts of a window.
const SLIDING_WINDOW: &str = r"
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local length, limit, wanted, parts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local newest = math.floor(now / length)
local all = redis.call('HGETALL', KEYS[1])
local used, oldest, early = 0, newest, 0
for i = 1, #all, 2 do
  local part, units = tonumber(all[i]), tonumber(all[i + 1]) or 0
  if not part or part < newest - parts then
    redis.call('HDEL', KEYS[1], all[i])
  else
    used = used + units
    if part > newest then
      redis.call('HDEL', KEYS[1], all[i])
      early = early + units
    elseif part < oldest then
      oldest = part
    end
  end
end
local granted = math.max(math.min(wanted, limit - used), 0)
used = used + granted
if granted + early > 0 then
  redis.call('HINCRBY', KEYS[1], string.format('%.0f', newest), granted + early)
  redis.call('PEXPIRE', KEYS[1], math.ceil(length * (parts + 1) / 1000))
end
local more = 0
if used > 0 then more = (oldest + parts + 1) * length - now end
return {granted, math.max(limit - used, 0), more}
";

/// `KEYS[1]` = units that were `used` in a period, and by the id of a process those that it told to have granted alone.
/// ARGV: units of the period, units that the caller knows to be used without those that it granted alone, the latter,
/// units wanted, milliseconds to keep the count, the caller's id. Tells: units granted, units used.
const QUOTA: &str = r"
local limit, known, alone, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local stored = tonumber(redis.call('HGET', KEYS[1], 'used') or nil) or 0
local told = tonumber(redis.call('HGET', KEYS[1], ARGV[6]) or nil) or 0
local used = math.max(stored, known + math.min(told, alone)) + math.max(alone - told, 0)
local granted = math.max(math.min(wanted, limit - used), 0)
used = used + granted
if used ~= stored then
  redis.call('HSET', KEYS[1], 'used', string.format('%.0f', used))
  if alone > told then redis.call('HSET', KEYS[1], ARGV[6], string.format('%.0f', alone)) end
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
return {granted, used}
";

/// The scripts, each sent by its hash, and whole only to a Redis that has forgotten it.
pub(super) struct LimitScripts {
    pub(super) token_bucket: Script,
    pub(super) fixed_window: Script,
    pub(super) sliding_window: Script,
    pub(super) quota: Script,
}

impl LimitScripts {
    pub(super) fn new() -> Self {
        Self {
            token_bucket: Script::new(TOKEN_BUCKET),
            fixed_window: Script::new(FIXED_WINDOW),
            sliding_window: Script::new(SLIDING_WINDOW),
            quota: Script::new(QUOTA),
        }
    }
}
