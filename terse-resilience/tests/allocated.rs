//! A rate limiter allocates when it is made and never again: no decision does,
//! whether its key is known or not. A binary of its own with one test, so that
//! nothing else allocates meanwhile.

#![allow(missing_docs, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use terse_resilience::limit::{Key, Rule, local};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations since the start.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, counted.
struct Counting;

#[allow(unsafe_code, reason = "an allocator can't be written without; all is left to the system's")]
// SAFETY: every call goes to the system's allocator with the arguments that came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[test]
fn no_decision_allocates() {
    let second = Duration::from_secs(1);
    let rules = [
        Rule::TokenBucket { burst: 20, refill: 10, per: second },
        Rule::SlidingWindow { limit: 20, window: second },
        Rule::FixedWindow { limit: 20, window: second },
        Rule::LeakyBucket { rate: 10, per: second, queue: 19 },
    ];
    let ticks = Arc::new(AtomicU64::new(0));
    for rule in rules {
        let time = Arc::clone(&ticks);
        let before = COUNT.load(Ordering::SeqCst);
        let limiter = local(rule, 1_024, Arc::new(move || time.fetch_add(1, Ordering::Relaxed)), 1).unwrap();
        let made = COUNT.load(Ordering::SeqCst);
        assert!(made > before, "the counter does count");
        let mut granted = 0_u64;
        for n in 0..50_000_u32 {
            let key = Key::of(&[&(n % 40).to_be_bytes()]).unwrap();
            granted += u64::from(limiter.draw(&key, 1 + n % 3).granted);
            let new = Key::of(&[b"new", &n.to_be_bytes()]).unwrap();
            granted += u64::from(limiter.draw(&new, 1).granted);
        }
        assert_eq!(COUNT.load(Ordering::SeqCst), made, "{rule:?}");
        assert!(granted > 50_000, "{rule:?}");
    }
}
