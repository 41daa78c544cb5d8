//! Adding what was taken from the log to the rows.
//!
//! In three passes over all that was taken: what each part is and which rows its records belong to (`plan`), loading
//! those rows that aren't in play (`load`), adding (`add_planned`), which never waits.

use std::collections::HashSet;

use terse_core::ports::clicks::Bus;
use terse_core::stats::Partition;

use super::rows::Counted;
use super::track::Verdict;
use super::{Fault, MAX_BATCH_ROWS, MAX_LOAD_ROWS, Projector, own_journal};
use crate::log::Body;
use crate::part::Part;

/// Why adding stopped.
enum Halt {
    /// Nothing is left.
    Done,
    /// As much was added as one write may hold.
    Full,
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
            self.plan().await?;
            self.load().await?;
            let halt = self.add_planned();
            let Some(partition) = self.pending.front().map(|first| first.delivery.partition) else { break };
            match halt {
                Halt::Done => {}
                Halt::Full => self.write().await?,
                Halt::Undecodable => self.dead_letter(partition).await?,
                Halt::Newer(format) => {
                    self.write().await?;
                    self.wait_for_newer(partition, format).await?;
                }
                Halt::Epoch => self.begin_epoch(partition).await?,
                Halt::Stop(why) => self.stop(partition, why),
            }
        }
        self.unplan();
        Ok(())
    }

    /// Forgets which rows belong to what is pending.
    pub(super) fn unplan(&mut self) {
        self.plan.clear();
        for pending in &mut self.pending {
            pending.planned = None;
        }
    }

    /// Finds out for all that is pending what is new of it, and wants its rows.
    async fn plan(&mut self) -> Result<(), Fault> {
        self.rows.tick();
        let mut strangers = HashSet::new();
        let mut next = 0;
        while let Some(pending) = self.pending.get_mut(next) {
            if pending.planned.is_some() {
                next += 1;
                continue;
            }
            let partition = pending.delivery.partition;
            if let Body::Part(part) = &pending.delivery.body
                && let Err(reason) = fits(part, partition, pending.delivery.offset, self.config.bus)
            {
                let bytes = part.encode();
                pending.delivery.body = Body::Undecodable { bytes, reason: reason.to_owned() };
            }
            let journal = match &pending.delivery.body {
                Body::Part(part) => Some(part.header.block.journal),
                _ => None,
            };
            let Some(track) = self.tracks.get(&partition) else {
                next += 1;
                continue;
            };
            if let Some(journal) = journal
                && own_journal(partition).is_none()
                && !track.passed.knows(journal)
                && strangers.insert((partition, journal))
                && self.look_up(next, journal).await?
            {
                // The read model is ahead of the rows in play: they were dropped, so all is planned anew.
                self.unplan();
                next = 0;
                continue;
            }
            self.plan_one(next);
            next += 1;
        }
        Ok(())
    }

    /// Looks a journal up among the retired ones that its partition doesn't know. Returns whether the read model
    /// turned out to be ahead of this projector; then the partition's rows were dropped.
    async fn look_up(&mut self, number: usize, journal: terse_core::click::JournalId) -> Result<bool, Fault> {
        let delivery = &self.pending[number].delivery;
        let (partition, offset) = (delivery.partition, delivery.offset);
        let Some(retired) = self.model.retired(partition, journal).await? else { return Ok(false) };
        let Some(track) = self.tracks.get_mut(&partition) else { return Ok(false) };
        let position = track.position(offset);
        let ahead = retired.at >= position && track.at.is_none_or(|at| offset > at);
        let restored = track.passed.restore(journal, &retired.passed, true);
        restored.map_err(|error| Fault::Set(partition, error))?;
        if ahead {
            // Whoever retired it had written all rows up to there. Rows in play that lack some of that would be written
            // over them with what this journal's later parts, dropped now, don't add.
            self.rows.forget(partition);
        }
        Ok(ahead)
    }

    fn plan_one(&mut self, number: usize) {
        let pending = &mut self.pending[number];
        let (delivery, start) = (&pending.delivery, self.plan.len());
        let Some(track) = self.tracks.get(&delivery.partition) else { return };
        let mut first = u32::MAX;
        if let Body::Part(part) = &delivery.body
            && track.at.is_none_or(|at| delivery.offset > at)
            && let Some(first_new) = track.passed.first_new(&part.header)
        {
            first = first_new;
            let new = part.records().filter(|(index, _)| *index >= first);
            self.plan.extend(new.filter_map(|(_, record)| self.rows.want(record.code, record.at)));
        }
        pending.planned = Some((start, first));
    }

    /// Loads the rows that are wanted and not in play.
    async fn load(&mut self) -> Result<(), Fault> {
        loop {
            let keys = self.rows.missing(MAX_LOAD_ROWS);
            if keys.is_empty() {
                return Ok(());
            }
            let stored = self.model.load(&keys).await?;
            self.rows.fill(stored);
        }
    }

    /// Adds what is pending, from its front, until something else has to be done.
    fn add_planned(&mut self) -> Halt {
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
                Verdict::Known => {}
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
            if self.rows.dirty_rows() >= MAX_BATCH_ROWS || self.rows.weight() > self.config.cache_bytes {
                return Halt::Full;
            }
        }
        Halt::Done
    }

    /// Adds the records of the first that is pending, a part that is the next of its partition.
    fn add_first(&mut self) {
        let Some(pending) = self.pending.front() else { return };
        let delivery = &pending.delivery;
        let Some(track) = self.tracks.get_mut(&delivery.partition) else { return };
        let (Body::Part(part), Some((start, planned_from))) = (&delivery.body, pending.planned) else { return };
        // What came in the same batch may have left less to add than was planned, never more.
        let first = track.passed.first_new(&part.header);
        debug_assert!(first.is_none_or(|first| first >= planned_from), "planned by what was passed before");
        let position = (self.config.bus != Bus::Local).then(|| track.position(delivery.offset));
        if let Some(first) = first {
            let rules = self.enrichment.version();
            let planned = part.records().filter(|(index, _)| *index >= planned_from).zip(&self.plan[start..]);
            for ((index, record), entry) in planned {
                if index < first {
                    continue;
                }
                let (block, visitor) = (part.header.block, record.visitor);
                let facts = self.enrichment.facts(&record);
                let click = Counted { at: record.at, block, index, visitor, facts, rules };
                self.rows.add(*entry, position, &click);
                self.added_unwritten += 1;
                self.last_step.added += 1;
            }
        }
        track.advance(delivery);
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
            track.advance(delivery);
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
            let block = terse_core::click::BlockId { journal, seq: offset };
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
