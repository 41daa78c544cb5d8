//! Not to publish more than the streams keep for a projector that is behind.
//!
//! A stream drops its oldest segments when it is full, whoever still needs them. So the relay reads the projectors'
//! checkpoints, looks how far each stream has come, and publishes only while what is not projected takes at most half
//! of what the stream keeps. Blocks stay on disk meanwhile. Offsets count messages, so bytes are estimated by the
//! average message of late, and never by less than [`LEAST_MESSAGE_BYTES`]. A relay that begins has published none, and
//! what waits may be anybody's: it takes the average of some that stand there. How far a stream has come is known but
//! for its last chunk, which is what was published at once: far less than half of what a stream keeps.
//!
//! | what | bound |
//! |---|---|
//! | checkpoints and streams are looked at | every [`LOOK_MS`], every [`SHORT_LOOK_MS`] when room is short |
//! | the same, once a sixteenth of the half ([`LOOK_SHARE`]) was published | [`SHORT_LOOK_MS`] after the last look |
//! | what is published between two looks | the room that was seen |
//! | they can't be read | after [`BLIND_MS`] nothing is published |
//! | several relays | each sees the same room: together they may exceed it by what they publish between two looks |

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::AMQPValue;
use terse_core::ports::StoreError;
use terse_core::ports::clicks::ReadModel;
use terse_core::stats::Partition;

use super::connection::{BrokerConfig, Link, RabbitError, fault};
use super::stream_log::{offset_argument, offset_of};
use super::topology::table;

/// How often checkpoints and streams are looked at, in milliseconds.
pub const LOOK_MS: u64 = 20_000;
/// How often when less than half of the room is left, in milliseconds.
pub const SHORT_LOOK_MS: u64 = 250;
/// How often when checkpoints can't be read, in milliseconds.
const BLIND_LOOK_MS: u64 = 2_000;
/// After so many milliseconds without a look nothing is published.
pub const BLIND_MS: u64 = 60_000;
/// After this part of half a stream was published it is looked at again: others publish as well.
const LOOK_SHARE: u64 = 16;
/// So many messages of a stream tell how large all of them are, and one more.
const SAMPLES: u64 = 8;
/// A part's head, and what a stream adds to a message.
const LEAST_MESSAGE_BYTES: u64 = 256;
/// How long a stream's last message is waited for, in milliseconds; there is none in an empty one.
const LAST_MS: u64 = 300;
/// So many streams are looked at at a time.
const LOOKED_AT_ONCE: usize = 16;

/// Tells what projectors still need of the streams.
#[async_trait]
pub trait Needs: Send + Sync {
    /// The first offset of stream `partition` that is still needed: the one of its checkpoint. `None` = all of it.
    ///
    /// # Errors
    /// [`StoreError`] when it can't be read.
    async fn first_needed(&self, partition: u16) -> Result<Option<u64>, StoreError>;
}

/// What the checkpoints of a read model say.
pub struct CheckpointNeeds(pub Arc<dyn ReadModel>);

#[async_trait]
impl Needs for CheckpointNeeds {
    async fn first_needed(&self, partition: u16) -> Result<Option<u64>, StoreError> {
        let checkpoint = self.0.checkpoint(Partition::Stream(partition)).await?;
        Ok(checkpoint.map(|checkpoint| checkpoint.at.offset))
    }
}

pub(super) struct Guard {
    needs: Arc<dyn Needs>,
    half_bytes: u64,
    streams: Vec<Stream>,
    /// When all was seen last.
    seen_ms: Option<u64>,
    next_look_ms: u64,
    /// Whether something was not allowed since the last look.
    refused: bool,
    told: bool,
    /// Whether it was told that checkpoints can't be read.
    told_blind: bool,
}

#[derive(Clone, Copy)]
struct Stream {
    /// How many bytes may be published until the next look.
    room: u64,
    /// How many bytes a message takes on average.
    message_bytes: u64,
    /// Whether it was seen how large its messages are, whoever published them.
    is_measured: bool,
    /// How many bytes were published since the last look.
    unseen: u64,
    /// Whether a message was seen in it on this connection.
    has_some: bool,
    /// The first offset that was needed at the last look; `None` = there was no look.
    needed: Option<u64>,
}

/// What a look has shown of a stream.
#[derive(Clone, Copy)]
struct Seen {
    /// The first offset that is needed; `None` = all of them are.
    needed: Option<u64>,
    /// About the last there is; `None` = it is empty.
    last: Option<u64>,
    /// How many bytes its messages take on average, where that was looked at.
    message_bytes: Option<u64>,
}

impl Stream {
    /// Nothing is known of it.
    const NEW: Self = Self {
        room: 0,
        message_bytes: LEAST_MESSAGE_BYTES,
        is_measured: false,
        unseen: 0,
        has_some: false,
        needed: None,
    };

    /// Takes in what a look has shown.
    fn saw(&mut self, Seen { needed, last, message_bytes }: Seen, half_bytes: u64) {
        if let Some(bytes) = message_bytes {
            (self.message_bytes, self.is_measured) = (self.message_bytes.max(bytes), true);
        }
        let most = half_bytes.saturating_sub(behind(needed, last).saturating_mul(self.message_bytes));
        let needed = needed.unwrap_or(0);
        self.room = match self.needed {
            // `last` may be off by as much as is published at once, so room grows by what was projected, and by no
            // more.
            Some(before) if needed >= before => {
                most.min(self.room.saturating_add((needed - before).saturating_mul(self.message_bytes)))
            }
            _ => most,
        };
        (self.needed, self.has_some, self.unseen) = (Some(needed), last.is_some(), 0);
    }
}

impl Guard {
    pub(super) fn new(config: &BrokerConfig, needs: Arc<dyn Needs>) -> Self {
        let streams = vec![Stream::NEW; usize::from(config.partitions())];
        Self {
            needs,
            half_bytes: config.stream_bytes / 2,
            streams,
            seen_ms: None,
            next_look_ms: 0,
            refused: false,
            told: false,
            told_blind: false,
        }
    }

    /// Looks at checkpoints and streams, if it is time to. That checkpoints can't be read is no fault of the broker.
    pub(super) async fn look(&mut self, link: &Link, config: &BrokerConfig, now_ms: u64) -> Result<(), RabbitError> {
        if now_ms < self.next_look_ms {
            return Ok(());
        }
        self.next_look_ms = now_ms + SHORT_LOOK_MS;
        let partitions: Vec<u16> = (0..config.partitions()).collect();
        let mut seen = Vec::with_capacity(partitions.len());
        for some in partitions.chunks(LOOKED_AT_ONCE) {
            let looks = some.iter().map(|partition| {
                let is_measured = self.streams.get(usize::from(*partition)).is_some_and(|stream| stream.is_measured);
                look_at(&*self.needs, link, config, *partition, is_measured)
            });
            seen.extend(try_join_all(looks).await?);
        }
        let mut unread = None;
        for (stream, seen) in self.streams.iter_mut().zip(seen) {
            match seen {
                // One that had messages a while ago is not empty: the broker is slow to tell.
                Ok(Seen { last: None, .. }) if stream.has_some => {}
                Ok(seen) => stream.saw(seen, self.half_bytes),
                Err(error) => unread = Some(error),
            }
        }
        let whole = unread.is_none();
        self.tell_blindness(unread.as_ref());
        if !whole {
            self.next_look_ms = now_ms + BLIND_LOOK_MS;
        }
        if whole {
            self.tell();
            (self.seen_ms, self.refused) = (Some(now_ms), false);
            if self.streams.iter().all(|stream| stream.room > self.half_bytes / 2) {
                self.next_look_ms = now_ms + LOOK_MS;
            }
        }
        Ok(())
    }

    /// Tells when checkpoints can't be read, once, and when they can be again.
    fn tell_blindness(&mut self, error: Option<&StoreError>) {
        match error {
            Some(error) if !self.told_blind => tracing::warn!(%error, "how far clicks are counted can't be read"),
            None if self.told_blind => tracing::info!("how far clicks are counted can be read again"),
            _ => {}
        }
        self.told_blind = error.is_some();
    }

    /// Tells when publishing has stopped, and when it goes on.
    fn tell(&mut self) {
        if self.refused && !self.told {
            tracing::warn!("clicks stay on disk: half of what a stream keeps is not counted yet");
        } else if !self.refused && self.told {
            tracing::info!("clicks are published again: counting has caught up");
        }
        self.told = self.refused;
    }

    /// Whether a message of `bytes` may be published to `partition`.
    pub(super) fn allows(&mut self, partition: u16, bytes: usize, now_ms: u64) -> bool {
        let room = self.streams.get(usize::from(partition)).map_or(0, |stream| stream.room);
        let refused = self.is_blind(now_ms) || room < stored(bytes);
        self.refused |= refused;
        !refused
    }

    /// Whether something is not published because of this, since the last look.
    pub(super) fn holds(&self, now_ms: u64) -> bool {
        self.refused || self.is_blind(now_ms)
    }

    fn is_blind(&self, now_ms: u64) -> bool {
        self.seen_ms.is_none_or(|seen_ms| now_ms.saturating_sub(seen_ms) > BLIND_MS)
    }

    /// A message of `bytes` was published to `partition`.
    pub(super) fn published(&mut self, partition: u16, bytes: usize) {
        /// A new message counts one part in so many.
        const MEMORY: u64 = 64;
        let Some(stream) = self.streams.get_mut(usize::from(partition)) else { return };
        let bytes = stored(bytes);
        stream.room = stream.room.saturating_sub(bytes);
        stream.unseen += bytes;
        if stream.room < self.half_bytes / 2 || stream.unseen >= self.half_bytes / LOOK_SHARE {
            self.next_look_ms = self.next_look_ms.min(self.seen_ms.unwrap_or(0) + SHORT_LOOK_MS);
        }
        stream.message_bytes = if bytes > stream.message_bytes {
            // Growing, it believes sooner: too much room is worse than too little.
            stream.message_bytes + (bytes - stream.message_bytes).div_ceil(4)
        } else {
            (stream.message_bytes - (stream.message_bytes - bytes) / MEMORY).max(LEAST_MESSAGE_BYTES)
        };
    }

    /// Looks at the next chance: the connection is another one, or streams may be.
    pub(super) fn forget(&mut self) {
        self.next_look_ms = 0;
        self.streams.iter_mut().for_each(|stream| stream.has_some = false);
    }
}

/// What a message of `bytes` takes in a stream, at most about.
fn stored(bytes: usize) -> u64 {
    bytes as u64 + LEAST_MESSAGE_BYTES
}

/// How many messages are not projected: those behind `needed` up to `last`. A checkpoint beyond the last message is of
/// another stream, which was there before under this name.
fn behind(needed: Option<u64>, last: Option<u64>) -> u64 {
    match (needed, last) {
        (_, None) => 0,
        (Some(needed), Some(last)) if needed <= last => last - needed,
        (_, Some(last)) => last + 1,
    }
}

/// What can be seen of a stream; or why its checkpoint can't be read.
async fn look_at(
    needs: &dyn Needs,
    link: &Link,
    config: &BrokerConfig,
    partition: u16,
    is_measured: bool,
) -> Result<Result<Seen, StoreError>, RabbitError> {
    let needed = match needs.first_needed(partition).await {
        Ok(needed) => needed,
        Err(error) => return Ok(Err(error)),
    };
    let stream = config.stream(partition);
    let mut last = first_from(link, &stream, AMQPValue::LongString("last".into())).await?.map(|found| found.offset);
    // It may lie within the last chunk.
    if let Some(beyond) = needed.filter(|needed| last.is_some_and(|last| *needed > last)) {
        let found = first_from(link, &stream, offset_argument(beyond)).await?;
        last = if found.is_some_and(|found| found.offset == beyond) { needed } else { last };
    }
    let message_bytes = match last {
        Some(last) if !is_measured => Some(measure(link, &stream, needed.unwrap_or(0).min(last), last).await?),
        _ => None,
    };
    Ok(Ok(Seen { needed, last, message_bytes }))
}

/// How many bytes the messages of `stream` from the offset `from` to `last` take on average, as far as some of them tell.
async fn measure(link: &Link, stream: &str, from: u64, last: u64) -> Result<u64, RabbitError> {
    let (mut bytes, mut count) = (0, 0_u64);
    for offset in samples(from, last) {
        if let Some(found) = first_from(link, stream, offset_argument(offset)).await? {
            (bytes, count) = (bytes + stored(found.bytes), count + 1);
        }
    }
    Ok(bytes / count.max(1))
}

/// Offsets from `from` to `last`, both included, as far apart as so few are.
fn samples(from: u64, last: u64) -> Vec<u64> {
    let mut samples: Vec<u64> = (0..=SAMPLES).map(|number| from + (last - from) * number / SAMPLES).collect();
    samples.dedup();
    samples
}

/// A message that was found in a stream.
struct Found {
    offset: u64,
    bytes: usize,
}

/// The first message of `stream` from `place` on; `None` = there is none. From `last` on, that is the first of the last
/// chunk.
async fn first_from(link: &Link, stream: &str, place: AMQPValue) -> Result<Option<Found>, RabbitError> {
    let channel = link.channel().await?;
    link.ask(channel.basic_qos(1, BasicQosOptions::default())).await?;
    let place = table([("x-stream-offset", place)]);
    let consuming = channel.basic_consume(stream.into(), "".into(), BasicConsumeOptions::default(), place);
    let mut consumer = link.ask(consuming).await?;
    let first = tokio::time::timeout(std::time::Duration::from_millis(LAST_MS), consumer.next()).await;
    let found = match first {
        Ok(Some(Ok(delivery))) => {
            let offset = offset_of(&delivery.properties).ok_or_else(|| {
                RabbitError::Topology(format!("the queue {stream} delivers messages without offsets: it is no stream"))
            })?;
            Some(Found { offset, bytes: delivery.data.len() })
        }
        Ok(Some(Err(error))) => return Err(fault(&error)),
        Ok(None) => return Err(RabbitError::Unavailable(format!("reading {stream} was ended by the broker"))),
        Err(_) => None,
    };
    link.ask(channel.close(200, "looked".into())).await?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct NoNeeds;

    #[async_trait]
    impl Needs for NoNeeds {
        async fn first_needed(&self, _: u16) -> Result<Option<u64>, StoreError> {
            Ok(None)
        }
    }

    fn guard() -> Guard {
        let mut config = BrokerConfig::new("amqp://localhost/%2f", "d", 2).unwrap();
        (config.stream_bytes, config.segment_bytes) = (4 << 20, 1 << 20);
        Guard::new(&config, Arc::new(NoNeeds))
    }

    #[test]
    fn nothing_is_allowed_before_all_was_seen_and_long_after() {
        let mut guard = guard();
        assert!(guard.holds(0));
        guard.streams[0].room = 10_000;
        assert!(!guard.allows(0, 1, 0));
        guard.seen_ms = Some(5);
        assert!(guard.allows(0, 1, 5) && guard.allows(0, 1, BLIND_MS + 5));
        assert!(!guard.allows(0, 1, BLIND_MS + 6));
        assert!(!guard.allows(7, 1, 5), "there is no such stream");
    }

    #[test]
    fn what_is_published_uses_the_room_up() {
        let mut guard = guard();
        guard.seen_ms = Some(0);
        guard.streams.iter_mut().for_each(|stream| stream.room = 10_000);
        let mut published = 0;
        while guard.allows(1, 1_000, 0) {
            guard.published(1, 1_000);
            published += 1;
        }
        assert_eq!(published, 7);
        assert!(guard.holds(0) && guard.allows(0, 1_000, 0));
        assert!(guard.next_look_ms <= SHORT_LOOK_MS);
    }

    #[test]
    fn large_messages_are_believed_sooner_than_small_ones() {
        let mut guard = guard();
        for _ in 0..20 {
            guard.published(0, 100_000);
        }
        assert!(guard.streams[0].message_bytes > 95_000);
        guard.published(0, 64);
        assert!(guard.streams[0].message_bytes > 90_000);
        for _ in 0..1_000 {
            guard.published(0, 0);
        }
        assert!((LEAST_MESSAGE_BYTES..400).contains(&guard.streams[0].message_bytes));
    }

    #[test]
    fn room_grows_by_what_was_projected_and_by_no_more() {
        let mut stream = Stream { message_bytes: 1_000, ..Stream::NEW };
        let room = |stream: &mut Stream, needed, last| {
            stream.saw(Seen { needed, last, message_bytes: None }, 50_000);
            stream.room
        };
        assert_eq!(room(&mut stream, None, None), 50_000, "an empty stream");
        stream.room = 0;
        assert_eq!(room(&mut stream, None, Some(2)), 0, "the last chunk begins early, but nothing was projected");
        assert_eq!(room(&mut stream, Some(10), Some(49)), 10_000);
        assert_eq!(room(&mut stream, Some(49), Some(49)), 49_000);
        assert_eq!(room(&mut stream, Some(90), Some(90)), 50_000, "all of it was projected");
        assert_eq!(room(&mut stream, Some(3), Some(20)), 33_000, "a stream that was made anew is measured anew");
    }

    #[test]
    fn what_others_have_published_is_measured_by_what_stands_there() {
        let mut stream = Stream::NEW;
        let seen = |message_bytes| Seen { needed: None, last: Some(49), message_bytes };
        stream.saw(seen(Some(1_000)), 60_000);
        assert_eq!((stream.room, stream.is_measured), (10_000, true), "of a relay that has published nothing");
        // Who has published larger ones knows that there are some.
        let mut stream = Stream { message_bytes: 1_100, ..Stream::NEW };
        stream.saw(seen(Some(1_000)), 60_000);
        assert_eq!((stream.room, stream.message_bytes), (5_000, 1_100));
    }

    #[test]
    fn a_stream_is_measured_at_both_ends_and_between() {
        assert_eq!(samples(100, 900), [100, 200, 300, 400, 500, 600, 700, 800, 900]);
        assert_eq!(samples(7, 7), [7]);
        assert_eq!(samples(0, 3), [0, 1, 2, 3]);
    }

    #[test]
    fn who_publishes_much_looks_sooner_what_others_do() {
        let mut guard = guard();
        guard.seen_ms = Some(0);
        let calm = |guard: &mut Guard| {
            guard.next_look_ms = LOOK_MS;
            guard.streams.iter_mut().for_each(|stream| (stream.room, stream.unseen) = (2 << 20, 0));
        };
        let most = (2 << 20) / LOOK_SHARE as usize - LEAST_MESSAGE_BYTES as usize;
        calm(&mut guard);
        guard.published(0, most - 1);
        assert_eq!(guard.next_look_ms, LOOK_MS);
        calm(&mut guard);
        guard.published(0, most);
        assert_eq!(guard.next_look_ms, SHORT_LOOK_MS);
        let seen = Seen { needed: None, last: None, message_bytes: None };
        guard.streams[0].saw(seen, 2 << 20);
        assert_eq!(guard.streams[0].unseen, 0);
    }

    #[test]
    fn what_was_never_projected_is_all_behind() {
        assert_eq!(behind(None, None), 0);
        assert_eq!(behind(None, Some(9)), 10);
        assert_eq!(behind(Some(4), Some(9)), 5);
        assert_eq!(behind(Some(9), Some(9)), 0);
        assert_eq!(behind(Some(50), Some(9)), 10, "another stream than the checkpoint's");
        assert_eq!(behind(Some(50), None), 0);
    }
}
