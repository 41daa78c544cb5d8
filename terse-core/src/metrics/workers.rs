//! Counts that each web worker writes for itself, and a scrape adds up. So
//! counting costs plain increments, where counters that threads share cost
//! locked ones on memory that moves between cores.

use std::cell::Cell;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one worker counts.
pub(super) trait Cells: Debug + Default {
    /// All cells, always in the same order.
    fn all(&self) -> impl Iterator<Item = &AtomicU64>;

    /// Adds the counts of `other`.
    fn merge(&self, other: &Self) {
        for (sum, cell) in self.all().zip(other.all()) {
            increase(sum, cell.load(Ordering::Relaxed));
        }
    }
}

/// The cells of one worker, for the thread that made it alone. When it is dropped, what it counted stays in the sum.
pub(super) struct OfAWorker<C: Cells> {
    cells: Arc<C>,
    sums: Arc<Sums<C>>,
    /// Two threads that add without a locked instruction would lose counts.
    _one_thread: PhantomData<Cell<()>>,
}

/// The counts of all workers, those of the past in one.
#[derive(Debug, Default)]
pub(super) struct Sums<C: Cells> {
    workers: Mutex<Workers<C>>,
}

#[derive(Debug, Default)]
struct Workers<C> {
    now: Vec<Arc<C>>,
    past: C,
}

impl<C: Cells> OfAWorker<C> {
    /// The cells, to [`increase`].
    pub(super) fn cells(&self) -> &C {
        &self.cells
    }
}

impl<C: Cells> Drop for OfAWorker<C> {
    fn drop(&mut self) {
        let mut workers = self.sums.lock();
        workers.now.retain(|cells| !Arc::ptr_eq(cells, &self.cells));
        workers.past.merge(&self.cells);
    }
}

impl<C: Cells> Sums<C> {
    /// The cells of another worker.
    pub(super) fn of_a_worker(self: &Arc<Self>) -> OfAWorker<C> {
        let cells = Arc::<C>::default();
        self.lock().now.push(Arc::clone(&cells));
        OfAWorker { cells, sums: Arc::clone(self), _one_thread: PhantomData }
    }

    /// What all workers counted.
    pub(super) fn total(&self) -> C {
        let total = C::default();
        let workers = self.lock();
        workers.now.iter().for_each(|cells| total.merge(cells));
        total.merge(&workers.past);
        total
    }

    /// How many workers count now.
    #[cfg(test)]
    pub(super) fn workers(&self) -> usize {
        self.lock().now.len()
    }

    /// Nothing panics while it is held, and sums are never half-changed.
    fn lock(&self) -> MutexGuard<'_, Workers<C>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds to a cell that no other thread writes. Atomic only in that a scrape reads either value.
pub(super) fn increase(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Two([AtomicU64; 2]);

    impl Cells for Two {
        fn all(&self) -> impl Iterator<Item = &AtomicU64> {
            self.0.iter()
        }
    }

    fn counted(sums: &Sums<Two>) -> [u64; 2] {
        sums.total().0.map(AtomicU64::into_inner)
    }

    #[test]
    fn a_sum_has_the_workers_of_now_and_of_the_past() {
        let sums = Arc::<Sums<Two>>::default();
        let (first, second) = (sums.of_a_worker(), sums.of_a_worker());
        increase(&first.cells().0[0], 2);
        increase(&second.cells().0[1], 3);
        assert_eq!((counted(&sums), sums.workers()), ([2, 3], 2));
        drop(first);
        assert_eq!((counted(&sums), sums.workers()), ([2, 3], 1));
        increase(&second.cells().0[0], 1);
        drop(second);
        assert_eq!((counted(&sums), sums.workers()), ([3, 3], 0));
    }
}
