//! What a decision of each limiter costs. Prints nanoseconds, the best of five
//! rounds; `cargo bench -p terse-resilience --bench limits`. A number on the
//! command line = so many decisions a round; the word `curves` = what each lets
//! through over time instead.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

mod curves;

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use terse_resilience::MonotonicClock;
use terse_resilience::limit::{Key, Rule, local};

const DECISIONS: u32 = 2_000_000;
const ROUNDS: usize = 5;
const KEYS: u32 = 20_000;
const MAX_KEYS: usize = 65_536;

struct SystemClock(Instant);

impl MonotonicClock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    fn monotonic_ns(&self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Nanoseconds for one `work`, which is told its number, on each of `threads` threads at once.
fn measure(name: &str, threads: u32, work: impl Fn(u32) + Sync) {
    let decisions = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(DECISIONS).max(2) / threads;
    let round = || {
        let start = Barrier::new(threads as usize);
        let run = |thread: u32| {
            let (start, work) = (&start, &work);
            move || {
                start.wait();
                let began = Instant::now();
                (0..decisions).for_each(|n| work(n.wrapping_add(thread * KEYS / 2)));
                began.elapsed().as_secs_f64() * 1e9 / f64::from(decisions)
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(run(thread))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).fold(0.0, f64::max)
        })
    };
    let best = (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min);
    println!("{name:<48}{threads:>2} threads {best:>8.1} ns");
}

fn key(n: u32) -> Key {
    Key::of(&[&[6], &n.to_be_bytes()]).unwrap()
}

fn main() {
    if std::env::args().any(|word| word == "curves") {
        curves::print();
        return;
    }
    let clock = Arc::new(SystemClock(Instant::now()));
    let keys: Vec<Key> = (0..KEYS).map(key).collect();
    let minute = Duration::from_secs(60);
    let rules = [
        Rule::TokenBucket { burst: 100, refill: 10, per: Duration::from_secs(1) },
        Rule::SlidingWindow { limit: 300, window: minute },
        Rule::FixedWindow { limit: 300, window: minute },
        Rule::LeakyBucket { rate: 10, per: Duration::from_secs(1), queue: 20 },
    ];
    measure("reading the clock once", 1, |_| {
        black_box(clock.monotonic_ns());
    });
    for rule in rules {
        let limiter = local(rule, MAX_KEYS, clock.clone(), 1).unwrap();
        let name = rule.name();
        for threads in [1, 2] {
            measure(&format!("{name}: one key"), threads, |_| {
                black_box(limiter.draw(&keys[0], 1));
            });
            measure(&format!("{name}: {KEYS} keys in turn"), threads, |n| {
                black_box(limiter.draw(&keys[(n % KEYS) as usize], 1));
            });
        }
        measure(&format!("{name}: a key that is new each time"), 1, |n| {
            black_box(limiter.draw(&key(n), 1));
        });
    }
}
