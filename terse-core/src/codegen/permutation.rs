//! A keyed permutation of the numbers below 62^length.
//!
//! A balanced Feistel network on 6 × `length` bits (Luby and Rackoff, 1988)
//! with SipHash-2-4 as its round function, made smaller by cycle-walking
//! (Black and Rogaway, 2002): a result of 62^length or more is permuted again.
//! As 64^length is at most 1.4 × 62^length up to 10 letters, a walk takes less
//! than 1.4 steps on average, and it always ends: the cycle that a number lies
//! on leads back to that number, which is below 62^length.

use siphasher::sip::SipHasher24;

/// Four rounds are enough against an observer with few codes; ten leave a wide margin at some 200 ns a code.
const ROUNDS: u8 = 10;

/// Letters of the alphabet of generated codes.
pub(super) const BASE: u64 = 62;

/// The permutation of one length under one key.
#[derive(Clone, Copy)]
pub(super) struct Permutation {
    round_function: SipHasher24,
    length: u8,
}

impl Permutation {
    /// The permutation for codes of `length` letters, 1 to 10.
    pub(super) fn new(key: &[u8; 16], length: u8) -> Self {
        Self { round_function: SipHasher24::new_with_key(key), length }
    }

    /// How many numbers are permuted: 62^length.
    pub(super) const fn size(length: u8) -> u64 {
        BASE.pow(length as u32)
    }

    /// Where `number`, which is below [`Permutation::size`], goes; below it too.
    pub(super) fn apply(&self, number: u64) -> u64 {
        let mut result = self.feistel(number);
        while result >= Self::size(self.length) {
            result = self.feistel(result);
        }
        result
    }

    fn feistel(&self, number: u64) -> u64 {
        let mut left = number >> self.half_bits();
        let mut right = number & self.half_mask();
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        left << self.half_bits() | right
    }

    fn round(&self, round: u8, half: u64) -> u64 {
        let mut message = [0; 10];
        message[0] = self.length;
        message[1] = round;
        message[2..].copy_from_slice(&half.to_le_bytes());
        self.round_function.hash(&message) & self.half_mask()
    }

    const fn half_bits(&self) -> u32 {
        3 * self.length as u32
    }

    const fn half_mask(&self) -> u64 {
        (1 << self.half_bits()) - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 16] = *b"0123456789abcdef";

    /// The way back, which terse itself never goes.
    fn inverse(permutation: &Permutation, number: u64) -> u64 {
        let mut result = number;
        loop {
            let mut left = result >> permutation.half_bits();
            let mut right = result & permutation.half_mask();
            for round in (0..ROUNDS).rev() {
                (left, right) = (right ^ permutation.round(round, left), left);
            }
            result = left << permutation.half_bits() | right;
            if result < Permutation::size(permutation.length) {
                return result;
            }
        }
    }

    #[test]
    fn short_lengths_are_permuted_completely() {
        for length in 1..=3 {
            let permutation = Permutation::new(&KEY, length);
            let size = Permutation::size(length);
            let mut seen = vec![false; size as usize];
            for number in 0..size {
                let result = permutation.apply(number) as usize;
                assert!(!std::mem::replace(&mut seen[result], true), "{result} came twice at length {length}");
            }
        }
    }

    #[test]
    fn lengths_and_keys_permute_differently() {
        let other_key = Permutation::new(b"0123456789abcdeg", 7);
        let other_length = Permutation::new(&KEY, 8);
        let permutation = Permutation::new(&KEY, 7);
        let same = (0..1_000).filter(|n| permutation.apply(*n) == other_key.apply(*n)).count();
        assert_eq!(same, 0);
        assert!((0..1_000).all(|n| permutation.apply(n) != other_length.apply(n)));
    }

    #[test]
    fn flipping_one_bit_changes_about_half_of_the_result() {
        let permutation = Permutation::new(&KEY, 7);
        let flips: u32 =
            (0..1_000).map(|n| (permutation.feistel(n << 1) ^ permutation.feistel(n << 1 | 1)).count_ones()).sum();
        // 42 bits, so 21 on average; 1,000 samples stay within 0.5 of that.
        assert!((20_500..21_500).contains(&flips), "{flips}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn every_number_comes_back_by_the_inverse(key: [u8; 16], length in 1_u8..=10, number: u64) {
            let permutation = Permutation::new(&key, length);
            let number = number % Permutation::size(length);
            let result = permutation.apply(number);
            prop_assert!(result < Permutation::size(length));
            prop_assert_eq!(inverse(&permutation, result), number);
        }
    }
}
