//! Writing rows and checkpoints, and telling the log what it need not keep.

use terse_core::Timestamp;
use terse_core::click::JournalId;
use terse_core::ports::clicks::{Batch, Retired, Written};
use terse_core::ports::{StoreError, StoreErrorKind};
use terse_core::stats::Partition;

use super::rows::Places;
use super::{
    Fault, MAX_AHEAD_MS, MAX_BATCH_BYTES, MAX_BATCH_CLICKS, MAX_BATCH_ROWS, MAX_LOAD_ROWS, MAX_TOLD_BYTES,
    MAX_UNKNOWN_ROWS, MAX_UNSETTLED_CLICKS, MAX_WRITE_AGE_MS, Projector, WRITE_SHARE, own_journal,
};

/// A write that is under way. Nothing is added to its rows until it lands.
pub(super) struct Flight {
    batch: Batch,
    places: Places,
    /// The partitions whose checkpoints it has, with the journals that leave them.
    leaving: Vec<(Partition, Vec<JournalId>)>,
}

impl Projector {
    /// Whether rows are to be written now: old, or as many as one write may hold.
    pub(super) fn is_time_to_write(&self) -> bool {
        let now_ms = self.clock.monotonic_ms();
        let old = self.dirty_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= self.write_age_ms);
        old || self.is_full()
    }

    /// Whether as much was added as one write may hold.
    pub(super) fn is_full(&self) -> bool {
        self.rows.waiting_rows() >= MAX_BATCH_ROWS
            || self.added_unwritten >= MAX_BATCH_CLICKS as u64
            || self.rows.waiting_bytes() >= MAX_BATCH_BYTES
    }

    /// Whether rows have to be loaded before clicks are added to more, to know what these weigh.
    pub(super) fn has_to_load(&self) -> bool {
        self.rows.unknown_rows() >= MAX_UNKNOWN_ROWS
    }

    /// Whether clicks have to be counted in their rows before more are added, to know what these weigh then.
    pub(super) fn has_to_settle(&self) -> bool {
        self.rows.waiting_clicks() >= MAX_UNSETTLED_CLICKS || self.rows.told_bytes() >= MAX_TOLD_BYTES
    }

    /// Counts in their rows the clicks that are in none yet. Rows that aren't in play are loaded.
    pub(super) async fn settle_rows(&mut self) -> Result<(), Fault> {
        self.load_rows().await?;
        let latest = self.clock.now().plus_millis(MAX_AHEAD_MS);
        if let Err(error) = self.rows.settle(latest) {
            self.forget_all();
            let error = StoreError::new(StoreErrorKind::Corrupt, "a row in play can't be understood").caused_by(error);
            return Err(error.into());
        }
        Ok(())
    }

    /// Loads the rows of clicks that are not in play.
    pub(super) async fn load_rows(&mut self) -> Result<(), Fault> {
        self.rows.want();
        loop {
            let keys = self.rows.missing(MAX_LOAD_ROWS);
            if keys.is_empty() {
                break;
            }
            let stored = self.model.load(&keys).await?;
            self.rows.fill(stored);
        }
        Ok(())
    }

    /// Writes all rows that were added to, then checkpoints. After a fault they are still to be written.
    pub(super) async fn write(&mut self) -> Result<(), Fault> {
        if self.tracks.values().any(|track| track.dirty) {
            let began_ms = self.clock.monotonic_ms();
            self.settle_rows().await?;
            let flight = Flight::of(&self.rows, self.tracks.values(), self.clock.now());
            let flight = self.flight.insert(flight);
            match self.model.write(&flight.batch).await {
                Ok(Written::Stands) => self.land(true),
                Ok(Written::Superseded) => {
                    self.superseded();
                    return Ok(());
                }
                Err(error) => {
                    self.land(false);
                    return Err(error.into());
                }
            }
            self.last_step.wrote = true;
            let took_ms = self.clock.monotonic_ms().saturating_sub(began_ms);
            let most_ms = MAX_WRITE_AGE_MS.max(self.config.write_age_ms);
            self.write_age_ms = (took_ms * WRITE_SHARE).clamp(self.config.write_age_ms, most_ms);
        }
        self.dirty_since_ms = None;
        self.rows.shrink(self.config.cache_bytes);
        self.tell_passed().await
    }

    /// Brings the rows of a write back into play, if there is one. `stands` = it was done.
    pub(super) fn land(&mut self, stands: bool) {
        let Some(Flight { batch, places, leaving }) = self.flight.take() else { return };
        let mut forgot = false;
        let (rows, now) = (batch.rows.len(), self.clock.now());
        self.rows.land(places, stands);
        if !stands {
            return;
        }
        for (partition, journals) in leaving {
            self.goes_on(partition);
            let Some(track) = self.tracks.get_mut(&partition) else { continue };
            if let Some((first, _)) = track.first_unwritten.take() {
                tracing::debug!(%partition, at = track.at, %first, last = %track.last_block(), rows, "counted");
            }
            self.progress.newest_applied(track.until, now);
            track.dirty = false;
            track.done = own_journal(partition).is_some_and(|own| journals.contains(&own));
            track.passed.forget(&journals);
            forgot |= !journals.is_empty();
        }
        if forgot {
            self.doubt_journals();
        }
        self.progress.wrote(std::mem::take(&mut self.added_unwritten), rows as u64);
    }

    /// Tells the log how far the read model includes its partitions. Partitions of which nothing is left are let go.
    pub(super) async fn tell_passed(&mut self) -> Result<(), Fault> {
        let untold = |track: &super::Track| !track.dirty && track.at.is_some() && track.told != track.at;
        let due: Vec<Partition> = self.tracks.values().filter(|track| untold(track)).map(|t| t.partition).collect();
        for partition in due {
            let Some(track) = self.tracks.get_mut(&partition) else { continue };
            let Some(offset) = track.at else { continue };
            self.log.passed(partition, offset).await?;
            track.told = Some(offset);
        }
        for track in self.tracks.values_mut().filter(|track| !track.dirty) {
            for offset in std::mem::take(&mut track.late) {
                self.log.counted(track.partition, offset).await;
            }
        }
        let done: Vec<Partition> = self.tracks.values().filter(|track| track.done).map(|t| t.partition).collect();
        for partition in done {
            self.tracks.remove(&partition);
            self.log.stop(partition);
            // If the log still lists it, it is not begun again: only a restart reads a journal that came back.
            self.aside.insert(partition, u64::MAX);
        }
        Ok(())
    }
}

impl Flight {
    fn of<'t>(rows: &super::Rows, tracks: impl Iterator<Item = &'t super::Track>, now: Timestamp) -> Self {
        let (rows, places) = rows.take_off();
        let mut batch = Batch { rows, now: Some(now), ..Batch::default() };
        let mut all_leaving = Vec::new();
        for track in tracks.filter(|track| track.dirty) {
            let leaving = track.passed.leaving();
            for journal in &leaving {
                let passed = track.passed.encode_one(*journal);
                let retired = Retired { at: track.included(), until: track.until, passed };
                batch.retired.push((track.partition, *journal, retired));
            }
            // A partition that is the journal itself has no checkpoint any more.
            if own_journal(track.partition).is_none_or(|own| !leaving.contains(&own)) {
                batch.checkpoints.push((track.partition, track.checkpoint(&leaving)));
            }
            all_leaving.push((track.partition, leaving));
        }
        Self { batch, places, leaving: all_leaving }
    }
}
