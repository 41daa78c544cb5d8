//! What Redis does in one step: compare versions, then write or remove.
//!
//! Two 32-bit numbers are compared, not strings: Lua compares these by the
//! locale of the server. Numbers of 64 bits would not fit its doubles.

use redis::Script;

/// Keeps `ARGV[1]` for `ARGV[2]` ms unless what `KEYS[1]` has is newer, or as new and
/// of a later format. What has no time to live, or is no string, was not
/// written here and stands in nobody's way. Tells whether it was kept.
const KEEP_NEWEST: &str = r"
local old = redis.pcall('GETRANGE', KEYS[1], 0, 8)
if type(old) == 'table' then
  if string.sub(old.err, 1, 9) ~= 'WRONGTYPE' then return old end
elseif #old == 9 then
  local high, low, format = struct.unpack('>I4I4B', old)
  local new_high, new_low, new_format = struct.unpack('>I4I4B', ARGV[1])
  local newer = high > new_high
  if high == new_high then
    newer = low > new_low or (low == new_low and format > new_format)
  end
  if newer and redis.call('PTTL', KEYS[1]) >= 0 then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
";

/// Removes `KEYS[1]` if it is older than the version `ARGV[1]`, or has none. Tells whether it did.
const DROP_OLDER: &str = r"
local old = redis.pcall('GETRANGE', KEYS[1], 0, 7)
if type(old) == 'table' then
  if string.sub(old.err, 1, 9) ~= 'WRONGTYPE' then return old end
elseif #old == 8 then
  local high, low = struct.unpack('>I4I4', old)
  local least_high, least_low = struct.unpack('>I4I4', ARGV[1])
  if high > least_high or (high == least_high and low >= least_low) then return 0 end
end
return redis.call('DEL', KEYS[1])
";

/// Removes `KEYS[1]` if it still begins with `ARGV[1]`, which are the first `ARGV[2]` bytes of it, or all.
const DROP_EXACTLY: &str = r"
if redis.call('GETRANGE', KEYS[1], 0, ARGV[2] - 1) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// The scripts, each sent by its hash, and whole only to a Redis that has forgotten it.
pub(super) struct Scripts {
    pub(super) keep_newest: Script,
    pub(super) drop_older: Script,
    pub(super) drop_exactly: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            keep_newest: Script::new(KEEP_NEWEST),
            drop_older: Script::new(DROP_OLDER),
            drop_exactly: Script::new(DROP_EXACTLY),
        }
    }
}
