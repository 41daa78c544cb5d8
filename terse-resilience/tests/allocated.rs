//! A rate limiter takes memory as its keys come, up to a bound, and none for a
//! key that it knows. A binary of its own with one test, so that nothing else
//! allocates meanwhile.

#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use terse_resilience::limit::{Key, RateLimiter, Rule, local};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations since the start.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Bytes that are allocated now.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

#[allow(unsafe_code, reason = "an allocator can't be written without; all is left to the system's")]
// SAFETY: every call goes to the system's allocator with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

/// Keys that a limiter here has room for: as many as the server's have.
const ROOM: usize = 65_536;
/// Most bytes of a limiter without keys, for each that it has room for.
const EMPTY_BYTES: usize = 2;
/// Most bytes of a key: itself and a count for each part of a window.
const KEY_BYTES: usize = 88;
/// Most bytes that come with the first key of eight.
const EIGHT_KEYS_BYTES: usize = 8 * KEY_BYTES;

/// Allocations and bytes that `work` took and kept.
fn taken(work: impl FnOnce()) -> (usize, usize) {
    let (count, bytes) = (COUNT.load(Ordering::SeqCst), BYTES.load(Ordering::SeqCst));
    work();
    (COUNT.load(Ordering::SeqCst) - count, BYTES.load(Ordering::SeqCst) - bytes)
}

/// Draws a unit for each of these keys, twice.
fn draw(limiter: &dyn RateLimiter, keys: Range<u32>) {
    for _ in 0..2 {
        for n in keys.clone() {
            assert!(limiter.draw(&Key::of(&[&n.to_be_bytes()]).unwrap(), 1 + n % 3).remaining < 20);
        }
    }
}

fn assert_memory_follows_keys(rule: Rule, time: &Arc<AtomicU64>) {
    let clock = Arc::clone(time);
    let mut made = None;
    let (count, empty) = taken(|| {
        made = Some(local(rule, ROOM, Arc::new(move || clock.fetch_add(1, Ordering::Relaxed)), 1).unwrap());
    });
    let limiter = made.unwrap();
    assert!(count > 0 && empty < ROOM * EMPTY_BYTES, "{rule:?}: {empty} bytes without a key");

    let (count, first) = taken(|| draw(&*limiter, 0..1));
    assert!(count == 1 && first <= EIGHT_KEYS_BYTES, "{rule:?}: {first} bytes for the first key");
    let (_, some) = taken(|| draw(&*limiter, 0..500));
    assert!(some <= 500 * EIGHT_KEYS_BYTES, "{rule:?}: {some} bytes for 500 keys");
    assert_eq!(taken(|| draw(&*limiter, 0..500)), (0, 0), "{rule:?}: these keys are known");

    let (_, flood) = taken(|| draw(&*limiter, 1_000..200_000));
    let all = first + some + flood;
    assert!(all <= ROOM * KEY_BYTES, "{rule:?}: {all} bytes for all keys that there is room for");
    assert_eq!(taken(|| draw(&*limiter, 500_000..520_000)), (0, 0), "{rule:?}: there is no more room");
    assert_eq!(limiter.usage().keys, ROOM);
}

#[test]
fn memory_comes_with_keys_and_none_for_a_known_one() {
    let second = Duration::from_secs(1);
    let rules = [
        Rule::TokenBucket { burst: 20, refill: 10, per: second },
        Rule::SlidingWindow { limit: 20, window: second },
        Rule::FixedWindow { limit: 20, window: second },
        Rule::LeakyBucket { rate: 10, per: second, queue: 19 },
    ];
    let time = Arc::new(AtomicU64::new(0));
    for rule in rules {
        assert_memory_follows_keys(rule, &time);
    }
}
