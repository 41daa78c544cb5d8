//! Places for the creates of batches, and room for their bodies: all batches of a process share them.
//!
//! One connection with a batch asks for as many links at once as many others do. Were each batch to have places of its
//! own, a few would fill the limit of calls at once that a shard has for creates, and statistics, which are shed when
//! that is half full, would go because of two. So [`AT_ONCE`] creates of batches are under way, whoever sent them; the
//! others wait their turn, in the order in which they came. With as many connections as that, each with a batch or a
//! request of its own, fewer than twice [`AT_ONCE`] creates are asked of the store at once.
//!
//! Bounds: [`MAX_IN_PLAY`] creates are under way or wait, which is what [`AT_ONCE`] batches have in play. One that comes
//! beyond is refused with 503 `overloaded` in its slot. Who waits does so no longer than the store takes for those
//! before it, each of which has a timeout. Their bodies have room for as many bytes as [`AT_ONCE`] of the largest have,
//! taken as they come, so that who announces much and sends little takes nothing from others; a body for which there
//! is no room is refused with 503 as a whole.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Creates of batches that are under way at once. The least that a limit of creates can be is four times that.
pub(crate) const AT_ONCE: usize = 64;
/// Creates of batches that are under way or wait for it.
const MAX_IN_PLAY: usize = AT_ONCE * AT_ONCE;

/// The places of a process. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Places {
    in_play: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// Room for the bytes of one body, given back on drop.
pub(crate) struct Room<'a> {
    bytes: &'a Semaphore,
    taken: Option<SemaphorePermit<'a>>,
}

/// A place, given back on drop.
pub(crate) struct Place<'a> {
    _under_way: SemaphorePermit<'a>,
    _in_play: SemaphorePermit<'a>,
}

impl Places {
    /// With room for batches of up to so many bytes.
    pub(crate) fn new(batch_bytes: usize) -> Self {
        let bytes = batch_bytes.saturating_mul(AT_ONCE).min(Semaphore::MAX_PERMITS);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { in_play: semaphore(MAX_IN_PLAY), under_way: semaphore(AT_ONCE), bytes: semaphore(bytes) }
    }

    /// Room for a body of which nothing has come yet.
    pub(crate) fn room(&self) -> Room<'_> {
        Room { bytes: &self.bytes, taken: None }
    }

    /// Waits for a place. `None` = too many wait already.
    pub(crate) async fn enter(&self) -> Option<Place<'_>> {
        let in_play = self.in_play.try_acquire().ok()?;
        // It is never closed.
        let under_way = self.under_way.acquire().await.ok()?;
        Some(Place { _under_way: under_way, _in_play: in_play })
    }
}

impl Room<'_> {
    /// Takes room for `more` bytes, if there is any.
    pub(crate) fn grow(&mut self, more: usize) -> bool {
        let Some(more) = u32::try_from(more).ok().and_then(|more| self.bytes.try_acquire_many(more).ok()) else {
            return false;
        };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[test]
    fn so_many_have_places_others_wait_and_those_beyond_are_refused() {
        let places = Places::new(0);
        let taken: Vec<_> = (0..AT_ONCE).map(|_| places.enter().now_or_never().unwrap().unwrap()).collect();
        let mut waiting: Vec<_> = (AT_ONCE..MAX_IN_PLAY).map(|_| Box::pin(places.enter())).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        assert!(places.enter().now_or_never().unwrap().is_none(), "nobody else may wait");
        drop(waiting.pop());
        let mut last = Box::pin(places.enter());
        assert!((&mut last).now_or_never().is_none(), "who goes away makes room");
        drop(taken);
        let next: Vec<_> = join_all(waiting.drain(..AT_ONCE)).now_or_never().unwrap();
        assert!(
            next.iter().all(Option::is_some) && (&mut last).now_or_never().is_none(),
            "who came last waits longest"
        );
    }
    #[test]
    fn bodies_share_their_room_and_give_it_back() {
        let places = Places::new(10);
        let (mut one, mut other) = (places.room(), places.room());
        assert!(one.grow(600) && one.grow(30) && other.grow(10));
        assert!(!other.grow(1) && !one.grow(usize::MAX) && one.grow(0));
        drop(one);
        assert!(other.grow(630) && !other.grow(1));
    }
}
