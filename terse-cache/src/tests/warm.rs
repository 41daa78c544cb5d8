//! Which codes are the hottest, and what reading them ahead may do.

use super::*;
use crate::{HotCode, Warmed};

fn hot(code: &str) -> HotCode {
    HotCode { heat: 9, code: links::code(code) }
}

impl Fixture {
    /// Puts a link into the store and memory, and hits it so often.
    async fn heated(&self, code: &str, hits: usize) {
        self.store_link(code);
        self.answer(code).await;
        (0..hits).for_each(|_| assert!(self.peek(code).is_some()));
    }

    fn hottest(&self, limit: usize) -> Vec<String> {
        self.cache.hottest(limit).into_iter().map(|hot| hot.code.to_string()).collect()
    }

    async fn warm(&self, code: &str) -> Result<Warmed, StoreErrorKind> {
        self.cache.warm(&hot(code)).await.map_err(|error| error.kind)
    }
}

#[tokio::test]
async fn the_hottest_come_first_and_no_more_than_are_wanted() {
    let fixture = Fixture::new();
    for (code, hits) in [("cold", 0), ("warm", 160), ("hot", 1_600), ("hotter", 16_000)] {
        fixture.heated(code, hits).await;
    }
    assert_eq!(fixture.hottest(10), ["hotter", "hot", "warm", "cold"]);
    assert_eq!(fixture.hottest(2), ["hotter", "hot"]);
    assert_eq!(fixture.hottest(0), Vec::<String>::new());
    (0..20).for_each(|_| fixture.cache.age_heat());
    (0..160).for_each(|_| assert!(fixture.peek("cold").is_some()));
    assert_eq!(fixture.hottest(1), ["cold"]);
}

#[tokio::test]
async fn what_is_no_link_in_memory_any_more_is_not_hot() {
    let fixture = Fixture::new();
    fixture.heated("lapsed", 160).await;
    fixture.clock.advance(CacheConfig::default().fresh_for + CacheConfig::default().stale_for);
    fixture.heated("abc", 0).await;
    assert_eq!(fixture.answer("missing").await, (0, Tier::Store));
    assert_eq!(fixture.hottest(10), ["abc"]);
}

#[tokio::test]
async fn a_link_is_read_ahead_of_the_first_who_asks() {
    let fixture = Fixture::new();
    fixture.store_link("abc");
    assert_eq!(fixture.warm("abc").await, Ok(Warmed::Read));
    assert_eq!(fixture.peek("abc"), Some((1, Tier::L1)));
    assert_eq!(fixture.warm("abc").await, Ok(Warmed::Known));
    assert_eq!(fixture.reads(), 1);
    assert_eq!(fixture.cache.hottest(1), [hot("abc")], "it keeps the heat of before");
}

#[tokio::test]
async fn a_code_that_is_gone_leaves_no_negative_entry() {
    let fixture = Fixture::new();
    assert_eq!(fixture.warm("gone").await, Ok(Warmed::Gone));
    assert_eq!((fixture.cache.memory.negative(), fixture.peek("gone")), (0, None));
    assert_eq!(fixture.hottest(1), Vec::<String>::new());
}

#[tokio::test]
async fn a_negative_entry_of_live_traffic_stays() {
    let fixture = Fixture::new();
    assert_eq!(fixture.answer("gone").await, (0, Tier::Store));
    assert_eq!(fixture.warm("gone").await, Ok(Warmed::Gone));
    assert_eq!((fixture.peek("gone"), fixture.reads()), (Some((0, Tier::L1)), 1));
}

#[tokio::test]
async fn a_memory_that_is_nearly_full_takes_nothing_ahead() {
    let fixture = Fixture::with(CacheConfig { max_links: 1_000, ..CacheConfig::default() });
    for n in 0..3_000 {
        fixture.heated(&format!("live{n}"), 0).await;
    }
    let (links, reads) = (fixture.cache.stats().links, fixture.reads());
    fixture.store_link("abc");
    assert_eq!(fixture.warm("abc").await, Ok(Warmed::Full));
    assert_eq!((fixture.cache.stats().links, fixture.reads()), (links, reads));
}

#[tokio::test]
async fn reading_ahead_evicts_nothing_that_is_there() {
    let fixture = Fixture::with(CacheConfig { max_links: 1_000, ..CacheConfig::default() });
    for n in 0..400 {
        fixture.heated(&format!("live{n}"), 1).await;
    }
    let mut read = 0;
    for n in 0..3_000 {
        fixture.store_link(&format!("old{n}"));
        read += usize::from(fixture.warm(&format!("old{n}")).await == Ok(Warmed::Read));
    }
    assert!((400..=600).contains(&read), "{read} were read");
    let left = (0..400).filter(|n| fixture.peek(&format!("live{n}")).is_some()).count();
    assert!(left >= 395, "{left} of 400 live links are left");
}

#[tokio::test]
async fn an_outdated_answer_or_a_fault_is_told_and_warms_nothing() {
    let fixture = Fixture::new();
    fixture.store.inner().lag(links::resolution("abc", 1));
    assert_eq!(fixture.warm("abc").await, Err(StoreErrorKind::Unavailable));
    fixture.store.inner().catch_up();
    fixture.fail(Operation::Resolve, StoreErrorKind::Overloaded);
    assert_eq!(fixture.warm("other").await, Err(StoreErrorKind::Overloaded));
    assert_eq!(fixture.cache.stats().links, 0);
}
