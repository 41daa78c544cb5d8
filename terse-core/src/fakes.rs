//! Stand-ins for tests of this crate: an executor, a clock, a seeded source of
//! randomness, and a store in memory that fails or lets others act on cue.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use async_trait::async_trait;

use crate::codegen::CodeSource;
use crate::cursor::Cursor;
use crate::ports::{
    AttemptId, IdempotencyRecord, IdempotencyStore, Insert, Lease, LeaseStore, LinkCatalog, LinkChange, LinkWriter,
    StoreError, StoreErrorKind, Update,
};
use crate::{Clock, Entropy, Link, LinkState, Owner, ShortCode, Timestamp, Version};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs `future` on this thread until it is done.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Lets every other future of the same executor run once.
pub(crate) struct Turn(bool);

impl Turn {
    pub(crate) fn end() -> Self {
        Self(false)
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A clock that stands still until it is set.
pub(crate) struct FakeClock(AtomicI64);

impl FakeClock {
    pub(crate) fn at(now: Timestamp) -> Self {
        Self(AtomicI64::new(now.as_millis()))
    }

    pub(crate) fn set(&self, now: Timestamp) {
        self.0.store(now.as_millis(), Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst).unsigned_abs()
    }
}

/// SplitMix64 from a seed.
pub(crate) struct FakeEntropy(AtomicU64);

impl FakeEntropy {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Entropy for FakeEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A counter in memory; each lease takes a turn, so that callers overlap.
#[derive(Default)]
pub(crate) struct FakeLeases {
    pub(crate) next: AtomicU64,
    pub(crate) asked: AtomicU64,
    pub(crate) failing: std::sync::atomic::AtomicBool,
    pub(crate) empty: std::sync::atomic::AtomicBool,
    pub(crate) log: Mutex<Vec<Lease>>,
}

#[async_trait]
impl LeaseStore for FakeLeases {
    async fn lease(&self, counter: &str, size: u64, holder: &str, at: Timestamp) -> Result<Range<u64>, StoreError> {
        assert_eq!(counter, "ids");
        self.asked.fetch_add(1, Ordering::SeqCst);
        Turn::end().await;
        if self.failing.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable, "the counter is away"));
        }
        let size = if self.empty.load(Ordering::SeqCst) { 0 } else { size };
        let start = self.next.fetch_add(size, Ordering::SeqCst);
        let ids = start..start + size;
        self.log.lock().unwrap().push(Lease { ids: ids.clone(), holder: holder.to_owned(), leased_at: at });
        Ok(ids)
    }

    async fn leases(&self, _counter: &str, from: u64, limit: usize) -> Result<Vec<Lease>, StoreError> {
        let mut found = self.log.lock().unwrap().clone();
        found.retain(|lease| lease.ids.start >= from);
        found.sort_by_key(|lease| lease.ids.start);
        found.truncate(limit);
        Ok(found)
    }
}

/// Codes in a given order; the last one again and again.
pub(crate) struct FakeCodes(Mutex<VecDeque<ShortCode>>);

impl FakeCodes {
    pub(crate) fn of(codes: &[&str]) -> Self {
        Self(Mutex::new(codes.iter().map(|code| ShortCode::parse(code).unwrap()).collect()))
    }
}

#[async_trait]
impl CodeSource for FakeCodes {
    async fn next_code(&self) -> Result<ShortCode, StoreError> {
        let mut codes = self.0.lock().unwrap();
        let code = codes.front().cloned().unwrap();
        if codes.len() > 1 {
            codes.pop_front();
        }
        Ok(code)
    }
}

/// The operations of [`FakeStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Insert,
    Update,
    Get,
    Find,
    Claim,
    Replace,
}

/// What shall happen at an operation of [`FakeStore`].
pub(crate) enum Cue {
    /// It fails, and nothing is done.
    FailBefore(StoreErrorKind),
    /// It is done, and fails.
    FailAfter(StoreErrorKind),
    /// Somebody else acts first.
    Race(Box<dyn FnOnce(&mut Rows) + Send>),
}

/// What [`FakeStore`] holds.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) links: HashMap<ShortCode, (Link, AttemptId)>,
    pub(crate) keys: HashMap<(Owner, String), IdempotencyRecord>,
    cues: HashMap<Op, VecDeque<Cue>>,
    calls: HashMap<Op, usize>,
}

impl Rows {
    /// Somebody else's edit of the link `code`.
    pub(crate) fn edit(&mut self, code: &ShortCode, edit: impl FnOnce(&mut Link)) {
        let (link, _) = self.links.get_mut(code).unwrap();
        link.version = link.version.next();
        edit(link);
    }
}

/// Links and idempotency keys in memory.
#[derive(Default)]
pub(crate) struct FakeStore(Mutex<Rows>);

impl FakeStore {
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Rows) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }

    /// `cue` happens at the next call of `op` that has no cue yet.
    pub(crate) fn cue(&self, op: Op, cue: Cue) {
        self.with(|rows| rows.cues.entry(op).or_default().push_back(cue));
    }

    pub(crate) fn calls(&self, op: Op) -> usize {
        self.with(|rows| rows.calls.get(&op).copied().unwrap_or(0))
    }

    async fn run<T>(&self, op: Op, act: impl FnOnce(&mut Rows) -> T + Send) -> Result<T, StoreError> {
        Turn::end().await;
        self.with(|rows| {
            *rows.calls.entry(op).or_default() += 1;
            let fault = |kind| Err(StoreError::new(kind, "injected"));
            match rows.cues.get_mut(&op).and_then(VecDeque::pop_front) {
                Some(Cue::FailBefore(kind)) => return fault(kind),
                Some(Cue::FailAfter(kind)) => {
                    act(rows);
                    return fault(kind);
                }
                Some(Cue::Race(race)) => race(rows),
                None => {}
            }
            Ok(act(rows))
        })
    }
}

#[async_trait]
impl LinkWriter for FakeStore {
    async fn insert_if_absent(&self, link: &Link, attempt: AttemptId) -> Result<Insert, StoreError> {
        self.run(Op::Insert, |rows| {
            if let Some((_, winner)) = rows.links.get(&link.code) {
                return Insert::Taken { attempt: *winner };
            }
            rows.links.insert(link.code.clone(), (link.clone(), attempt));
            Insert::Created
        })
        .await
    }

    async fn update(&self, code: &ShortCode, expected: Version, change: &LinkChange) -> Result<Update, StoreError> {
        self.run(Op::Update, |rows| {
            let Some((link, _)) = rows.links.get_mut(code) else { return Update::NotFound };
            if link.version != expected || link.state == LinkState::Deleted {
                return Update::Conflict { current: link.version };
            }
            *link = Link {
                target: change.target.clone(),
                title: change.title.clone(),
                tags: change.tags.clone(),
                state: change.state,
                expires_at: change.expires_at,
                valid_from: change.valid_from,
                updated_at: change.updated_at,
                version: expected.next(),
                ..link.clone()
            };
            Update::Updated(Box::new(link.clone()))
        })
        .await
    }
}

#[async_trait]
impl LinkCatalog for FakeStore {
    async fn get(&self, code: &ShortCode) -> Result<Option<Link>, StoreError> {
        self.run(Op::Get, |rows| rows.links.get(code).map(|(link, _)| link.clone())).await
    }

    async fn list(&self, owner: &Owner, after: Option<&Cursor>, limit: usize) -> Result<Vec<Link>, StoreError> {
        let mut links = self.with(|rows| {
            let own = rows.links.values().map(|(link, _)| link).filter(|link| link.owner == *owner);
            own.filter(|link| link.state != LinkState::Deleted).cloned().collect::<Vec<_>>()
        });
        links.retain(|l| after.is_none_or(|c| (l.created_at, &l.code) < (c.created_at, &c.code)));
        links.sort_by(|a, b| (b.created_at, &b.code).cmp(&(a.created_at, &a.code)));
        links.truncate(limit);
        Ok(links)
    }
}

#[async_trait]
impl IdempotencyStore for FakeStore {
    async fn find_key(&self, owner: &Owner, key: &str) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.run(Op::Find, |rows| rows.keys.get(&(owner.clone(), key.to_owned())).cloned()).await
    }

    async fn claim_key(
        &self,
        owner: &Owner,
        key: &str,
        record: &IdempotencyRecord,
        expired_before: Timestamp,
    ) -> Result<Option<IdempotencyRecord>, StoreError> {
        self.run(Op::Claim, |rows| {
            let place = (owner.clone(), key.to_owned());
            match rows.keys.get(&place) {
                Some(standing) if standing.created_at >= expired_before => Some(standing.clone()),
                _ => {
                    rows.keys.insert(place, record.clone());
                    None
                }
            }
        })
        .await
    }

    async fn replace_key(
        &self,
        owner: &Owner,
        key: &str,
        expected: AttemptId,
        record: &IdempotencyRecord,
    ) -> Result<bool, StoreError> {
        self.run(Op::Replace, |rows| match rows.keys.get_mut(&(owner.clone(), key.to_owned())) {
            Some(standing) if standing.attempt == expected => {
                *standing = record.clone();
                true
            }
            _ => false,
        })
        .await
    }

    async fn purge_keys(&self, before: Timestamp, _limit: usize) -> Result<usize, StoreError> {
        self.with(|rows| {
            let all = rows.keys.len();
            rows.keys.retain(|_, record| record.created_at >= before);
            Ok(all - rows.keys.len())
        })
    }
}
