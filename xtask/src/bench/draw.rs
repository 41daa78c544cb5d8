//! Seeded draws: the same seed gives the same sequence, so runs are comparable.

/// Splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014): small, and good enough to choose among links.
#[derive(Clone, Debug)]
pub struct Draw {
    state: u64,
}

impl Draw {
    /// The sequence of `seed`.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to 1, 1 excluded.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// An index below `count`, each as likely as any other. `count` isn't 0.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// All indices below `count`, in random order.
    #[must_use]
    pub fn shuffled(&mut self, count: usize) -> Vec<u32> {
        let mut indices: Vec<u32> = (0..count).map(|index| index as u32).collect();
        for last in (1..count).rev() {
            indices.swap(last, self.below(last + 1));
        }
        indices
    }
}

/// Zipf's law: of `count` links the one of rank r is drawn in proportion to
/// r^−exponent. By inversion of the cumulated weights, one binary search a draw.
pub struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// The law for `count` links.
    #[must_use]
    pub fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let cumulated = (1..=count)
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        Self { cumulated }
    }

    /// The share of all draws that the `top` most popular links get together.
    #[must_use]
    pub fn share_of(&self, top: usize) -> f64 {
        let sum = |count: usize| count.checked_sub(1).and_then(|last| self.cumulated.get(last)).copied().unwrap_or(0.0);
        let all = self.cumulated.len();
        if all == 0 { 0.0 } else { sum(top.min(all)) / sum(all) }
    }

    /// The index of a link, 0 being the most popular.
    pub fn draw(&self, draw: &mut Draw) -> usize {
        let total = self.cumulated.last().copied().unwrap_or(0.0);
        let point = draw.unit() * total;
        self.cumulated.partition_point(|sum| *sum <= point).min(self.cumulated.len().saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_is_fixed() {
        // The reference values of splitmix64 for seed 1234567.
        let mut draw = Draw::seeded(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| draw.next()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn uniform_draws_reach_every_index_about_equally() {
        let mut draw = Draw::seeded(1);
        let mut counts = [0_u32; 10];
        for _ in 0..100_000 {
            counts[draw.below(10)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_shuffle_keeps_every_index_once_and_changes_their_order() {
        let mut shuffled = Draw::seeded(2).shuffled(1_000);
        assert_ne!(shuffled, (0..1_000).collect::<Vec<u32>>());
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..1_000).collect::<Vec<u32>>());
        assert!(Draw::seeded(2).shuffled(0).is_empty());
    }

    #[test]
    fn zipf_draws_ranks_in_proportion_to_their_inverse() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut draw = Draw::seeded(3);
        let mut counts = vec![0_f64; 1_000];
        let draws = 500_000;
        for _ in 0..draws {
            counts[zipf.draw(&mut draw)] += 1.0;
        }
        let harmonic: f64 = (1..=1_000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 3, 10, 100] {
            let expected = f64::from(draws) / harmonic / f64::from(rank);
            let ours = counts[rank as usize - 1];
            assert!((ours / expected - 1.0).abs() < 0.1, "rank {rank}: {ours} draws, expected {expected}");
        }
    }

    #[test]
    fn the_share_of_the_most_popular_is_the_sum_of_their_weights() {
        let zipf = Zipf::new(4, 1.0);
        let all = 1.0 + 1.0 / 2.0 + 1.0 / 3.0 + 1.0 / 4.0;
        assert!((zipf.share_of(1) - 1.0 / all).abs() < 1e-12);
        assert!((zipf.share_of(2) - 1.5 / all).abs() < 1e-12);
        assert_eq!((zipf.share_of(0), zipf.share_of(4), zipf.share_of(9)), (0.0, 1.0, 1.0));
        assert_eq!(Zipf::new(0, 1.0).share_of(3), 0.0);
    }

    #[test]
    fn zipf_with_exponent_zero_is_uniform_and_stays_in_range() {
        let zipf = Zipf::new(4, 0.0);
        let mut draw = Draw::seeded(4);
        let mut counts = [0_u32; 4];
        for _ in 0..40_000 {
            counts[zipf.draw(&mut draw)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
