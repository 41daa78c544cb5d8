//! The system's allocator, counted: what a test program makes its global
//! allocator to see how often something allocates, and how much it keeps.
//!
//! ```
//! use terse_testkit::CountingAllocator;
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator::new();
//!
//! let before = CountingAllocator::of_this_thread();
//! let text = String::from("kept");
//! assert_eq!(CountingAllocator::of_this_thread() - before, 1);
//! assert!(ALLOCATOR.live_bytes() >= text.len());
//! ```
//!
//! Counts are of the whole process but for [`CountingAllocator::of_this_thread`]:
//! a program that reads them has one test, or its threads disturb each other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

thread_local! {
    /// Allocations of this thread.
    static OWN: Cell<u64> = const { Cell::new(0) };
    /// Whether this thread is left out of the count of all.
    static LEFT_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Leaves all to the system's allocator, and counts. A reallocation is one allocation.
#[derive(Debug, Default)]
pub struct CountingAllocator {
    allocations: AtomicU64,
    live_bytes: AtomicUsize,
}

impl CountingAllocator {
    /// Nothing is counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { allocations: AtomicU64::new(0), live_bytes: AtomicUsize::new(0) }
    }

    /// How often all threads have allocated, but for those that are left out.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        self.allocations.load(Ordering::SeqCst)
    }

    /// Bytes that are allocated and not freed yet, by whatever thread.
    #[must_use]
    pub fn live_bytes(&self) -> usize {
        self.live_bytes.load(Ordering::SeqCst)
    }

    /// How often the calling thread has allocated, left out or not.
    #[must_use]
    pub fn of_this_thread() -> u64 {
        OWN.get()
    }

    /// Leaves the calling thread out of [`Self::allocations`] from now on.
    pub fn leave_out_this_thread() {
        LEFT_OUT.set(true);
    }

    fn count(&self, taken: usize, given_back: usize) {
        // A thread that is ending has no such cells any more; nobody asks for its own count then.
        let _ = OWN.try_with(|count| count.set(count.get() + 1));
        if !LEFT_OUT.try_with(Cell::get).unwrap_or(false) {
            self.allocations.fetch_add(1, Ordering::Relaxed);
        }
        self.live_bytes.fetch_add(taken, Ordering::Relaxed);
        self.live_bytes.fetch_sub(given_back, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator can't be written without; all is left to the system's")]
// SAFETY: every call goes to the system's allocator with the arguments that came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.count(layout.size(), 0);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        self.live_bytes.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.count(size, layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what these tests hand to it, and is nobody's global allocator: others would be counted, too.
    #[allow(unsafe_code, reason = "an allocator is called by hand")]
    fn take_grow_and_give_back(allocator: &CountingAllocator) -> [(u64, usize); 3] {
        let seen = || (allocator.allocations(), allocator.live_bytes());
        let layout = |size| Layout::from_size_align(size, 8).unwrap();
        // SAFETY: the layouts have a size, and each is that of the place it is handed in with.
        unsafe {
            let place = allocator.alloc(layout(100));
            let taken = seen();
            let place = allocator.realloc(place, layout(100), 300);
            let grown = seen();
            allocator.dealloc(place, layout(300));
            [taken, grown, seen()]
        }
    }

    #[test]
    fn allocations_and_what_is_kept_of_them_are_counted() {
        let (allocator, before) = (CountingAllocator::new(), CountingAllocator::of_this_thread());
        assert_eq!(take_grow_and_give_back(&allocator), [(1, 100), (2, 300), (2, 0)]);
        assert_eq!(CountingAllocator::of_this_thread() - before, 2);
    }

    #[test]
    fn a_thread_counts_for_itself() {
        let (allocator, before) = (CountingAllocator::new(), CountingAllocator::of_this_thread());
        std::thread::scope(|scope| {
            scope.spawn(|| take_grow_and_give_back(&allocator));
        });
        assert_eq!((allocator.allocations(), CountingAllocator::of_this_thread()), (2, before));
    }

    #[test]
    fn a_thread_may_be_left_out_but_not_what_it_keeps() {
        let allocator = CountingAllocator::new();
        let seen = std::thread::scope(|scope| {
            let left_out = scope.spawn(|| {
                CountingAllocator::leave_out_this_thread();
                let before = CountingAllocator::of_this_thread();
                let seen = take_grow_and_give_back(&allocator);
                assert_eq!(CountingAllocator::of_this_thread() - before, 2);
                seen
            });
            left_out.join().unwrap()
        });
        assert_eq!(seen, [(0, 100), (0, 300), (0, 0)]);
    }
}
