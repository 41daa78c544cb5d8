//! Randomness that can be repeated from a seed.

use std::sync::atomic::{AtomicU64, Ordering};

use terse_core::Entropy;

/// SplitMix64 (Steele, Lea, Flood 2014) from a seed: the same seed gives the
/// same bytes to the same sequence of calls. Fit for tests only, never for keys.
#[derive(Debug)]
pub struct SeededEntropy {
    state: AtomicU64,
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SeededEntropy {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        let mut z = self.state.fetch_add(GOLDEN_GAMMA, Ordering::SeqCst).wrapping_add(GOLDEN_GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs for seed 1234567, as published with the reference implementation.
    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        let entropy = SeededEntropy::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| entropy.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn one_seed_gives_the_same_bytes_and_another_others() {
        let bytes = |seed| terse_core::time::random_bytes::<21>(&SeededEntropy::new(seed));
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
        assert!(bytes(7)[16..].iter().any(|b| *b != 0), "an incomplete chunk is filled too");
    }

    #[test]
    fn two_calls_give_different_bytes() {
        let entropy = SeededEntropy::new(7);
        let next = || terse_core::time::random_bytes::<16>(&entropy);
        assert_ne!(next(), next());
    }
}
