//! What each rule promises, for any schedule of draws, on a clock that tests move.

use proptest::prelude::*;

use super::*;
use crate::test_clock::TestClock;

const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> Key {
    Key::of(&[name.as_bytes()]).unwrap()
}

fn limiter(rule: Rule) -> (Arc<dyn RateLimiter>, Arc<TestClock>) {
    let clock = TestClock::at(7_000);
    (local(rule, 64, clock.clone(), 3).unwrap(), clock)
}

fn granted(limiter: &Arc<dyn RateLimiter>, wanted: u32) -> u32 {
    limiter.draw(&key("a"), wanted).granted
}

/// How many of `draws` of one unit each were granted.
fn admitted(limiter: &Arc<dyn RateLimiter>, draws: u32) -> u32 {
    (0..draws).map(|_| granted(limiter, 1)).sum()
}

/// Every rule, with a quota of 10 units and about 10 a second.
fn rules() -> [Rule; 4] {
    [
        Rule::TokenBucket { burst: 10, refill: 10, per: SECOND },
        Rule::SlidingWindow { limit: 10, window: SECOND },
        Rule::FixedWindow { limit: 10, window: SECOND },
        Rule::LeakyBucket { rate: 10, per: SECOND, queue: 9 },
    ]
}

#[test]
fn a_new_key_has_the_whole_quota_and_not_one_unit_more() {
    for rule in rules() {
        let (limiter, _) = limiter(rule);
        assert_eq!(limiter.rule(), rule);
        let look = limiter.draw(&key("a"), 0);
        assert_eq!((look.granted, look.remaining, look.more_in), (0, rule.quota(), Duration::ZERO), "{rule:?}");
        assert_eq!(admitted(&limiter, 25), 10, "{rule:?}");
        let refused = limiter.draw(&key("a"), 1);
        assert_eq!((refused.granted, refused.remaining, refused.wait), (0, 0, Duration::ZERO), "{rule:?}");
        assert!(refused.more_in > Duration::ZERO && refused.more_in <= rule.window() * 11 / 10, "{refused:?}");
    }
}

#[test]
fn when_more_is_promised_it_is_there_and_no_sooner() {
    for rule in rules() {
        let (limiter, clock) = limiter(rule);
        clock.advance(130);
        admitted(&limiter, 10);
        let ms = u64::try_from(limiter.draw(&key("a"), 1).more_in.as_millis()).unwrap();
        clock.advance(ms - 1);
        assert_eq!(granted(&limiter, 1), 0, "{rule:?} one millisecond early");
        clock.advance(1);
        assert_eq!(granted(&limiter, 1), 1, "{rule:?} after {ms} ms");
    }
}

#[test]
fn of_many_units_as_many_are_granted_as_there_are() {
    for rule in rules() {
        let (limiter, _) = limiter(rule);
        assert_eq!(granted(&limiter, 7), 7);
        let rest = limiter.draw(&key("a"), 1_000);
        assert_eq!((rest.granted, rest.remaining), (3, 0), "{rule:?}");
        assert_eq!(granted(&limiter, u32::MAX), 0, "{rule:?}");
    }
}

#[test]
fn keys_do_not_share_a_limit() {
    for rule in rules() {
        let (limiter, _) = limiter(rule);
        assert_eq!(admitted(&limiter, 20), 10);
        assert_eq!(limiter.draw(&key("b"), 10).granted, 10, "{rule:?}");
        assert_eq!(limiter.usage().keys, 2);
    }
}

#[test]
fn a_hundredth_of_a_token_admits_nobody() {
    let (limiter, clock) = limiter(Rule::TokenBucket { burst: 5, refill: 1, per: 100 * SECOND });
    assert_eq!(admitted(&limiter, 9), 5);
    clock.advance(1_000);
    assert_eq!(granted(&limiter, 1), 0, "0.01 token");
    clock.advance(98_999);
    assert_eq!(granted(&limiter, 1), 0, "0.99999 token");
    clock.advance(1);
    assert_eq!(admitted(&limiter, 9), 1);
}

#[test]
fn refused_draws_cost_nothing() {
    for rule in rules() {
        let (limiter, clock) = limiter(rule);
        admitted(&limiter, 10);
        assert_eq!(admitted(&limiter, 10_000), 0);
        clock.advance(1_100);
        assert!(granted(&limiter, 10) >= 10, "{rule:?} counts what it refused");
    }
}

/// Units admitted in the half second before a tick and in that after it.
fn around_a_tick(rule: Rule) -> [u32; 2] {
    let (limiter, clock) = limiter(rule);
    clock.set(19_500);
    let before = admitted(&limiter, 100);
    clock.set(20_000);
    [before, admitted(&limiter, 100)]
}

#[test]
fn a_fixed_window_lets_twice_its_limit_through_around_a_tick_and_a_sliding_one_does_not() {
    let window = 10 * SECOND;
    assert_eq!(around_a_tick(Rule::FixedWindow { limit: 50, window }), [50, 50]);
    assert_eq!(around_a_tick(Rule::SlidingWindow { limit: 50, window }), [50, 0]);
}

#[test]
fn a_leaky_bucket_gives_turns_at_even_distances_and_refuses_beyond_its_queue() {
    let (limiter, clock) = limiter(Rule::LeakyBucket { rate: 20, per: SECOND, queue: 4 });
    let waits: Vec<u128> = (0..5).map(|_| limiter.draw(&key("a"), 1).wait.as_millis()).collect();
    assert_eq!(waits, [0, 50, 100, 150, 200]);
    assert_eq!(granted(&limiter, 1), 0);
    clock.advance(50);
    let next = limiter.draw(&key("a"), 2);
    assert_eq!((next.granted, next.wait.as_millis(), next.remaining), (1, 200, 0));
}

/// A clock that reads this many seconds less from one moment to the next.
#[test]
fn a_clock_that_steps_back_neither_shuts_a_key_out_nor_gives_it_anything() {
    for rule in rules() {
        let (limiter, clock) = limiter(rule);
        clock.set(7_200_000);
        assert_eq!(admitted(&limiter, 20), 10);
        clock.set(3_600_000);
        let at_once = admitted(&limiter, 20);
        assert_eq!(at_once, 0, "{rule:?}: the step back was worth {at_once} units");
        clock.advance(2_200);
        let later = admitted(&limiter, 20);
        assert_eq!(later, 10, "{rule:?}: the time that passes counts again");
        clock.set(7_200_000);
        assert!(admitted(&limiter, 20) <= 10, "{rule:?}");
    }
}

#[test]
fn threads_that_read_the_clock_in_the_wrong_order_gain_nothing() {
    for rule in rules() {
        let (limiter, clock) = limiter(rule);
        clock.set(20_000);
        let mut admitted = 0;
        for _ in 0..2_000 {
            for ms in [20_000, 19_999] {
                clock.set(ms);
                admitted += granted(&limiter, 1);
            }
        }
        assert_eq!(admitted, 10, "{rule:?}");
    }
}

#[test]
fn a_flood_of_keys_is_bounded_and_leaves_a_used_up_key_used_up() {
    let rule = Rule::TokenBucket { burst: 100, refill: 1, per: SECOND };
    let limiter = local(rule, 4_096, TestClock::at(0), 3).unwrap();
    assert_eq!(admitted(&limiter, 200), 100);
    for n in 0..100_000_u32 {
        assert_eq!(limiter.draw(&key(&n.to_string()), 1).granted, 1, "others have a limit of their own");
    }
    let usage = limiter.usage();
    assert_eq!((usage.places, usage.keys), (4_096, 4_096));
    assert!(usage.displaced >= 95_000);
    assert_eq!(granted(&limiter, 1), 0, "who has used most is displaced last");
}

#[test]
fn racing_threads_are_granted_the_quota_together() {
    for rule in rules() {
        let (limiter, _) = limiter(rule);
        let sum: u32 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| admitted(&limiter, 1_000))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(sum, 10, "{rule:?}");
    }
}

#[test]
fn settings_outside_their_limits_make_no_limiter() {
    let make = |rule, keys| local(rule, keys, TestClock::at(0), 0).map(drop);
    assert_eq!(make(Rule::FixedWindow { limit: 0, window: SECOND }, 64).unwrap_err().setting, "limit");
    for rule in rules() {
        assert_eq!(make(rule, 0).unwrap_err().setting, "max_keys");
        assert!(make(rule, 8).is_ok());
    }
}

/// Steps of a schedule: how long nothing happens, in ms, and how many units are wanted then.
fn schedule() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let pause = prop_oneof![4 => Just(0_u64), 4 => 0_u64..150, 1 => 0_u64..3_000];
    proptest::collection::vec((pause, 0_u32..8), 1..150)
}

/// When each unit was granted, in ms.
fn run(rule: Rule, schedule: &[(u64, u32)]) -> Vec<u64> {
    let (limiter, clock) = limiter(rule);
    let mut times = vec![];
    for (pause, wanted) in schedule {
        clock.advance(*pause);
        let draw = limiter.draw(&key("a"), *wanted);
        assert!(draw.granted <= *wanted && draw.granted + draw.remaining <= rule.quota());
        assert!(draw.granted == *wanted || draw.remaining == 0, "what is left is granted: {draw:?}");
        times.extend((0..draw.granted).map(|_| clock.monotonic_ms()));
    }
    times
}

proptest! {
    #[test]
    fn a_token_bucket_admits_at_most_its_burst_and_rate_times_time(
        burst in 1_u32..30, refill in 1_u32..40, schedule in schedule(),
    ) {
        let times = run(Rule::TokenBucket { burst, refill, per: SECOND }, &schedule);
        for (first, from) in times.iter().enumerate() {
            for (last, until) in times.iter().enumerate().skip(first) {
                let most = u64::from(burst) + (until - from) * u64::from(refill) / 1_000;
                prop_assert!((last - first + 1) as u64 <= most, "{} in {} ms", last - first + 1, until - from);
            }
        }
    }

    #[test]
    fn a_sliding_window_never_exceeds_its_limit_in_any_window(
        limit in 1_u32..30, window_ms in 1_u64..2_500, schedule in schedule(),
    ) {
        let times = run(Rule::SlidingWindow { limit, window: Duration::from_millis(window_ms) }, &schedule);
        for pair in times.windows(limit as usize + 1) {
            prop_assert!(pair[limit as usize] - pair[0] >= window_ms, "{pair:?}");
        }
    }

    #[test]
    fn a_fixed_window_admits_its_limit_from_tick_to_tick(
        limit in 1_u32..30, window_ms in 1_u64..2_500, schedule in schedule(),
    ) {
        let times = run(Rule::FixedWindow { limit, window: Duration::from_millis(window_ms) }, &schedule);
        let mut windows = std::collections::BTreeMap::<u64, u32>::new();
        times.iter().for_each(|ms| *windows.entry(ms / window_ms).or_default() += 1);
        prop_assert!(windows.values().all(|units| *units <= limit), "{windows:?}");
    }

    #[test]
    fn a_leaky_bucket_gives_each_turn_once_and_none_beyond_its_queue(
        rate in 1_u32..50, queue in 0_u32..20, schedule in schedule(),
    ) {
        // No more than may wait.
        let queue = queue.min(10 * rate);
        let rule = Rule::LeakyBucket { rate, per: SECOND, queue };
        let (limiter, clock) = limiter(rule);
        let period_ns = u128::from(rule.period_ns());
        let mut free_ns = 0;
        for (pause, wanted) in schedule {
            clock.advance(pause);
            let now_ns = u128::from(clock.monotonic_ms()) * 1_000_000;
            let draw = limiter.draw(&key("a"), wanted);
            if draw.granted > 0 {
                let turn_ns = now_ns + draw.wait.as_nanos();
                prop_assert_eq!(turn_ns, now_ns.max(free_ns), "turns follow each other at the rate");
                free_ns = turn_ns + u128::from(draw.granted) * period_ns;
                prop_assert!(free_ns <= now_ns + (u128::from(queue) + 1) * period_ns);
            }
        }
    }

    #[test]
    fn no_schedule_of_a_wild_clock_makes_a_limiter_panic_or_lets_a_key_starve(
        schedule in proptest::collection::vec((any::<u64>(), any::<u32>()), 1..60),
    ) {
        for rule in rules() {
            let (limiter, clock) = limiter(rule);
            let mut last = 0;
            for (ms, wanted) in &schedule {
                last = ms % 10_000_000_000;
                clock.set(last);
                let draw = limiter.draw(&key("a"), *wanted);
                prop_assert!(draw.granted <= rule.quota());
            }
            clock.set(last + 3_200);
            prop_assert_eq!(limiter.draw(&key("a"), 0).remaining, rule.quota(), "{:?}", rule);
        }
    }
}
