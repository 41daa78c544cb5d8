//! Adding what was taken from the log to the rows.
//!
//! First the journals that a partition doesn't know are looked up among the retired ones (`look_up_journals`); adding
//! itself (`add_known`) never waits. Rows are loaded when it is time to write.

use std::collections::HashSet;

use terse_core::click::{BlockId, JournalId};
use terse_core::ports::clicks::Bus;
use terse_core::stats::Partition;

use super::rows::Counted;
use super::track::Verdict;
use super::{Fault, Pending, Projector, own_journal};
use crate::log::Body;
use crate::part::Part;
use crate::record::Record;

/// Why adding stopped.
enum Halt {
    /// Nothing is left.
    Done,
    /// As much was added as one write may hold.
    Full,
    /// As much was added as may be without knowing what its rows weigh.
    Unknown,
    /// As much was added as may be without knowing what its rows weigh with it.
    Unsettled,
    /// The first that is pending can't be decoded.
    Undecodable,
    /// The first that is pending is of this newer format.
    Newer(u16),
    /// The log of the first that is pending is another one than it was.
    Epoch,
    /// The partition of the first that is pending can't go on.
    Stop(&'static str),
}

impl Projector {
    /// Adds all that is pending. After a fault, and when dropped, what is left stays pending.
    pub(super) async fn add_pending(&mut self) -> Result<(), Fault> {
        while !self.pending.is_empty() {
            self.look_up_journals().await?;
            let halt = self.add_known();
            let Some(partition) = self.pending.front().map(|first| first.delivery.partition) else { break };
            match halt {
                Halt::Done => {}
                Halt::Full => self.write().await?,
                Halt::Unknown => self.load_rows().await?,
                Halt::Unsettled => self.settle_rows().await?,
                Halt::Undecodable => self.dead_letter(partition).await?,
                Halt::Newer(format) => {
                    self.write().await?;
                    self.wait_for_newer(partition, format).await?;
                }
                Halt::Epoch => self.begin_epoch(partition).await?,
                Halt::Stop(why) => self.stop(partition, why),
            }
        }
        Ok(())
    }

    /// Lets the journals of what is pending be looked up again.
    pub(super) fn doubt_journals(&mut self) {
        self.pending.iter_mut().for_each(|pending| pending.is_known = false);
    }

    /// Sees to it that for each pending part its partition knows whether it was passed.
    async fn look_up_journals(&mut self) -> Result<(), Fault> {
        let mut strangers = HashSet::new();
        for number in 0..self.pending.len() {
            let Pending { delivery, is_known: false } = &mut self.pending[number] else { continue };
            let partition = delivery.partition;
            if let Body::Part(part) = &delivery.body
                && let Err(reason) = fits(part, partition, delivery.offset, self.config.bus)
            {
                delivery.body = Body::Undecodable { bytes: part.encode(), reason: reason.to_owned() };
            }
            if let Body::Part(part) = &delivery.body
                && own_journal(partition).is_none()
                && let (journal, offset) = (part.header.block.journal, delivery.offset)
                && self.tracks.get(&partition).is_some_and(|track| !track.passed.knows(journal))
                && strangers.insert((partition, journal))
            {
                self.look_up(partition, offset, journal).await?;
            }
            self.pending[number].is_known = true;
        }
        Ok(())
    }

    /// Looks up what `partition` knew of a journal when it was retired. If that was at or behind `offset`, which is the
    /// next of it, the read model is ahead of this projector.
    async fn look_up(&mut self, partition: Partition, offset: u64, journal: JournalId) -> Result<(), Fault> {
        let Some(retired) = self.model.retired(partition, journal).await? else { return Ok(()) };
        let Some(track) = self.tracks.get_mut(&partition) else { return Ok(()) };
        let restored = track.passed.restore(journal, &retired.passed, true);
        restored.map_err(|error| Fault::Set(partition, error))?;
        if retired.at >= track.position(offset) && track.at.is_none_or(|at| offset > at) {
            // Whoever retired it had written all rows up to there. Those in play lack what this journal's parts, passed
            // now, don't add to them any more: written, they could stand where the others do.
            self.rows.forget(partition);
        }
        Ok(())
    }

    /// Adds what is pending, from its front, until something else has to be done.
    fn add_known(&mut self) -> Halt {
        while let Some(pending) = self.pending.front() {
            let delivery = &pending.delivery;
            let Some(track) = self.tracks.get_mut(&delivery.partition) else {
                self.pending.pop_front();
                continue;
            };
            let begins = track.begins();
            match track.judge(delivery) {
                Verdict::Epoch => return Halt::Epoch,
                Verdict::Gap => return Halt::Stop("its log begins behind the checkpoint"),
                Verdict::Beyond => return Halt::Stop("its offsets are used up"),
                Verdict::Known => track.is_back(delivery),
                Verdict::Next => match &delivery.body {
                    Body::Undecodable { .. } => return Halt::Undecodable,
                    Body::Newer(format) => return Halt::Newer(*format),
                    Body::Part(_) => {
                        if begins && delivery.offset > 0 && own_journal(delivery.partition).is_none() {
                            let (partition, offset) = (delivery.partition, delivery.offset);
                            tracing::warn!(%partition, offset, "what the log held before this offset is not counted");
                        }
                        self.add_first();
                    }
                },
            }
            self.pending.pop_front();
            if self.is_full() {
                return Halt::Full;
            }
            if self.has_to_settle() {
                return Halt::Unsettled;
            }
            if self.has_to_load() {
                return Halt::Unknown;
            }
        }
        Halt::Done
    }

    /// Adds the records of the first that is pending, a part that is the next of its partition.
    fn add_first(&mut self) {
        let Some(pending) = self.pending.front() else { return };
        let delivery = &pending.delivery;
        let Some(track) = self.tracks.get_mut(&delivery.partition) else { return };
        let Body::Part(part) = &delivery.body else { return };
        // Whatever panics from here on until it is added, it is this block's doing.
        self.progress.takes(Some(part.header.block));
        if let Some(first) = track.passed.first_new(&part.header) {
            let position = (self.config.bus != Bus::Local).then(|| track.position(delivery.offset));
            self.enrichment.look_for_countries();
            let (source, rules) = (self.rows.source(part.header.block, position), self.enrichment.version());
            let added_before = self.added_unwritten;
            for (index, record) in part.records().filter(|(index, _)| *index >= first) {
                let Record { code, at, visitor, .. } = record;
                let facts = &self.enrichment.facts(&record);
                self.rows.add(&Counted { code, at, source, index, visitor, facts, rules });
                self.added_unwritten += 1;
                self.last_step.added += 1;
            }
            let (partition, offset, block) = (delivery.partition, delivery.offset, part.header.block);
            let clicks = self.added_unwritten - added_before;
            tracing::debug!(%partition, offset, %block, clicks, "clicks added to their rows");
        }
        track.advance(delivery, self.clock.now());
        self.progress.takes(None);
        self.dirty_since_ms.get_or_insert(self.clock.monotonic_ms());
    }

    /// Puts the first that is pending aside for an operator: a barrier, so that what stands before it and what comes
    /// behind it is the same whether or not it can be decoded one day.
    async fn dead_letter(&mut self, partition: Partition) -> Result<(), Fault> {
        self.write().await?;
        let Some(pending) = self.pending.front().filter(|pending| pending.delivery.partition == partition) else {
            return Ok(());
        };
        let delivery = &pending.delivery;
        if let Body::Undecodable { reason, bytes } = &delivery.body {
            let (offset, bytes) = (delivery.offset, bytes.len());
            tracing::error!(%partition, offset, bytes, reason, "a message of the click log can't be decoded");
        }
        self.log.dead_letter(delivery).await?;
        self.progress.dead_letter();
        if let Some(track) = self.tracks.get_mut(&partition) {
            track.advance(delivery, self.clock.now());
        }
        self.pending.pop_front();
        self.dirty_since_ms.get_or_insert(self.clock.monotonic_ms());
        self.write().await
    }
}

/// Whether `part` belongs where it came from: rows of one code must come from one partition.
fn fits(part: &Part, partition: Partition, offset: u64, bus: Bus) -> Result<(), &'static str> {
    let header = &part.header;
    match (partition, bus) {
        (Partition::Journal(journal), Bus::Local) => {
            let block = BlockId { journal, seq: offset };
            if header.block != block {
                return Err("the block of another place");
            }
        }
        (Partition::Stream(number), Bus::Streams { partitions }) => {
            if (header.partition, header.partitions) != (number, partitions) {
                return Err("the part of another partition");
            }
            if part.records().any(|(_, record)| Partition::of(record.code, partitions) != partition) {
                return Err("a part with clicks of another partition");
            }
        }
        _ => return Err("a part of another kind of bus"),
    }
    Ok(())
}
