//! What a quota promises, alone and shared by two processes.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

fn key(name: &str) -> Key {
    Key::of(&[name.as_bytes()]).unwrap()
}

fn uses() -> Uses {
    Uses::new(64).unwrap()
}

/// Nothing here waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn granted(uses: &Uses, period: u32, name: &str, limit: u64, wanted: u32) -> u32 {
    now(uses.draw(period, &key(name), Some(limit), None, wanted)).granted
}

/// What becomes of draws from a shared count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Reach {
    #[default]
    Answered,
    /// They don't arrive.
    Away,
    /// They arrive, and the answer is lost.
    AnswerLost,
    /// They arrive when they are polled again.
    Late,
}

/// A count that several processes share, as the script keeps it; it may be out of reach, and lose its memory.
#[derive(Default)]
struct Together {
    used: Mutex<HashMap<Key, Told>>,
    reach: Mutex<Reach>,
}

/// Units used, and by process those of which it told that it granted them alone.
#[derive(Default)]
struct Told {
    used: u64,
    alone: HashMap<usize, u64>,
}

impl Together {
    fn is(&self, reach: Reach) {
        *lock(&self.reach) = reach;
    }

    fn used(&self, name: &str) -> u64 {
        lock(&self.used).get(&key(name)).map_or(0, |told| told.used)
    }

    fn decide(&self, process: usize, key: &Key, asked: QuotaQuestion) -> (u32, u64) {
        let mut all = lock(&self.used);
        let Told { used, alone } = all.entry(*key).or_default();
        let told = alone.entry(process).or_default();
        *used = (*used).max(asked.known + asked.alone.min(*told)) + asked.alone.saturating_sub(*told);
        *told = asked.alone.max(*told);
        let granted = u64::from(asked.wanted).min(asked.limit.saturating_sub(*used));
        *used += granted;
        (granted as u32, *used)
    }
}

/// How a process reaches the count.
struct Line {
    process: usize,
    count: Arc<Together>,
}

impl SharedQuota for Line {
    fn draw<'a>(&'a self, key: &'a Key, asked: QuotaQuestion) -> SharedQuotaDraw<'a> {
        Box::pin(async move {
            let reach = *lock(&self.count.reach);
            let mut late = reach == Reach::Late;
            std::future::poll_fn(|_| if std::mem::take(&mut late) { Poll::Pending } else { Poll::Ready(()) }).await;
            let told = (reach != Reach::Away).then(|| self.count.decide(self.process, key, asked));
            told.filter(|_| reach != Reach::AnswerLost)
        })
    }
}

struct Process {
    uses: Uses,
    line: Line,
}

impl Process {
    async fn draw(&self, limit: u64, wanted: u32) -> QuotaDraw {
        self.uses.draw(1, &key("a"), Some(limit), Some(&self.line), wanted).await
    }
}

/// Two processes, and the count that they share.
fn two() -> (Process, Process, Arc<Together>) {
    let count = Arc::<Together>::default();
    let process = |process| Process { uses: uses(), line: Line { process, count: Arc::clone(&count) } };
    (process(1), process(2), Arc::clone(&count))
}

fn shared(process: &Process, limit: u64, wanted: u32) -> QuotaDraw {
    now(process.draw(limit, wanted))
}

#[test]
fn a_key_has_its_units_in_each_period_and_no_more() {
    let uses = uses();
    assert_eq!(granted(&uses, 7, "a", 10, 8), 8);
    assert_eq!(granted(&uses, 7, "a", 10, 8), 2);
    assert_eq!(granted(&uses, 7, "a", 10, 8), 0);
    assert_eq!(granted(&uses, 7, "b", 10, 1), 1, "another key has units of its own");
    assert_eq!(granted(&uses, 8, "a", 10, 11), 10, "the next period");
    assert_eq!(granted(&uses, 8, "a", 12, 11), 2, "a limit that was raised meanwhile");
    assert_eq!(granted(&uses, 8, "a", 5, 1), 0, "and one that was lowered");
}

#[test]
fn what_has_no_limit_is_counted_all_the_same() {
    let (process, ..) = two();
    let draw = now(process.uses.draw(1, &key("a"), None, Some(&process.line), u32::MAX));
    assert_eq!((draw.granted, draw.used, draw.alone), (u32::MAX, u64::from(u32::MAX), false));
}

#[test]
fn a_clock_that_steps_back_neither_forgets_nor_shuts_out() {
    let uses = uses();
    assert_eq!(granted(&uses, 9, "a", 10, 10), 10);
    assert_eq!(granted(&uses, 8, "a", 10, 1), 0, "what was used counts in the period that it is now");
    assert_eq!(granted(&uses, 9, "a", 10, 1), 1, "which ends as ever");
}

#[test]
fn keys_beyond_the_bound_take_the_place_of_the_one_that_used_least() {
    let uses = Uses::new(3).unwrap();
    for (name, units) in [("a", 5), ("b", 2), ("c", 9), ("d", 4)] {
        assert_eq!(granted(&uses, 1, name, 100, units), units);
    }
    let units: Vec<u64> = uses.heaviest(1, 9).iter().map(|(_, seen)| seen.units).collect();
    assert_eq!(units, [9, 5, 4]);
    assert_eq!(Uses::new(0).unwrap_err().setting, "max_keys");
    assert!(Uses::new(MAX_USES + 1).is_err() && Uses::new(MAX_USES).is_ok());
}

#[test]
fn the_heaviest_are_told_first_and_no_more_than_asked_for() {
    let uses = uses();
    for (name, wanted) in [("a", 3), ("b", 9), ("c", 3), ("d", 12)] {
        granted(&uses, 1, name, 10, wanted);
    }
    let heaviest = uses.heaviest(1, 3);
    let expected = [("d", 10, 2), ("b", 9, 0), ("a", 3, 0)];
    assert_eq!(heaviest, expected.map(|(name, units, refused)| (key(name), Use { units, refused })));
    assert_eq!(uses.heaviest(2, 3), [], "of the next period nothing yet");
}

#[test]
fn what_was_saved_comes_back_and_never_takes_anything_back() {
    let (uses, next) = (uses(), self::uses());
    granted(&uses, 4, "a", 10, 7);
    granted(&uses, 4, "b", 1, 3);
    granted(&next, 4, "b", 10, 5);
    let (period, saved) = uses.saved(4);
    next.restore(period, saved.clone());
    assert_eq!(granted(&next, 4, "a", 10, 10), 3);
    assert_eq!(next.heaviest(4, 2)[1], (key("b"), Use { units: 5, refused: 2 }));
    next.restore(3, saved);
    assert_eq!(granted(&next, 5, "a", 10, 10), 10, "a new period");
    next.restore(4, [(key("a"), Use { units: 9, refused: 0 })]);
    assert_eq!(next.heaviest(5, 1)[0].1.units, 10, "what is of an older one is left out");
}

#[test]
fn two_processes_have_one_quota_together() {
    let (one, other, _) = two();
    assert_eq!(shared(&one, 10, 7), QuotaDraw { granted: 7, used: 7, alone: false });
    assert_eq!(shared(&other, 10, 7), QuotaDraw { granted: 3, used: 10, alone: false });
    assert_eq!(shared(&one, 10, 1), QuotaDraw { granted: 0, used: 10, alone: false });
    assert_eq!(one.uses.heaviest(1, 1)[0].1, Use { units: 10, refused: 1 }, "each knows what all have used");
}

#[test]
fn what_was_granted_alone_is_told_afterwards_and_once() {
    let (one, other, count) = two();
    [&one, &other].iter().for_each(|process| assert_eq!(shared(process, 100, 10).granted, 10));
    count.is(Reach::Away);
    assert_eq!(shared(&one, 100, 5), QuotaDraw { granted: 5, used: 15, alone: true });
    assert_eq!(shared(&other, 100, 7), QuotaDraw { granted: 7, used: 27, alone: true });
    count.is(Reach::Answered);
    assert_eq!(shared(&one, 100, 0).used, 25);
    assert_eq!(shared(&other, 100, 0).used, 32);
    assert_eq!([shared(&one, 100, 1).used, count.used("a")], [33, 33]);
}

#[test]
fn what_was_granted_alone_is_counted_once_though_answers_are_lost() {
    let (one, other, count) = two();
    [&one, &other].iter().for_each(|process| assert_eq!(shared(process, 100, 10).granted, 10));
    count.is(Reach::Away);
    assert_eq!(shared(&one, 100, 5).granted, 5);
    count.is(Reach::AnswerLost);
    (0..3).for_each(|_| assert_eq!(shared(&one, 100, 0), QuotaDraw { granted: 0, used: 15, alone: true }));
    assert_eq!(count.used("a"), 25);
    assert_eq!(shared(&one, 100, 4), QuotaDraw { granted: 4, used: 19, alone: true });
    count.is(Reach::Answered);
    assert_eq!(shared(&one, 100, 0).used, 20 + 5 + 2 * 4, "only what the lost draw was granted counts twice");
    assert_eq!([shared(&other, 100, 0).used, shared(&one, 100, 0).used], [33, 33]);
}

#[test]
fn draws_that_overtake_each_other_tell_nothing_twice() {
    let (one, _, count) = two();
    assert_eq!(shared(&one, 100, 10).granted, 10);
    count.is(Reach::Away);
    assert_eq!(shared(&one, 100, 5).granted, 5);
    count.is(Reach::Late);
    let mut overtaken = std::pin::pin!(one.draw(100, 1));
    assert!(overtaken.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    count.is(Reach::Away);
    assert_eq!(shared(&one, 100, 2).granted, 2);
    count.is(Reach::Answered);
    assert_eq!(shared(&one, 100, 1), QuotaDraw { granted: 1, used: 18, alone: false });
    assert_eq!(now(overtaken), QuotaDraw { granted: 1, used: 19, alone: false });
    assert_eq!([shared(&one, 100, 0).used, count.used("a")], [19, 19]);
}

#[test]
fn a_draw_that_ends_after_its_period_leaves_what_is_counted_of_the_next() {
    let (one, _, count) = two();
    count.is(Reach::Late);
    let mut late = std::pin::pin!(one.draw(100, 3));
    assert!(late.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(granted(&one.uses, 2, "a", 10, 5), 5);
    assert_eq!(now(late), QuotaDraw { granted: 3, used: 3, alone: false });
    assert_eq!(granted(&one.uses, 2, "a", 10, 10), 5);
}

#[test]
fn alone_each_grants_what_was_left_and_no_more() {
    let (one, other, count) = two();
    [&one, &other].iter().for_each(|process| assert_eq!(shared(process, 30, 10).granted, 10));
    count.is(Reach::Away);
    assert_eq!(shared(&one, 30, 100).granted, 20, "it knows of ten");
    assert_eq!(shared(&other, 30, 100).granted, 10, "it knows of twenty");
    count.is(Reach::Answered);
    assert_eq!([&one, &other].map(|process| shared(process, 30, 1).granted), [0, 0]);
}

#[test]
fn a_shared_count_that_loses_its_memory_gets_it_back() {
    let (one, other, count) = two();
    [&one, &other].iter().for_each(|process| assert_eq!(shared(process, 30, 10).granted, 10));
    lock(&count.used).clear();
    assert_eq!(shared(&other, 30, 100).granted, 10);
}

#[test]
fn racing_threads_are_granted_the_limit_together() {
    let uses = Arc::new(uses());
    let sum: u32 = std::thread::scope(|scope| {
        let work = || (0..500).map(|_| granted(&uses, 1, "a", 700, 1)).sum::<u32>();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(sum, 700);
}

proptest! {
    #[test]
    fn nobody_gets_more_than_the_limit_for_each_process_that_is_alone(
        limit in 0_u64..60,
        steps in proptest::collection::vec((0..2_usize, 0..3_usize, 0_u32..12), 1..80),
    ) {
        let (one, other, count) = two();
        let processes = [one, other];
        let (mut sum, mut lost, mut ever_away) = (0, 0, false);
        for (who, reach, wanted) in steps {
            let reach = [Reach::Answered, Reach::Away, Reach::AnswerLost][reach];
            count.is(reach);
            ever_away |= reach != Reach::Answered;
            let draw = shared(&processes[who], limit, wanted);
            prop_assert!(draw.granted <= wanted && draw.alone == (reach != Reach::Answered));
            sum += u64::from(draw.granted);
            lost += if reach == Reach::AnswerLost { u64::from(wanted) } else { 0 };
        }
        let most = if ever_away { 2 * limit } else { limit };
        prop_assert!(sum <= most, "{} of {}", sum, most);
        count.is(Reach::Answered);
        for process in &processes {
            prop_assert_eq!(shared(process, limit, 0).granted, 0);
        }
        let used = count.used("a");
        prop_assert!(used >= sum, "the shared count knows of every unit: {used} of {sum}");
        prop_assert!(used <= sum + lost, "and of none twice: {used} of {sum}, {lost} in lost answers");
    }
}
