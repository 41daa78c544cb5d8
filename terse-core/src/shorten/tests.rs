//! The rules of creating, editing and deleting, with faults and races on cue.

mod changing;
mod creating;
mod idempotency;
mod telling;

use super::*;
use crate::access::Role;
use crate::fakes::{Cue, FakeClock, FakeCodes, FakeEntropy, FakeStore, Op, block_on};
use crate::ports::StoreErrorKind::{Overloaded, Unavailable, UnknownOutcome};
use crate::{Owner, UrlPolicy};

/// A shortener over fakes, at noon.
struct Bench {
    shortener: Shortener,
    store: Arc<FakeStore>,
    clock: Arc<FakeClock>,
}

const NOON: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: i64 = 1_000;

impl Bench {
    /// Generated codes are `code1`, `code2`, `code3` and from then on `code4`.
    fn new() -> Self {
        Self::with_codes(&["code1", "code2", "code3", "code4"])
    }

    fn with_codes(codes: &[&str]) -> Self {
        let store = Arc::new(FakeStore::default());
        let clock = Arc::new(FakeClock::at(NOON));
        let shortener = Shortener {
            codes: Arc::new(FakeCodes::of(codes)),
            writer: store.clone(),
            catalog: store.clone(),
            idempotency: store.clone(),
            clock: clock.clone(),
            entropy: Arc::new(FakeEntropy::seeded(7)),
            metrics: Arc::default(),
        };
        Self { shortener, store, clock }
    }

    fn create(&self, draft: &Draft) -> Result<Link, ServiceError> {
        block_on(self.shortener.create(&writer("ann"), draft, None))
    }

    /// What the metric of created links says.
    fn counted(&self) -> u64 {
        let text = self.shortener.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(crate::metrics::LINKS_CREATED)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn create_with_key(&self, draft: &Draft, key: &Idempotency) -> Result<Link, ServiceError> {
        block_on(self.shortener.create(&writer("ann"), draft, Some(key)))
    }

    fn edit(&self, name: &str, patch: &Patch) -> Result<Link, ServiceError> {
        self.edit_at(name, None, patch)
    }

    fn edit_at(&self, name: &str, expected: Option<&[Version]>, patch: &Patch) -> Result<Link, ServiceError> {
        block_on(self.shortener.edit(&writer("ann"), &code(name), expected, patch))
    }

    fn delete(&self, name: &str) -> Result<(), ServiceError> {
        block_on(self.shortener.delete(&writer("ann"), &code(name), None))
    }

    fn read(&self, name: &str) -> Result<Link, ServiceError> {
        block_on(self.shortener.read(&writer("ann"), &code(name)))
    }

    /// The row of a link, deleted or not.
    fn row(&self, name: &str) -> Option<Link> {
        self.store.with(|rows| rows.links.get(&code(name)).map(|(link, _)| link.clone()))
    }

    fn rows(&self) -> usize {
        self.store.with(|rows| rows.links.len())
    }

    /// Lets somebody else have the link `name`.
    fn occupy(&self, name: &str) -> Link {
        let other = Bench::new();
        let made = block_on(other.shortener.create(&writer("bob"), &draft().alias(name), None)).unwrap();
        self.store.with(|rows| rows.links.insert(made.code.clone(), (made.clone(), crate::ports::AttemptId([9; 16]))));
        made
    }
}

fn caller(owner: &str, role: Role) -> Caller {
    Caller { owner: Owner::parse(owner).unwrap(), role, key: None }
}

fn writer(owner: &str) -> Caller {
    caller(owner, Role::Writer)
}

fn code(name: &str) -> ShortCode {
    ShortCode::parse(name).unwrap()
}

fn target(url: &str) -> TargetUrl {
    UrlPolicy::new("localhost", false).check(url).unwrap()
}

fn draft() -> Draft {
    Draft {
        target: target("https://example.com/a"),
        alias: None,
        title: None,
        tags: Tags::default(),
        expires_at: None,
        valid_from: None,
    }
}

impl Draft {
    fn alias(self, name: &str) -> Self {
        Self { alias: Some(Alias::parse(name).unwrap()), ..self }
    }
}

fn after_noon(seconds: i64) -> Timestamp {
    NOON.plus_millis(seconds * SECOND)
}

/// The fields and codes of an invalid request.
#[track_caller]
fn faults<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> Vec<(&'static str, &'static str)> {
    match result.unwrap_err() {
        ServiceError::Invalid(faults) => faults.iter().map(|fault| (fault.field, fault.code)).collect(),
        other => panic!("{other:?}"),
    }
}

/// The kind of a store's failure.
#[track_caller]
fn store_kind<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> StoreErrorKind {
    match result.unwrap_err() {
        ServiceError::Store(error) => error.kind,
        other => panic!("{other:?}"),
    }
}

macro_rules! assert_fails {
    ($result:expr, $pattern:pat) => {
        match $result {
            Err($pattern) => {}
            other => panic!("{other:?} is not {}", stringify!($pattern)),
        }
    };
}
use assert_fails;

#[test]
fn a_list_holds_own_links_only_newest_first() {
    let bench = Bench::new();
    bench.create(&draft()).unwrap();
    bench.clock.set(after_noon(1));
    bench.create(&draft()).unwrap();
    bench.create(&draft()).unwrap();
    bench.occupy("foreign");
    bench.delete("code2").unwrap();

    let list = |after: Option<&Cursor>| {
        let links = block_on(bench.shortener.list(&writer("ann"), after, 10)).unwrap();
        links.iter().map(|link| link.code.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(None), ["code3", "code1"]);
    assert_eq!(list(Some(&Cursor { created_at: after_noon(1), code: code("code3") })), ["code1"]);
}

#[test]
fn reading_hides_what_is_deleted_or_foreign() {
    let bench = Bench::new();
    bench.create(&draft()).unwrap();
    bench.occupy("foreign");
    assert_eq!(bench.read("code1").unwrap().code, code("code1"));
    assert_fails!(bench.read("foreign"), ServiceError::NotFound);
    assert_fails!(bench.read("nothing"), ServiceError::NotFound);
    assert!(block_on(bench.shortener.read(&caller("root", Role::Admin), &code("foreign"))).is_ok());
    bench.delete("code1").unwrap();
    assert_fails!(bench.read("code1"), ServiceError::NotFound);
}

#[test]
fn a_reader_reads_but_changes_nothing() {
    let bench = Bench::new();
    bench.create(&draft()).unwrap();
    let reader = caller("ann", Role::Reader);
    let shortener = &bench.shortener;
    assert!(block_on(shortener.read(&reader, &code("code1"))).is_ok());
    assert_fails!(block_on(shortener.create(&reader, &draft(), None)), ServiceError::Forbidden);
    assert_fails!(block_on(shortener.edit(&reader, &code("code1"), None, &Patch::default())), ServiceError::Forbidden);
    assert_fails!(block_on(shortener.delete(&reader, &code("code1"), None)), ServiceError::Forbidden);
    assert_eq!(bench.row("code1").unwrap().version, Version::FIRST);
}
