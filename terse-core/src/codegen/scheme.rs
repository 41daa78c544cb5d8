//! Ways to make a code of an id, side by side: what terse does and what it
//! might have done, to show how each spreads codes over shards.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use super::CodeSpace;
use super::permutation::Permutation;
use super::space::{FIRST_LENGTH, base62};
use crate::ShortCode;

/// A way to make codes of 7 letters.
#[derive(Clone)]
pub enum Scheme {
    /// The id itself in base62, with leading zeroes: codes can be walked, and
    /// 62⁵ neighbours share the two letters that decide on the slot.
    Plain,
    /// The deployment's permutation, as [`CodeSpace`] makes codes.
    Permuted(CodeSpace),
    /// SipHash-1-3 of the id under a key: as even as the permutation, but two
    /// ids may share a code. <https://www.aumasson.jp/siphash/>
    Hashed([u8; 16]),
}

impl Scheme {
    /// The schemes in this order, those that need a key with `key`.
    #[must_use]
    pub fn all(key: [u8; 16]) -> [Self; 3] {
        [Self::Plain, Self::Permuted(CodeSpace::new(key)), Self::Hashed(key)]
    }

    /// Its name, for people.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Plain => "plain counter",
            Self::Permuted(_) => "permuted counter",
            Self::Hashed(_) => "hash",
        }
    }

    /// The code of `id`; `None` when the scheme has no code for so large an id.
    #[must_use]
    pub fn code(&self, id: u64) -> Option<ShortCode> {
        let size = Permutation::size(FIRST_LENGTH);
        match self {
            Self::Plain if id < size => base62(id, FIRST_LENGTH),
            Self::Plain => None,
            Self::Permuted(space) => space.code(id),
            Self::Hashed(key) => {
                let mut hasher = SipHasher13::new_with_key(key);
                hasher.write_u64(id);
                base62(hasher.finish() % size, FIRST_LENGTH)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const KEY: [u8; 16] = *b"terse test key 1";

    #[test]
    fn the_plain_counter_counts_in_base62() {
        let code = |id| Scheme::Plain.code(id).map(|code| code.to_string());
        assert_eq!(code(0).unwrap(), "0000000");
        assert_eq!(code(61).unwrap(), "000000z");
        assert_eq!(code(62).unwrap(), "0000010");
        assert_eq!(code(3_521_614_606_207).unwrap(), "zzzzzzz");
        assert_eq!(code(3_521_614_606_208), None);
    }

    #[test]
    fn the_permuted_scheme_is_what_links_get() {
        let [_, permuted, _] = Scheme::all(KEY);
        for id in [0, 1, 999_999, 3_521_614_606_208] {
            assert_eq!(permuted.code(id), CodeSpace::new(KEY).code(id));
        }
    }

    #[test]
    fn a_hash_depends_on_the_key_and_is_the_same_each_time() {
        let hash = |key, id| Scheme::Hashed(key).code(id).unwrap();
        assert_eq!(hash(KEY, 7), hash(KEY, 7));
        assert_ne!(hash(KEY, 7), hash(*b"terse test key 2", 7));
        assert_eq!(hash(KEY, u64::MAX).as_str().len(), 7);
    }

    /// The case for permuting: by the first letters neighbours stay together.
    #[test]
    fn neighbours_share_a_slot_under_the_plain_counter_only() {
        let slots =
            |scheme: &Scheme| (5_000..5_500).map(|id| scheme.code(id).unwrap().slot()).collect::<HashSet<_>>().len();
        let [plain, permuted, hashed] = Scheme::all(KEY).map(|scheme| slots(&scheme));
        assert_eq!(plain, 1);
        assert!(permuted > 400 && hashed > 400, "{permuted} {hashed}");
    }

    #[test]
    fn each_scheme_has_a_name_of_its_own() {
        let names: HashSet<&str> = Scheme::all(KEY).iter().map(Scheme::name).collect();
        assert_eq!(names.len(), 3);
    }
}
