//! Which link is asked for: the same for the same request of the same run, whoever asks.

/// A number of 64 bits that `seed` and `number` alone decide (the finisher of splitmix64, Steele et al. 2014).
#[must_use]
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut bits = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Zipf's law with exponent 1: the link of rank r is asked for in proportion to 1/r.
#[derive(Clone, Debug)]
pub struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// The law for `count` links.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=count)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        Self { cumulated }
    }

    /// The index of a link, 0 being the most popular; 0 as well if there is none.
    #[must_use]
    pub fn index(&self, bits: u64) -> usize {
        let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64;
        let point = unit * self.cumulated.last().copied().unwrap_or(0.0);
        self.cumulated.partition_point(|sum| *sum <= point).min(self.cumulated.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_splitmix() {
        let numbers: Vec<u64> = (0..3).map(|number| mix(1_234_567, number)).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn a_rank_is_drawn_in_proportion_to_its_inverse() {
        let zipf = Zipf::new(100);
        let mut counts = [0_f64; 100];
        for number in 0..200_000 {
            counts[zipf.index(mix(7, number))] += 1.0;
        }
        let harmonic: f64 = (1..=100).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1_u32, 2, 10, 50] {
            let expected = 200_000.0 / harmonic / f64::from(rank);
            let drawn = counts[rank as usize - 1];
            assert!((drawn / expected - 1.0).abs() < 0.1, "rank {rank}: {drawn}, expected {expected}");
        }
    }

    #[test]
    fn draws_stay_in_range() {
        assert_eq!(Zipf::new(0).index(u64::MAX), 0);
        assert_eq!(Zipf::new(1).index(u64::MAX), 0);
        assert!(Zipf::new(3).index(u64::MAX) < 3);
    }
}
