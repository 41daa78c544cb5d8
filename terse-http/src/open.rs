//! The open connections of one web worker, and the end of those that are idle.
//!
//! A connection is idle from its last answer until the next request's head is
//! whole. One that is idle for the keep-alive time is closed. Nobody sets a
//! timer per request for that: the worker goes through its connections a few
//! times in the keep-alive time, so that the end comes up to one such step late.
//!
//! A client that takes nothing of its answer is waited for as long as a body
//! is, or the keep-alive time if that is longer; then its connection is closed.
//! Where there are too many connections, those that were idle longest make room.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// How often, in the keep-alive time, connections are gone through.
const STEPS: u32 = 16;
/// At least this long between two such steps.
const LEAST_STEP: Duration = Duration::from_millis(10);
/// How many idle connections are closed at once to make room for new ones.
const ROOM: usize = 16;

/// The connections. All of a worker is one thread.
#[derive(Default)]
pub(crate) struct Open {
    connections: RefCell<HashMap<u64, (Rc<Activity>, AbortHandle)>>,
    last_number: Cell<u64>,
    /// Steps since the worker began.
    step: Rc<Cell<u64>>,
    /// A new connection waits for an open one to end.
    crowded: Cell<bool>,
    finishing: Cell<bool>,
    /// A connection has ended.
    fewer: Notify,
    /// No further request shall be waited for.
    finish: Notify,
}

/// What goes on on a connection.
#[derive(Default)]
pub(crate) struct Activity {
    requests: Cell<usize>,
    /// Requests that have come at all.
    begun: Cell<u64>,
    /// A body was not read to its end.
    unread: Cell<bool>,
    /// The step of the last answer, as far as there was one.
    answered: Cell<Option<u64>>,
    /// The step since which the client takes nothing of what is to be written.
    blocked: Cell<Option<u64>>,
    step: Rc<Cell<u64>>,
}

/// A request that isn't answered yet; dropping it says that it is.
pub(crate) struct Active(Rc<Activity>);

/// The place of an open connection; dropping it gives it back.
pub(crate) struct Place {
    open: Rc<Open>,
    number: u64,
}

impl Open {
    pub(crate) fn count(&self) -> usize {
        self.connections.borrow().len()
    }

    /// The activity of a connection that is about to be opened.
    pub(crate) fn activity(&self) -> Rc<Activity> {
        Rc::new(Activity { step: Rc::clone(&self.step), ..Activity::default() })
    }

    /// Opens a connection, which is the task that `spawn` makes of its place.
    pub(crate) fn add(self: &Rc<Self>, activity: Rc<Activity>, spawn: impl FnOnce(Place) -> AbortHandle) {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        let task = spawn(Place { open: Rc::clone(self), number });
        self.connections.borrow_mut().insert(number, (activity, task));
    }

    /// Waits until fewer than `most` are open.
    pub(crate) async fn below(&self, most: usize) {
        while self.count() >= most {
            self.fewer.notified().await;
        }
    }

    /// Waits until fewer than `most` are open, for which idle ones are closed. One that
    /// was answered within the current step isn't idle: its client may be about to ask again.
    pub(crate) async fn room(&self, most: usize) {
        if self.count() < most {
            return;
        }
        self.crowded.set(true);
        self.close_longest_idle();
        self.below(most).await;
        self.crowded.set(false);
    }

    /// Waits until none is open.
    pub(crate) async fn ended(&self) {
        self.below(1).await;
    }

    /// Lets no connection wait for a further request.
    pub(crate) fn finish(&self) {
        self.finishing.set(true);
        self.finish.notify_waiters();
    }

    /// Whether no further request shall be waited for.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.get()
    }

    /// Waits for [`finish`](Self::finish). Nothing comes between the two steps on one thread.
    pub(crate) async fn finishing(&self) {
        if !self.finishing.get() {
            self.finish.notified().await;
        }
    }

    /// For ever closes connections that are idle for `keep_alive`, or whose clients take nothing for `patience`.
    pub(crate) async fn close_idle(&self, keep_alive: Duration, patience: Duration) {
        let step = (keep_alive / STEPS).max(LEAST_STEP);
        let steps = |time: Duration| u64::try_from(time.as_nanos().div_ceil(step.as_nanos())).unwrap_or(u64::MAX);
        let (idle, blocked) = (steps(keep_alive), steps(patience));
        loop {
            sleep(step).await;
            self.step.set(self.step.get() + 1);
            self.close_idle_once(idle, blocked);
            if self.crowded.get() {
                self.close_longest_idle();
            }
        }
    }

    /// Closes the connections that are idle for more than `idle` steps or blocked for more than `blocked`.
    fn close_idle_once(&self, idle: u64, blocked: u64) {
        for (activity, task) in self.connections.borrow().values() {
            let is_idle = activity.idle_steps().is_some_and(|steps| steps > idle);
            if is_idle || activity.blocked_steps().is_some_and(|steps| steps > blocked) {
                task.abort();
            }
        }
    }

    /// Closes at most [`ROOM`] of the connections that are idle longest, if for at least a step.
    fn close_longest_idle(&self) {
        let connections = self.connections.borrow();
        let idle = || connections.values().filter_map(|(activity, task)| Some((activity.idle_steps()?, task)));
        let Some(longest) = idle().map(|(steps, _)| steps).max().filter(|steps| *steps > 0) else {
            return;
        };
        idle().filter(|(steps, _)| *steps == longest).take(ROOM).for_each(|(_, task)| task.abort());
    }
}

impl Activity {
    /// A request has come.
    pub(crate) fn begin(self: &Rc<Self>) -> Active {
        self.requests.set(self.requests.get() + 1);
        self.begun.set(self.begun.get() + 1);
        Active(Rc::clone(self))
    }

    /// How many requests have come, and how many of them aren't answered yet.
    pub(crate) fn requests(&self) -> (u64, usize) {
        (self.begun.get(), self.requests.get())
    }

    /// Whether a request was answered whose body was not read to its end.
    pub(crate) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// Part of an answer has left.
    pub(crate) fn wrote(&self) {
        self.answered.set(Some(self.step.get()));
        self.blocked.set(None);
    }

    /// Nothing of what is to be written can leave.
    pub(crate) fn blocked(&self) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(self.step.get()));
        }
    }

    /// `None` = nothing waits to be taken.
    fn blocked_steps(&self) -> Option<u64> {
        Some(self.step.get() - self.blocked.get()?)
    }

    /// `None` = not idle: a request is being answered, or none has come yet (until then, the time for its head runs).
    fn idle_steps(&self) -> Option<u64> {
        let answered = self.answered.get().filter(|_| self.requests.get() == 0)?;
        Some(self.step.get() - answered)
    }
}

impl Active {
    /// The body of the request is not read to its end.
    pub(crate) fn unread(&self) {
        self.0.unread.set(true);
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.answered.set(Some(self.0.step.get()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.connections.borrow_mut().remove(&self.number);
        self.open.fewer.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    /// A connection that lasts until it is closed.
    fn add(open: &Rc<Open>) -> Rc<Activity> {
        let activity = open.activity();
        open.add(Rc::clone(&activity), |place| {
            let lasting = async move {
                let _place = place;
                std::future::pending::<()>().await;
            };
            spawn_local(lasting).abort_handle()
        });
        activity
    }

    async fn steps(open: &Open, steps: u64) -> usize {
        open.step.set(open.step.get() + steps);
        open.close_idle_once(STEPS.into(), STEPS.into());
        settle(open).await
    }

    /// How many are left once those that were closed are gone.
    async fn settle(open: &Open) -> usize {
        yield_now().await;
        yield_now().await;
        open.count()
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_in_time() {
        let test = async {
            let open = Rc::new(Open::default());
            add(&open).wrote();
            assert_eq!(steps(&open, STEPS.into()).await, 1);
            assert_eq!(steps(&open, 1).await, 0);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_connection_with_a_request_is_not_idle() {
        let test = async {
            let open = Rc::new(Open::default());
            let activity = add(&open);
            let (first, second) = (activity.begin(), activity.begin());
            activity.wrote();
            drop(first);
            assert_eq!(steps(&open, 100).await, 1);
            drop(second);
            assert_eq!(steps(&open, STEPS.into()).await, 1);
            assert_eq!(steps(&open, 1).await, 0);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn before_its_first_request_a_connection_is_not_idle() {
        let test = async {
            let open = Rc::new(Open::default());
            add(&open);
            assert_eq!(steps(&open, 100).await, 1);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up_however_many_requests_there_are() {
        let test = async {
            let open = Rc::new(Open::default());
            let activity = add(&open);
            let _request = activity.begin();
            activity.blocked();
            assert_eq!(steps(&open, STEPS.into()).await, 1);
            // Somebody polls in between; that is no progress.
            activity.blocked();
            assert_eq!(steps(&open, 1).await, 0);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_client_that_takes_a_little_now_and_then_is_waited_for() {
        let test = async {
            let open = Rc::new(Open::default());
            let activity = add(&open);
            let _request = activity.begin();
            for _ in 0..10 {
                activity.blocked();
                assert_eq!(steps(&open, STEPS.into()).await, 1);
                activity.wrote();
            }
            assert_eq!(steps(&open, 100).await, 1, "nothing is left to be taken");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn room_is_made_by_those_that_are_idle_longest() {
        let test = async {
            let open = Rc::new(Open::default());
            let (_new, busy) = (add(&open), add(&open));
            let _request = busy.begin();
            add(&open).wrote();
            open.step.set(open.step.get() + 1);
            let younger = add(&open);
            younger.wrote();
            open.room(5).await;
            assert_eq!(settle(&open).await, 4, "there is room");
            open.room(4).await;
            assert_eq!(settle(&open).await, 3);
            assert!(open.connections.borrow().values().any(|(activity, _)| Rc::ptr_eq(activity, &younger)));
            open.close_longest_idle();
            assert_eq!(settle(&open).await, 3, "what was answered just now isn't idle");
            open.step.set(open.step.get() + 1);
            open.close_longest_idle();
            assert_eq!(settle(&open).await, 2, "the others are not idle");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn no_more_idle_connections_are_closed_at_once_than_are_accepted() {
        let test = async {
            let open = Rc::new(Open::default());
            (0..2 * ROOM).for_each(|_| add(&open).wrote());
            open.step.set(1);
            open.room(2 * ROOM).await;
            assert_eq!(settle(&open).await, ROOM);
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn whoever_waits_for_a_place_gets_it_when_a_connection_ends() {
        let test = async {
            let open = Rc::new(Open::default());
            open.below(1).await;
            add(&open).wrote();
            let ending = async { steps(&open, 100).await };
            let ((), left) = futures_util::join!(open.below(1), ending);
            assert_eq!(left, 0);
            open.ended().await;
        };
        LocalSet::new().run_until(test).await;
    }
}
