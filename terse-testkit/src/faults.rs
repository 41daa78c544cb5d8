//! A schedule of faults: which call of which operation goes wrong, and how.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use terse_core::ports::{StoreError, StoreErrorKind};

use crate::Gate;

/// The operations of the storage ports, by the method's name.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Resolve,
    InsertIfAbsent,
    Update,
    Get,
    List,
    FindKey,
    ClaimKey,
    ReplaceKey,
    PurgeKeys,
    Setting,
    Settle,
    Forget,
    Names,
    Lease,
    Leases,
    AddKey,
    Keys,
    RevokeKey,
    KeysRevision,
    Check,
    /// [`StoreHealth::check_writes`](terse_core::ports::StoreHealth::check_writes).
    CheckWrites,
}

/// Which calls of an operation go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// All of them.
    Every,
    /// The n-th since the store was wrapped; the first is 1.
    Nth(usize),
}

/// How a call goes wrong.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails with this kind, and nothing is done.
    Fail(StoreErrorKind),
    /// It is done, but its answer is lost: [`StoreErrorKind::UnknownOutcome`].
    LoseAnswer,
    /// It waits at the gate, and is done after that.
    HoldCall(Arc<Gate>),
    /// It is done, and its answer waits at the gate.
    HoldAnswer(Arc<Gate>),
    /// It panics.
    Panic,
}

/// What goes wrong when, and how often each operation was called. Without an
/// entry nothing goes wrong.
#[derive(Debug, Default)]
pub struct Faults {
    schedule: Mutex<Schedule>,
}

#[derive(Debug, Default)]
struct Schedule {
    calls: HashMap<Operation, usize>,
    faults: Vec<(Operation, When, Fault)>,
}

impl Faults {
    /// Lets calls of `operation` go wrong. Of several entries for a call, the first counts.
    pub fn add(&self, operation: Operation, when: When, fault: Fault) {
        self.schedule.lock().faults.push((operation, when, fault));
    }

    /// Forgets all entries: from now on nothing goes wrong. Who waits at a gate keeps waiting.
    pub fn heal(&self) {
        self.schedule.lock().faults.clear();
    }

    /// How many calls of `operation` have begun.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> usize {
        self.schedule.lock().calls.get(&operation).copied().unwrap_or(0)
    }

    /// Counts a call and returns its fault, if any.
    fn begin(&self, operation: Operation) -> Option<Fault> {
        let mut schedule = self.schedule.lock();
        let calls = schedule.calls.entry(operation).or_insert(0);
        *calls += 1;
        let number = *calls;
        let due = |when: When| matches!(when, When::Every) || when == When::Nth(number);
        schedule.faults.iter().find(|(of, when, _)| *of == operation && due(*when)).map(|(_, _, fault)| fault.clone())
    }

    /// Runs `work` as one call of `operation`, the way the schedule wants it.
    ///
    /// # Errors
    /// Those of `work` and those of the schedule.
    ///
    /// # Panics
    /// When the schedule says so.
    pub async fn apply<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match self.begin(operation) {
            None => work.await,
            Some(Fault::Fail(kind)) => Err(StoreError::new(kind, format!("{operation:?} fails on schedule"))),
            Some(Fault::LoseAnswer) => {
                work.await?;
                Err(StoreError::new(StoreErrorKind::UnknownOutcome, format!("the answer of {operation:?} is lost")))
            }
            Some(Fault::HoldCall(gate)) => {
                gate.pass().await;
                work.await
            }
            Some(Fault::HoldAnswer(gate)) => {
                let answer = work.await;
                gate.pass().await;
                answer
            }
            Some(Fault::Panic) => panic!("{operation:?} panics on schedule"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    /// Calls `get` once; the result, if it came at once.
    fn call(faults: &Faults, done: &AtomicUsize) -> Option<Result<usize, StoreErrorKind>> {
        let work = async { Ok(done.fetch_add(1, Ordering::SeqCst)) };
        faults.apply(Operation::Get, work).now_or_never().map(|result| result.map_err(|error| error.kind))
    }

    #[test]
    fn without_an_entry_nothing_goes_wrong_and_calls_are_counted() {
        let (faults, done) = (Faults::default(), AtomicUsize::new(0));
        assert_eq!(call(&faults, &done), Some(Ok(0)));
        assert_eq!(call(&faults, &done), Some(Ok(1)));
        assert_eq!(faults.calls(Operation::Get), 2);
        assert_eq!(faults.calls(Operation::List), 0);
    }

    #[test]
    fn the_second_call_alone_fails_and_does_nothing() {
        let (faults, done) = (Faults::default(), AtomicUsize::new(0));
        faults.add(Operation::Get, When::Nth(2), Fault::Fail(StoreErrorKind::Overloaded));
        assert_eq!(call(&faults, &done), Some(Ok(0)));
        assert_eq!(call(&faults, &done), Some(Err(StoreErrorKind::Overloaded)));
        assert_eq!(call(&faults, &done), Some(Ok(1)));
    }

    #[test]
    fn every_call_fails_until_healed_but_not_those_of_other_operations() {
        let (faults, done) = (Faults::default(), AtomicUsize::new(0));
        faults.add(Operation::Get, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
        assert_eq!(call(&faults, &done), Some(Err(StoreErrorKind::Unavailable)));
        assert_eq!(call(&faults, &done), Some(Err(StoreErrorKind::Unavailable)));
        assert!(faults.apply(Operation::List, async { Ok(()) }).now_or_never().unwrap().is_ok());
        faults.heal();
        assert_eq!(call(&faults, &done), Some(Ok(0)));
    }

    #[test]
    fn a_lost_answer_is_a_call_that_was_done() {
        let (faults, done) = (Faults::default(), AtomicUsize::new(0));
        faults.add(Operation::Get, When::Nth(1), Fault::LoseAnswer);
        assert_eq!(call(&faults, &done), Some(Err(StoreErrorKind::UnknownOutcome)));
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_failure_of_the_work_itself_is_not_called_a_lost_answer() {
        let faults = Faults::default();
        faults.add(Operation::Get, When::Every, Fault::LoseAnswer);
        let work = async { Err::<(), _>(StoreError::new(StoreErrorKind::Corrupt, "broken")) };
        let answer = faults.apply(Operation::Get, work).now_or_never().unwrap();
        assert_eq!(answer.unwrap_err().kind, StoreErrorKind::Corrupt);
    }

    #[test]
    fn a_held_call_is_done_after_the_gate_and_a_held_answer_before_it() {
        for (hold_call, done_while_held) in [(true, 0), (false, 1)] {
            let (faults, done, gate) = (Faults::default(), AtomicUsize::new(0), Gate::closed());
            let fault =
                if hold_call { Fault::HoldCall(Arc::clone(&gate)) } else { Fault::HoldAnswer(Arc::clone(&gate)) };
            faults.add(Operation::Get, When::Every, fault);
            let work = async { Ok(done.fetch_add(1, Ordering::SeqCst)) };
            let mut held = Box::pin(faults.apply(Operation::Get, work));
            assert!((&mut held).now_or_never().is_none());
            assert_eq!(done.load(Ordering::SeqCst), done_while_held);
            gate.open();
            assert!(held.now_or_never().unwrap().is_ok());
            assert_eq!(done.load(Ordering::SeqCst), 1);
        }
    }

    #[test]
    #[should_panic(expected = "Get panics on schedule")]
    fn a_scheduled_panic_panics() {
        let faults = Faults::default();
        faults.add(Operation::Get, When::Every, Fault::Panic);
        let _ = call(&faults, &AtomicUsize::new(0));
    }
}
