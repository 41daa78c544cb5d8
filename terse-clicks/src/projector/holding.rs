//! Which partitions this projector projects: leases, starts, stops.

use std::collections::BTreeSet;

use terse_core::click::JournalId;
use terse_core::ports::clicks::{Bus, Checkpoint};
use terse_core::stats::Partition;

use super::track::Track;
use super::{ASIDE_MS, Fault, LOOK_MS, MAX_PARTITIONS, Projector, own_journal};
use crate::log::LogError;

/// The lease that is for all partitions, where there is one: on the local bus, all rows being everybody's, and in a file.
const ONE_LEASE: Partition = Partition::Journal(JournalId([0; 16]));

/// Why a partition stands still. An operator hears of each by itself: one that waited may stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stands {
    /// Nothing but an operator lets it go on.
    Stopped,
    /// A newer build will go on.
    Waits,
}

impl Projector {
    /// Renews leases, and starts partitions that are new and free, if it is time to look.
    pub(super) async fn look(&mut self) -> Result<(), Fault> {
        let now_ms = self.clock.monotonic_ms();
        if now_ms < self.next_look_ms {
            return Ok(());
        }
        self.renew_leases(now_ms).await?;
        let listed = self.log.partitions().await?;
        let log = &self.log;
        self.aside.retain(|partition, until_ms| {
            let over = *until_ms == u64::MAX && log.brings_back(*partition);
            listed.contains(partition) && *until_ms > now_ms && !over
        });
        self.standing.retain(|(partition, _)| listed.contains(partition));
        self.let_vanished_go(&listed);
        let mut unstarted = 0;
        // A lease that somebody else has is asked for once in a look, however many partitions it is for.
        let mut refused = BTreeSet::new();
        for partition in listed {
            let known = self.tracks.contains_key(&partition) || self.aside.contains_key(&partition);
            let key = self.lease_of(partition);
            if known || refused.contains(&key) {
                continue;
            }
            if self.tracks.len() >= MAX_PARTITIONS {
                unstarted += 1;
                continue;
            }
            if self.hold(partition).await? {
                self.start(partition).await?;
            } else {
                refused.insert(key);
            }
        }
        self.note_unstarted(unstarted);
        self.mark_ended();
        self.tell_passed().await?;
        self.next_look_ms = now_ms + LOOK_MS;
        Ok(())
    }

    /// Forgets partitions that are not there any more and of which nothing waits to be written: a journal that ended
    /// before its first click, or whose directory somebody removed. They would use [`MAX_PARTITIONS`] up.
    fn let_vanished_go(&mut self, listed: &[Partition]) {
        let listed: BTreeSet<Partition> = listed.iter().copied().collect();
        let waits: BTreeSet<Partition> = self.pending.iter().map(|pending| pending.delivery.partition).collect();
        let vanished = |track: &&Track| !track.dirty && !listed.contains(&track.partition);
        let gone: Vec<Partition> = self.tracks.values().filter(vanished).map(|track| track.partition).collect();
        for partition in gone.into_iter().filter(|partition| !waits.contains(partition)) {
            tracing::debug!(%partition, "it is there no more");
            self.forget(partition);
        }
    }

    /// Takes note of how many partitions wait until others are done with.
    fn note_unstarted(&mut self, unstarted: usize) {
        if unstarted > 0 && self.unstarted == 0 {
            tracing::error!(
                unstarted,
                most = MAX_PARTITIONS,
                "as many journals are read as may be at a time: clicks of more are not counted until some are done with",
            );
        }
        if unstarted == 0 && self.unstarted > 0 {
            tracing::info!("all journals are read again");
        }
        self.unstarted = unstarted;
    }

    async fn renew_leases(&mut self, now_ms: u64) -> Result<(), Fault> {
        let old = |taken_ms: &u64| now_ms.saturating_sub(*taken_ms) >= self.config.lease_ms / 3;
        let due: Vec<Partition> = self.leases.iter().filter(|(_, taken)| old(taken)).map(|(key, _)| *key).collect();
        for key in due {
            if !self.take_lease(key).await? {
                self.lose(key);
            }
        }
        Ok(())
    }

    /// Whether `partition` is this projector's to project.
    async fn hold(&mut self, partition: Partition) -> Result<bool, Fault> {
        let key = self.lease_of(partition);
        Ok(self.leases.contains_key(&key) || self.take_lease(key).await?)
    }

    fn lease_of(&self, partition: Partition) -> Partition {
        if self.config.one_lease { ONE_LEASE } else { partition }
    }

    async fn take_lease(&mut self, key: Partition) -> Result<bool, Fault> {
        let now_ms = self.clock.monotonic_ms();
        let (holder, ttl_ms) = (&self.config.holder, self.config.lease_ms);
        let held = self.model.lease(key, holder, self.clock.now(), ttl_ms).await?;
        if held {
            self.leases.insert(key, now_ms);
        }
        Ok(held)
    }

    /// Somebody else has the lease: what was added and not written is theirs to add.
    fn lose(&mut self, key: Partition) {
        tracing::warn!(lease = %key, "somebody else counts these clicks now");
        self.leases.remove(&key);
        if self.config.one_lease { self.forget_all() } else { self.forget(key) }
    }

    /// Gives the leases back, so that a successor need not wait for their end.
    pub(super) async fn release_all(&mut self) -> Result<(), Fault> {
        let keys: Vec<Partition> = self.leases.keys().copied().collect();
        for key in keys {
            self.release(key).await?;
        }
        Ok(())
    }

    async fn release(&mut self, key: Partition) -> Result<(), Fault> {
        self.leases.remove(&key);
        self.model.lease(key, &self.config.holder, self.clock.now(), 0).await?;
        Ok(())
    }

    /// Starts `partition` at its checkpoint.
    async fn start(&mut self, partition: Partition) -> Result<(), Fault> {
        if !self.attached {
            self.model.attach().await?;
            self.attached = true;
        }
        let damaged = |error| Fault::Set(partition, error);
        if let Some(checkpoint) = self.model.checkpoint(partition).await? {
            let track = Track::resumed(partition, &checkpoint).map_err(damaged)?;
            return self.start_past_gap(track, Some(&checkpoint)).await;
        }
        if let Some(journal) = own_journal(partition)
            && let Some(retired) = self.model.retired(partition, journal).await?
        {
            if self.log.brings_back(partition) {
                let checkpoint = Track::checkpoint_of_retired(&retired);
                let track = Track::reopened(journal, &retired).map_err(damaged)?;
                return self.start_at(track, Some(&checkpoint)).await;
            }
            // Read model and log agree, and no more is wanted.
            if !self.log.was_passed(partition) {
                let track = Track::returned(journal, &retired).map_err(damaged)?;
                match self.start_at(track, None).await {
                    // It never was away: the process before this one ended before it could tell that all was passed.
                    Err(Fault::Log(LogError::Gap { .. } | LogError::Gone { .. })) => {}
                    started => return started,
                }
            }
            let checkpoint = Track::checkpoint_of_retired(&retired);
            let track = Track::retired(journal, &retired).map_err(damaged)?;
            return self.start_at(track, Some(&checkpoint)).await;
        }
        self.start_past_gap(Track::fresh(partition), None).await
    }

    /// Starts `track`. What its log keeps no more, though this read model does not include it, is given up with an alarm:
    /// an older copy of the read model was put back.
    async fn start_past_gap(&mut self, track: Track, checkpoint: Option<&Checkpoint>) -> Result<(), Fault> {
        let started = self.log.start(track.partition, checkpoint.filter(|_| !track.begins())).await;
        if let Err(LogError::Gone { partition, from, until }) = started {
            tracing::error!(
                %partition, from, until, blocks = until.saturating_sub(from),
                "clicks that the read model does not include were passed, and are kept no more: it is older than the \
                 journals. They are not counted; going on behind them",
            );
            self.log.start(partition, Some(&track.behind(until))).await?;
        } else {
            started?;
        }
        self.began(track);
        Ok(())
    }

    fn began(&mut self, track: Track) {
        tracing::debug!(partition = %track.partition, at = track.at, "counting its clicks");
        self.tracks.insert(track.partition, track);
    }

    async fn start_at(&mut self, track: Track, checkpoint: Option<&Checkpoint>) -> Result<(), Fault> {
        self.log.start(track.partition, checkpoint.filter(|_| !track.begins())).await?;
        self.began(track);
        Ok(())
    }

    /// The log of `partition` is another one than its checkpoint's: reads it from its beginning, in a new epoch.
    pub(super) async fn begin_epoch(&mut self, partition: Partition) -> Result<(), Fault> {
        let Some(track) = self.tracks.get(&partition) else { return Ok(()) };
        let Some(first) = track.next_epoch() else {
            self.stop(partition, "its log began anew more often than there are epochs");
            return Ok(());
        };
        let Some(stands) = self.model.begin_epoch(partition, &first).await? else {
            self.superseded();
            return Ok(());
        };
        tracing::error!(
            %partition, epoch = stands.at.epoch, after = %track.included(), last = %track.last_block(),
            "the log of clicks began anew: what it held behind the checkpoint may be lost, or counted twice",
        );
        self.progress.epoch();
        self.forget(partition);
        let track = Track::resumed(partition, &stands).map_err(|error| Fault::Set(partition, error))?;
        self.start_at(track, Some(&stands)).await
    }

    /// Marks journals of which the log knows that nothing is left, whether or not their last block said so.
    fn mark_ended(&mut self) {
        for (partition, journal) in self.log.ended() {
            let waits = self.pending.iter().any(|pending| pending.delivery.partition == partition);
            if let Some(track) = self.tracks.get_mut(&partition)
                && !waits
                && !track.done
                && track.passed.end(journal)
            {
                track.dirty = true;
                self.dirty_since_ms.get_or_insert(self.clock.monotonic_ms());
            }
        }
    }

    /// Leaves `partition` alone for a while, with an alarm when that begins.
    pub(super) fn stop(&mut self, partition: Partition, why: &str) {
        if self.standing.insert((partition, Stands::Stopped)) {
            tracing::error!(%partition, why, "clicks of this partition are not counted; an operator must look");
        } else {
            tracing::debug!(%partition, why, "its clicks are still not counted");
        }
        self.put_aside(partition);
    }

    /// Clicks of `partition` were counted.
    pub(super) fn goes_on(&mut self, partition: Partition) {
        let stood = self.standing.len();
        self.standing.retain(|(standing, _)| *standing != partition);
        if self.standing.len() < stood {
            tracing::info!(%partition, "clicks of this partition are counted again");
        }
    }

    /// Leaves `partition` alone for a while.
    pub(super) fn put_aside(&mut self, partition: Partition) {
        self.forget(partition);
        self.aside.insert(partition, self.clock.monotonic_ms() + ASIDE_MS);
    }

    /// Leaves `partition` to a newer build, which may have its lease at once.
    pub(super) async fn wait_for_newer(&mut self, partition: Partition, format: u16) -> Result<(), Fault> {
        if self.standing.insert((partition, Stands::Waits)) {
            tracing::warn!(%partition, format, "clicks of this partition are in a newer format and wait for a newer build");
        }
        self.put_aside(partition);
        if self.config.one_lease { Ok(()) } else { self.release(partition).await }
    }

    /// Forgets what was added to `partition` and not written, and what was taken of it.
    fn forget(&mut self, partition: Partition) {
        if self.config.bus == Bus::Local && self.tracks.get(&partition).is_some_and(|track| track.dirty) {
            // The rows hold clicks of all journals: they go together, or what is written would not be one prefix.
            return self.forget_all();
        }
        self.tracks.remove(&partition);
        self.log.stop(partition);
        self.pending.retain(|pending| pending.delivery.partition != partition);
        if self.config.bus != Bus::Local {
            self.rows.forget(partition);
        }
    }

    /// Forgets everything that isn't written; the next look starts from the checkpoints.
    pub(super) fn forget_all(&mut self) {
        for partition in std::mem::take(&mut self.tracks).into_keys() {
            self.log.stop(partition);
        }
        self.pending.clear();
        self.rows.clear();
        self.attached = false;
        self.flight = None;
        self.dirty_since_ms = None;
        self.added_unwritten = 0;
        self.next_look_ms = 0;
    }

    /// Somebody else wrote.
    pub(super) fn superseded(&mut self) {
        tracing::warn!("somebody else wrote the clicks' read model; going on from its checkpoints");
        self.progress.superseded();
        self.forget_all();
    }
}
