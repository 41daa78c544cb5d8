//! What was published and of which it is not known yet what became of it.
//!
//! A part that no stream takes comes back before it is confirmed, but confirms of other parts may come between the
//! two, and the driver hands what came back, first come first served, to whichever confirm it completes next; of those
//! that the broker sends as one, in any order. Who believed that pairing would publish a part again that stands in its
//! stream, and let go of one that stands nowhere. So what came back is told by the identity that it bears, and
//!
//! - a confirm that brings nothing says that nothing was left to hand out: what came back of its own part went to an
//!   earlier confirm, which one more look at all others finds;
//! - one that brings another part says nothing of its own, which may have come back behind that: it is published
//!   again, and counted once.
//!
//! Each look polls all that is under way, so that is bounded by [`MOST`].

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, PublisherConfirm};

use super::session::{Message, Outcome};
use crate::rabbit::connection::{RabbitError, fault};

/// Most parts that are under way; more wait in memory, within the relay's window.
pub(super) const MOST: usize = 1_024;

/// What a confirm brought.
pub(super) struct Told {
    answer: Answer,
    /// The identity of a part that came back, not always the confirmed one's, and why.
    returned: Option<(String, String)>,
}

enum Answer {
    Taken,
    /// Taken, or it came back, too: another part stood first in the driver's line.
    Unsure,
    Refused,
    Lost(RabbitError),
}

/// A confirm to come.
pub(super) type Confirm = Pin<Box<dyn Future<Output = Told> + Send>>;

/// The confirm of a part, as it is told here.
pub(super) fn confirm_of(confirm: PublisherConfirm) -> Confirm {
    Box::pin(async move { Told::of(confirm.await) })
}

impl Told {
    fn of(confirm: lapin::Result<Confirmation>) -> Self {
        let (answer, returned) = match confirm {
            Ok(Confirmation::Ack(returned)) => (Answer::Taken, returned),
            Ok(Confirmation::Nack(returned)) => (Answer::Refused, returned),
            Ok(Confirmation::NotRequested) => {
                (Answer::Lost(RabbitError::Unavailable("the channel doesn't confirm".into())), None)
            }
            Err(error) => (Answer::Lost(fault(&error)), None),
        };
        Self { answer, returned: returned.as_ref().map(named) }
    }
}

fn named(returned: &BasicReturnMessage) -> (String, String) {
    let identity = returned.properties.message_id().as_ref().map(ToString::to_string);
    (identity.unwrap_or_default(), returned.reply_text.to_string())
}

struct Entry {
    message: Message,
    at_ms: u64,
    state: State,
}

enum State {
    Waiting(Confirm),
    Answered(Answer),
}

/// The parts under way on a connection, in the order in which they were published.
#[derive(Default)]
pub(super) struct InFlight {
    entries: BTreeMap<u64, Entry>,
    next: u64,
    bytes: usize,
    /// By identity, what came back and is not concluded, and why.
    returned: BTreeMap<String, String>,
    /// Whether a confirm is under way that nobody looks at.
    distrusted: bool,
}

impl InFlight {
    pub(super) fn add(&mut self, message: Message, confirm: Confirm, now_ms: u64) {
        self.bytes += message.bytes();
        self.entries.insert(self.next, Entry { message, at_ms: now_ms, state: State::Waiting(confirm) });
        self.next += 1;
    }

    /// From now on what came back may be handed to a confirm that is not here, so no part counts as taken.
    pub(super) fn distrust(&mut self) {
        self.distrusted = true;
    }

    pub(super) fn is_distrusted(&self) -> bool {
        self.distrusted
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest was published, in milliseconds.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.entries.first_key_value().map(|(_, entry)| entry.at_ms)
    }

    /// All of it, the oldest first.
    pub(super) fn into_messages(self) -> impl DoubleEndedIterator<Item = Message> {
        self.entries.into_values().map(|entry| entry.message)
    }

    /// The parts of which it is known now what became of them, at least one.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Vec<(Message, Outcome)>> {
        self.look(context);
        let answered = |(number, entry): (&u64, &Entry)| matches!(entry.state, State::Answered(_)).then_some(*number);
        let numbers: Vec<u64> = self.entries.iter().filter_map(answered).collect();
        if numbers.is_empty() {
            return Poll::Pending;
        }
        self.look(context);
        let outcomes = numbers.into_iter().filter_map(|number| self.conclude(number)).collect();
        self.forget_strangers();
        Poll::Ready(outcomes)
    }

    fn look(&mut self, context: &mut Context<'_>) {
        for entry in self.entries.values_mut() {
            let State::Waiting(confirm) = &mut entry.state else { continue };
            if let Poll::Ready(told) = confirm.as_mut().poll(context) {
                let strange = told.returned.as_ref().is_some_and(|(part, _)| *part != entry.message.identity());
                entry.state = State::Answered(match told.answer {
                    Answer::Taken if strange => Answer::Unsure,
                    answer => answer,
                });
                self.returned.extend(told.returned);
            }
        }
    }

    fn conclude(&mut self, number: u64) -> Option<(Message, Outcome)> {
        let Entry { message, state, .. } = self.entries.remove(&number)?;
        self.bytes -= message.bytes();
        let outcome = match (self.returned.remove(&message.identity()), state) {
            (_, State::Answered(Answer::Lost(error))) => Outcome::Lost(error),
            (Some(reason), _) => Outcome::Returned(reason),
            (None, State::Answered(Answer::Taken)) if !self.distrusted => Outcome::Confirmed,
            (None, State::Answered(Answer::Taken | Answer::Unsure)) => {
                Outcome::Returned("its confirm may stand for another part".into())
            }
            (None, State::Answered(Answer::Refused) | State::Waiting(_)) => Outcome::Refused,
        };
        Some((message, outcome))
    }

    /// What came back and is not under way was published and not waited for, when the broker asked to be spared.
    fn forget_strangers(&mut self) {
        if !self.returned.is_empty() {
            let known: BTreeSet<String> = self.entries.values().map(|entry| entry.message.identity()).collect();
            self.returned.retain(|identity, _| known.contains(identity));
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::task::noop_waker_ref;
    use terse_core::click::{BlockId, JournalId};
    use tokio::sync::oneshot;

    use super::*;

    fn message(partition: u16) -> Message {
        Message::new(BlockId { journal: JournalId([7; 16]), seq: 3 }, partition, vec![0; 10].into())
    }

    fn taken(returned: Option<u16>) -> Told {
        let returned = returned.map(|partition| (message(partition).identity(), "NO_ROUTE".to_owned()));
        Told { answer: Answer::Taken, returned }
    }

    fn add(parts: &mut InFlight, partition: u16) -> oneshot::Sender<Told> {
        let (sender, receiver) = oneshot::channel();
        parts.add(message(partition), Box::pin(async move { receiver.await.unwrap() }), u64::from(partition));
        sender
    }

    /// The partitions of what is concluded now, and what became of each.
    fn outcomes(parts: &mut InFlight) -> Vec<(u16, &'static str)> {
        let Poll::Ready(outcomes) = parts.poll(&mut Context::from_waker(noop_waker_ref())) else { return Vec::new() };
        let word = |outcome| match outcome {
            Outcome::Confirmed => "confirmed",
            Outcome::Returned(_) => "returned",
            Outcome::Refused => "refused",
            Outcome::Lost(_) => "lost",
        };
        outcomes.into_iter().map(|(message, outcome)| (message.partition, word(outcome))).collect()
    }

    #[test]
    fn the_part_that_came_back_is_published_again_whichever_confirm_brings_it() {
        let mut parts = InFlight::default();
        let (first, second, third) = (add(&mut parts, 0), add(&mut parts, 1), add(&mut parts, 2));
        assert_eq!(outcomes(&mut parts), []);
        let _ = first.send(taken(Some(2)));
        assert_eq!(outcomes(&mut parts), [(0, "returned")], "its own may stand behind the one that it brought");
        let _ = third.send(taken(None));
        assert_eq!(outcomes(&mut parts), [(2, "returned")]);
        let _ = second.send(taken(None));
        assert_eq!(outcomes(&mut parts), [(1, "confirmed")]);
        assert_eq!((parts.len(), parts.bytes(), parts.returned.len()), (0, 0, 0));
    }

    #[test]
    fn a_part_is_not_let_go_while_another_confirm_that_came_before_tells_that_it_came_back() {
        let mut parts = InFlight::default();
        let other = add(&mut parts, 0);
        // Both are answered right after the look at the first of them.
        let own = Box::pin(async move {
            let _ = other.send(taken(Some(1)));
            taken(None)
        });
        parts.add(message(1), own, 1);
        assert_eq!(outcomes(&mut parts), [(1, "returned")]);
        assert_eq!(outcomes(&mut parts), [(0, "returned")]);
    }

    #[test]
    fn parts_that_all_came_back_are_all_published_again_in_whatever_order_they_are_confirmed() {
        let mut parts = InFlight::default();
        let (first, second, third) = (add(&mut parts, 0), add(&mut parts, 1), add(&mut parts, 2));
        let _ = third.send(taken(Some(0)));
        assert_eq!(outcomes(&mut parts), [(2, "returned")]);
        let _ = second.send(taken(Some(1)));
        assert_eq!(outcomes(&mut parts), [(1, "returned")]);
        let _ = first.send(taken(Some(2)));
        assert_eq!(outcomes(&mut parts), [(0, "returned")]);
        assert!(parts.returned.is_empty());
    }

    #[test]
    fn a_part_that_came_back_twice_is_returned_twice() {
        let mut parts = InFlight::default();
        for _ in 0..2 {
            let _ = add(&mut parts, 4).send(taken(Some(4)));
            assert_eq!(outcomes(&mut parts), [(4, "returned")]);
        }
        let _ = add(&mut parts, 4).send(taken(None));
        assert_eq!(outcomes(&mut parts), [(4, "confirmed")]);
    }

    #[test]
    fn what_came_back_and_is_not_under_way_is_forgotten() {
        let mut parts = InFlight::default();
        let _ = add(&mut parts, 0).send(taken(Some(9)));
        assert_eq!(outcomes(&mut parts), [(0, "returned")]);
        assert!(parts.returned.is_empty());
    }

    #[test]
    fn no_part_is_let_go_beside_a_confirm_that_nobody_looks_at() {
        let mut parts = InFlight::default();
        let first = add(&mut parts, 0);
        parts.distrust();
        let _ = first.send(taken(None));
        assert_eq!(outcomes(&mut parts), [(0, "returned")]);
    }

    #[test]
    fn refused_and_lost_parts_are_told_apart_and_come_in_their_order() {
        let mut parts = InFlight::default();
        let (first, second, _third) = (add(&mut parts, 0), add(&mut parts, 1), add(&mut parts, 2));
        let lost = Answer::Lost(RabbitError::Unavailable("gone".into()));
        let _ = second.send(Told { answer: lost, returned: None });
        let _ = first.send(Told { answer: Answer::Refused, returned: None });
        assert_eq!(outcomes(&mut parts), [(0, "refused"), (1, "lost")]);
        assert_eq!((parts.len(), parts.bytes(), parts.oldest_ms()), (1, 10, Some(2)));
        assert_eq!(parts.into_messages().map(|message| message.partition).collect::<Vec<_>>(), [2]);
    }
}
