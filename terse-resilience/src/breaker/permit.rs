//! The right to make one call, and the duty to say how it ended.

use super::{Breaker, Verdict};

/// One call that a [`Breaker`] let through.
///
/// End it by the verdict on the *service*, not on the request:
///
/// - [`success`](Self::success): it answered, be it with "not found";
/// - [`failure`](Self::failure): it did not, or said that it can't;
/// - [`timeout`](Self::timeout): the caller's timeout ran out first;
/// - [`ignore`](Self::ignore): the call says nothing about it (the input was
///   bad before anything was sent).
///
/// Dropped without a verdict (the caller was cancelled, or panicked), the call
/// counts as timed out if it ran for `call_limit_ms` or longer, so that hung
/// calls count however they end; else it counts as nothing. Either way a probe's
/// place is free again.
///
/// A verdict after the state in which the call began is over changes nothing.
#[derive(Debug)]
#[must_use = "dropping a permit at once abandons the call"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    pub(super) generation: u64,
    began_ms: u64,
    ended: bool,
}

impl<'a> Permit<'a> {
    pub(super) fn new(breaker: &'a Breaker, generation: u64, began_ms: u64) -> Self {
        Self { breaker, generation, began_ms, ended: false }
    }

    /// The service answered.
    pub fn success(self) {
        self.end(Verdict::Success);
    }

    /// The service failed.
    pub fn failure(self) {
        self.end(Verdict::Failure);
    }

    /// The service did not answer in time.
    pub fn timeout(self) {
        self.end(Verdict::Timeout);
    }

    /// The call tells nothing about the service.
    pub fn ignore(self) {
        self.end(Verdict::Ignored);
    }

    fn end(mut self, verdict: Verdict) {
        self.ended = true;
        self.breaker.settle(self.generation, self.began_ms, verdict);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.breaker.settle(self.generation, self.began_ms, Verdict::Dropped);
        }
    }
}
