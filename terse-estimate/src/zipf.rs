//! How much of the traffic the most popular links get.
//!
//! By Zipf's law the link of rank `i` is asked for in proportion to `i^-s`. A
//! cache that holds the most popular `k` of `n` links then answers the share
//! `H(k, s) / H(n, s)`, with the generalised harmonic number `H`. It is the most
//! that a cache of `k` links can do; real ones stay a little below.

/// Ranks that are added up one by one; the rest is an integral with a correction.
const EXACT: u64 = 4_096;

/// The share, 0 to 1, of the traffic that goes to the `kept` most popular of `links` links.
#[must_use]
pub fn head_share(kept: f64, links: f64, exponent: f64) -> f64 {
    let (kept, links) = (kept.floor(), links.floor());
    if kept < 1.0 || links < 1.0 {
        return 0.0;
    }
    if kept >= links {
        return 1.0;
    }
    harmonic(kept, exponent) / harmonic(links, exponent)
}

/// The sum of `i^-s` for `i` from 1 to `n`, by Euler and Maclaurin beyond the first terms.
fn harmonic(n: f64, s: f64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let exact = EXACT as f64;
    let head: f64 = (1..=EXACT).map(f64_of).take_while(|rank| *rank <= n).map(|rank| rank.powf(-s)).sum();
    if n <= exact {
        return head;
    }
    let integral =
        if (s - 1.0).abs() < 1e-9 { (n / exact).ln() } else { (n.powf(1.0 - s) - exact.powf(1.0 - s)) / (1.0 - s) };
    head + integral + (n.powf(-s) - exact.powf(-s)) / 2.0
}

#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
fn f64_of(rank: u64) -> f64 {
    rank as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_sum_is_that_of_all_terms() {
        for s in [0.0, 0.5, 0.8, 1.0, 1.2, 2.0] {
            let plain: f64 = (1..=1_000_000_u64).map(|rank| f64_of(rank).powf(-s)).sum();
            assert!((harmonic(1e6, s) / plain - 1.0).abs() < 1e-9, "{s}");
        }
    }

    #[test]
    fn one_in_a_hundred_of_a_billion_links_gets_most_of_the_traffic() {
        assert!((head_share(12e6, 1.2e9, 1.0) - 0.786).abs() < 0.001);
        assert!((head_share(240e6, 1.2e9, 1.0) - 0.925).abs() < 0.001);
    }

    #[test]
    fn without_popularity_a_share_of_links_gets_that_share() {
        assert!((head_share(250.0, 1_000.0, 0.0) - 0.25).abs() < 1e-12);
        assert!((head_share(25e6, 1e8, 0.0) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn nothing_kept_answers_nothing_and_all_kept_everything() {
        assert!(head_share(0.9, 100.0, 1.0).abs() < f64::EPSILON);
        assert!((head_share(100.0, 100.0, 1.0) - 1.0).abs() < f64::EPSILON);
        assert!((head_share(1e9, 100.0, 1.0) - 1.0).abs() < f64::EPSILON);
        assert!(head_share(1.0, 0.0, 1.0).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn more_kept_never_answers_less(kept in 1.0..1e9_f64, more in 1.0..1e9_f64, s in 0.0..2.0_f64) {
            let links = 2e9;
            let (one, other) = (head_share(kept, links, s), head_share(kept + more, links, s));
            prop_assert!((0.0..=1.0).contains(&one) && one <= other + 1e-12);
        }
    }
}
