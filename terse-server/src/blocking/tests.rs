//! Servers that share a list, and one that reads its file again.

use terse_cache::CacheConfig;
use terse_core::TargetUrl;
use terse_core::ports::SettingsStore;
use terse_store::MemoryStore;
use terse_testkit::{Fault, FaultyStore, Operation, TestClock, When};

use super::*;

type Home = FaultyStore<MemoryStore>;

struct Node {
    home: Arc<Home>,
    clock: Arc<TestClock>,
    blocking: Arc<Blocking>,
}

impl Node {
    fn on(home: &Arc<Home>) -> Self {
        Self::with(home, None)
    }

    fn with(home: &Arc<Home>, file: Option<&Path>) -> Self {
        let clock = Arc::new(TestClock::default());
        let cache = ReadThrough::new(Arc::clone(home) as _, Arc::clone(&clock) as _, CacheConfig::default());
        let shared = Arc::clone(home) as Arc<dyn HomeStore>;
        let blocking = Blocking::new(file, &cache, &shared, &(Arc::clone(&clock) as Arc<dyn Clock>));
        Self { home: Arc::clone(home), clock, blocking: Arc::new(blocking) }
    }

    async fn change(&self, text: &str, blocked: bool) -> BlockChange {
        self.blocking.change(&host(text), blocked).await.unwrap()
    }

    async fn poll(&self) {
        self.blocking.poll_once().await.unwrap();
    }

    fn blocks(&self, text: &str) -> bool {
        let target = TargetUrl::from_stored(&format!("https://{text}/")).unwrap();
        self.blocking.cache.blocked().blocks(&target)
    }

    /// The numbers of the lists that stand.
    async fn standing(&self) -> usize {
        self.home.names("blocked-hosts/", 10_000).await.unwrap().len()
    }
}

fn home() -> Arc<Home> {
    Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())))
}

fn host(text: &str) -> BlockedHost {
    BlockedHost::parse(text).unwrap()
}

use BlockChange::{AsItWas, Changed, Full};

#[tokio::test]
async fn a_change_counts_here_at_once_and_elsewhere_after_a_poll() {
    let home = home();
    let (here, there) = (Node::on(&home), Node::on(&home));
    there.poll().await;
    assert_eq!(here.change("evil.example", true).await, Changed);
    assert_eq!(here.change("evil.example", true).await, AsItWas);
    assert!(here.blocks("www.evil.example") && !there.blocks("www.evil.example"));
    there.poll().await;
    assert!(there.blocks("www.evil.example"));
    assert_eq!(there.blocking.hosts(), [host("evil.example")]);
    assert_eq!(there.change("evil.example", false).await, Changed);
    assert_eq!(there.change("evil.example", false).await, AsItWas);
    here.poll().await;
    assert!(!here.blocks("evil.example") && here.blocking.hosts().is_empty());
}

#[tokio::test]
async fn a_server_that_starts_finds_the_newest_list() {
    let home = home();
    let here = Node::on(&home);
    for text in ["a.example", "b.example", "c.example"] {
        here.change(text, true).await;
    }
    here.change("b.example", false).await;
    let late = Node::on(&home);
    late.poll().await;
    assert_eq!(late.blocking.hosts(), [host("a.example"), host("c.example")]);
}

#[tokio::test]
async fn changes_of_several_servers_are_all_kept() {
    let home = home();
    let nodes: Vec<_> = (0..4).map(|_| Arc::new(Node::on(&home))).collect();
    let mut changes = tokio::task::JoinSet::new();
    for (number, node) in nodes.iter().enumerate() {
        let node = Arc::clone(node);
        changes.spawn(async move {
            for n in 0..10 {
                assert_eq!(node.change(&format!("h{n}.of{number}.example"), true).await, Changed);
            }
        });
    }
    changes.join_all().await;
    nodes[0].poll().await;
    assert_eq!(nodes[0].blocking.hosts().len(), 40);
}

#[tokio::test]
async fn the_shared_list_is_bounded() {
    let node = Node::on(&home());
    {
        let hosts: Vec<String> = (0..MAX_SHARED).map(|n| format!("h{n}.example")).collect();
        let value = format!("1\n{}", hosts.join("\n"));
        node.home.inner().settle("blocked-hosts/1", value.as_bytes()).await.unwrap();
    }
    assert_eq!(node.change("one.more.example", true).await, Full);
    assert_eq!(node.change("h7.example", true).await, AsItWas);
    assert_eq!(node.change("h7.example", false).await, Changed);
    assert_eq!(node.change("one.more.example", true).await, Changed);
}

#[tokio::test]
async fn old_lists_are_forgotten_and_who_slept_through_them_finds_the_newest() {
    let home = home();
    let (here, asleep, changing) = (Node::on(&home), Node::on(&home), Node::on(&home));
    here.change("first.example", true).await;
    asleep.poll().await;
    changing.poll().await;
    for n in 0..KEPT + 10 {
        here.change("evil.example", n % 2 == 0).await;
    }
    here.change("last.example", true).await;
    here.clock.advance(Duration::from_millis(LOOK_EVERY_MS));
    here.poll().await;
    assert_eq!(here.standing().await, KEPT as usize);
    asleep.poll().await;
    assert!(!asleep.blocks("last.example"), "its next list is gone");
    assert_eq!(changing.change("its.example", true).await, Changed, "before its clock lets it look");
    here.poll().await;
    assert!(here.blocks("its.example") && changing.blocks("last.example"));
    here.change("its.example", false).await;
    asleep.clock.advance(Duration::from_millis(LOOK_EVERY_MS));
    asleep.poll().await;
    assert_eq!(asleep.blocking.hosts(), [host("first.example"), host("last.example")]);
}

#[tokio::test]
async fn a_shard_that_is_away_leaves_the_list_as_it_was() {
    let node = Node::on(&home());
    node.change("evil.example", true).await;
    node.home.faults.add(Operation::Setting, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    assert!(node.blocking.poll_once().await.is_err() && node.blocks("evil.example"));
    assert!(node.blocking.change(&host("other.example"), true).await.is_err());
    node.home.faults.heal();
    assert_eq!(node.change("other.example", true).await, Changed);
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_its_turn_only_so_long() {
    let node = Node::on(&home());
    let turn = node.blocking.chain.lock().await;
    let refused = node.blocking.change(&host("evil.example"), true).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Overloaded);
    drop(turn);
    assert_eq!(node.change("evil.example", true).await, Changed);
}

#[tokio::test]
async fn a_list_of_another_format_is_told_and_changes_nothing() {
    let node = Node::on(&home());
    node.change("evil.example", true).await;
    node.home.inner().settle("blocked-hosts/2", b"2\nwhat").await.unwrap();
    assert_eq!(node.blocking.poll_once().await.unwrap_err().kind, StoreErrorKind::Corrupt);
    assert!(node.blocks("evil.example"));
}

#[tokio::test]
async fn a_file_is_read_again_and_a_bad_one_is_not_taken() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("blocked");
    let node = Node::with(&home(), Some(&path));
    node.change("shared.example", true).await;
    for (text, blocked) in [("evil.example", true), ("evil.example\nno host", true), ("# none", false)] {
        std::fs::write(&path, text).unwrap();
        Arc::clone(&node.blocking).reload_once().await.unwrap();
        assert_eq!(node.blocks("evil.example"), blocked, "{text}");
        assert!(node.blocks("shared.example"), "the shared list is apart");
    }
    std::fs::remove_file(&path).unwrap();
    Arc::clone(&node.blocking).reload_once().await.unwrap();
    assert_eq!(node.blocking.of_file(), 0);
}

#[test]
fn a_start_says_what_is_wrong_with_the_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("blocked");
    std::fs::write(&path, "a.example\n*.b.example\n").unwrap();
    let refused = check(Some(&path)).unwrap_err();
    assert_eq!(refused.exit, Exit::Config);
    assert!(refused.message.starts_with("blocklist: ") && refused.message.contains("line 2: '*.b.example'"));
}
