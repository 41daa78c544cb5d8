//! Links to hosts that are blocked, and no longer blocked, while they are in memory.

use terse_core::BlockList;

use super::*;

/// Where the links of these tests lead.
const HOST: &str = "example.com";

fn list(text: &str) -> BlockList {
    BlockList::parse(text).unwrap()
}

fn state(found: Option<Lookup>) -> Option<LinkState> {
    found.and_then(|found| found.link).map(|link| link.state)
}

impl Fixture {
    async fn state(&self, code: &str) -> Option<LinkState> {
        state(self.resolve(code).await.ok())
    }

    fn state_in_memory(&self, code: &str) -> Option<LinkState> {
        state(self.cache.peek(code))
    }
}

#[test]
fn the_links_of_these_tests_lead_to_that_host() {
    assert!(list(HOST).blocks(&links::link("abc").target));
}

#[tokio::test]
async fn a_link_in_memory_is_blocked_with_its_host_and_unblocked_with_it() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    assert_eq!(fixture.state("abc").await, Some(LinkState::Active));
    assert_eq!(fixture.cache.block_file(list("other.example")), 0);
    assert_eq!(fixture.cache.block_file(list(HOST)), 1);
    assert_eq!(fixture.state_in_memory("abc"), Some(LinkState::Blocked));
    assert_eq!(fixture.cache.block_shared(list(HOST)), 0, "it is blocked already");
    assert_eq!(fixture.reads(), 1, "nothing was read again for that");
    assert_eq!(fixture.cache.block_file(BlockList::default()), 0, "the other list has it, too");
    assert_eq!(fixture.cache.block_shared(BlockList::default()), 1);
    assert_eq!(fixture.state("abc").await, Some(LinkState::Active));
    assert_eq!(fixture.state_in_memory("abc"), Some(LinkState::Active));
}

#[tokio::test]
async fn a_link_that_comes_into_memory_is_judged_then() {
    let fixture = Fixture::new();
    fixture.cache.block_file(list(HOST));
    fixture.store_link("abc");
    assert_eq!(fixture.state("abc").await, Some(LinkState::Blocked));
    assert_eq!(fixture.state_in_memory("abc"), Some(LinkState::Blocked));
    fixture.create("new").await.unwrap();
    assert_eq!(fixture.state_in_memory("new"), Some(LinkState::Blocked), "also what this server wrote");
    assert_eq!(fixture.store.inner().links.lock()[&links::code("abc")].state, LinkState::Active, "the store's stays");
}

#[tokio::test]
async fn a_link_that_is_blocked_itself_stays_so_when_its_host_is_not() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.edit("abc", 1, LinkState::Blocked).await.unwrap();
    fixture.cache.block_file(list(HOST));
    fixture.cache.block_file(BlockList::default());
    assert_eq!(fixture.state_in_memory("abc"), None, "only its store knows why it is");
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(fixture.state("abc").await, Some(LinkState::Blocked), "in need");
    fixture.store.faults.heal();
    assert_eq!(fixture.state("abc").await, Some(LinkState::Blocked));
}

#[tokio::test]
async fn a_deleted_link_is_not_taken_for_a_blocked_one() {
    let fixture = Fixture::new();
    fixture.create("abc").await.unwrap();
    fixture.edit("abc", 1, LinkState::Deleted).await.unwrap();
    assert_eq!(fixture.cache.block_file(list(HOST)), 0);
    assert_eq!(fixture.state("abc").await, Some(LinkState::Deleted));
}

#[tokio::test]
async fn an_outdated_answer_and_one_in_need_are_judged_too() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    fixture.cache.block_file(list(HOST));
    assert_eq!(fixture.state("abc").await, Some(LinkState::Blocked));
    fixture.store.inner().catch_up();
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.answer("abc").await, (1, Tier::Store));
    fixture.clock.advance(Duration::from_secs(1_800));
    fixture.fail(Operation::Resolve, StoreErrorKind::Unavailable);
    assert_eq!(fixture.answer("abc").await, (1, Tier::Stale));
    assert_eq!(fixture.state("abc").await, Some(LinkState::Blocked));
}

#[tokio::test]
async fn what_a_judgement_changes_keeps_its_age() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    fixture.answer("abc").await;
    fixture.clock.advance(Duration::from_secs(1_000));
    fixture.cache.block_file(list(HOST));
    fixture.clock.advance(Duration::from_secs(800));
    assert_eq!(fixture.peek("abc"), None, "half an hour after it was read");
}

/// Codes whose links come into memory while a list is replaced.
const RACING: usize = 300;

#[test]
fn a_fill_that_races_a_new_list_leaves_nothing_judged_by_the_old_one() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    for _ in 0..20 {
        let fixture = Arc::new(Fixture::new());
        let codes: Vec<String> = (0..RACING).map(|n| format!("code{n}")).collect();
        codes.iter().for_each(|code| fixture.store_link(code));
        let filling = runtime.spawn({
            let (fixture, codes) = (Arc::clone(&fixture), codes.clone());
            async move {
                for code in &codes {
                    fixture.answer(code).await;
                }
            }
        });
        while fixture.cache.stats().links < RACING / 3 {
            std::thread::yield_now();
        }
        fixture.cache.block_file(list(HOST));
        runtime.block_on(filling).unwrap();
        for code in &codes {
            assert_eq!(fixture.state_in_memory(code), Some(LinkState::Blocked), "{code}");
        }
    }
}
