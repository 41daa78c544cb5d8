//! Servers that share a list, and one that reads its file again.

use tempfile::TempDir;
use terse_cache::CacheConfig;
use terse_core::TargetUrl;
use terse_core::ports::{DependencyHealth, SettingsStore};
use terse_store::MemoryStore;
use terse_testkit::{Fault, FaultyStore, Operation, TestClock, When};

use super::*;

type Home = FaultyStore<MemoryStore>;

const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";

struct Node {
    home: Arc<Home>,
    clock: Arc<TestClock>,
    world: World,
    blocking: Arc<Blocking>,
    place: Arc<TempDir>,
}

impl Node {
    fn on(home: &Arc<Home>) -> Self {
        Self::with(home, None)
    }

    fn with(home: &Arc<Home>, file: Option<&Path>) -> Self {
        Self::at(home, file, Arc::new(tempfile::tempdir().unwrap()))
    }

    /// One whose data directory is `place`.
    fn at(home: &Arc<Home>, file: Option<&Path>, place: Arc<TempDir>) -> Self {
        let clock = Arc::new(TestClock::default());
        let cache = ReadThrough::new(Arc::clone(home) as _, Arc::clone(&clock) as _, CacheConfig::default());
        let shared = Arc::clone(home) as Arc<dyn HomeStore>;
        let world = World { clock: Arc::clone(&clock) as _, ..World::real() };
        let remembered = Remembered::new(place.path().to_owned(), DEPLOYMENT.to_owned());
        let blocking = Arc::new(Blocking::new(file, remembered, &cache, &shared, &world));
        Self { home: Arc::clone(home), clock, world, blocking, place }
    }

    /// A server that starts on the same data directory.
    fn again(&self) -> Self {
        Self::at(&self.home, None, Arc::clone(&self.place))
    }

    /// Why health reports tell that what admins block is not known; and that the metric says the same.
    fn trouble(&self) -> Option<&'static str> {
        let told = self.blocking.observe();
        assert_eq!((told.len(), told[0].detail.is_some()), (1, told[0].trouble.is_some()));
        assert_eq!(told[0].value, self.blocking.hosts().len() as u64);
        let known = format!("terse_blocked_hosts_known {}\n", u8::from(told[0].trouble.is_none()));
        assert!(self.world.metrics.encode().unwrap().contains(&known));
        told[0].trouble
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

/// Everything that is read of the first shard fails from now on.
fn away(home: &Home) {
    for operation in [Operation::Setting, Operation::Names] {
        home.faults.add(operation, When::Every, Fault::Fail(StoreErrorKind::Unavailable));
    }
}

#[tokio::test]
async fn a_server_that_starts_while_the_first_shard_is_away_blocks_what_it_knew_last() {
    let home = home();
    let before = Node::on(&home);
    assert_eq!(before.trouble(), Some("unread"));
    before.change("evil.example", true).await;
    before.change("let.go.example", true).await;
    before.poll().await;
    assert_eq!(before.trouble(), None);
    away(&home);
    let after = before.again();
    assert!(after.blocks("www.evil.example") && after.blocks("let.go.example"), "before anything was read");
    assert!(after.blocking.poll_once().await.is_err());
    assert!(after.blocks("evil.example") && after.trouble() == Some("unread"));
    assert!(after.blocking.change(&host("new.example"), true).await.is_err(), "on a list that may be an old one");
    home.faults.heal();
    // What another server changed meanwhile counts, as soon as it is read.
    let other = Node::on(&home);
    other.change("let.go.example", false).await;
    after.poll().await;
    assert!(after.blocks("evil.example") && !after.blocks("let.go.example"));
    assert_eq!(after.trouble(), None);
    away(&home);
    assert_eq!(after.again().blocking.hosts(), [host("evil.example")], "what was read last is remembered");
}

#[tokio::test]
async fn what_is_remembered_ends_with_the_first_answer_be_it_that_there_is_no_list() {
    let node = Node::on(&home());
    node.change("evil.example", true).await;
    node.poll().await;
    let fresh = Node::at(&home(), None, Arc::clone(&node.place));
    assert!(fresh.blocks("evil.example"));
    fresh.poll().await;
    assert!(!fresh.blocks("evil.example") && fresh.trouble().is_none());
    assert_eq!(fresh.again().blocking.hosts(), []);
}

#[tokio::test]
async fn a_list_that_can_not_be_understood_leaves_what_is_remembered() {
    let home = home();
    let node = Node::on(&home);
    node.change("evil.example", true).await;
    node.poll().await;
    home.inner().settle("blocked-hosts/2", b"2\nwhat").await.unwrap();
    let after = node.again();
    assert_eq!(after.blocking.poll_once().await.unwrap_err().kind, StoreErrorKind::Corrupt);
    assert!(after.blocks("evil.example") && after.trouble() == Some("unread"));
}

#[tokio::test]
async fn a_disk_that_fails_keeps_nobody_from_blocking() {
    let node = Node::on(&home());
    std::fs::create_dir(node.place.path().join(remembered::FILE.name)).unwrap();
    assert_eq!(node.change("evil.example", true).await, Changed);
    let told = node.blocking.poll_once().await.unwrap_err();
    assert!(told.message.contains("next start"), "{told}");
    assert!(node.blocks("evil.example") && node.trouble().is_none());
}

#[tokio::test]
async fn a_chain_that_was_edited_is_read_wherever_it_begins() {
    for (first, next) in [(0, "blocked-hosts/1"), (1, "blocked-hosts/2"), (7_000, "blocked-hosts/7001")] {
        let home = home();
        home.inner().settle(&format!("blocked-hosts/{first}"), b"1\nevil.example").await.unwrap();
        let node = Node::on(&home);
        node.poll().await;
        assert!(node.blocks("evil.example"), "{first}");
        assert_eq!(node.change("other.example", true).await, Changed);
        assert_eq!(home.inner().setting(next).await.unwrap().as_deref(), Some(&b"1\nevil.example\nother.example"[..]));
    }
    // One that came after this server had looked.
    let home = home();
    let node = Node::on(&home);
    node.poll().await;
    home.inner().settle("blocked-hosts/0", b"1\nevil.example").await.unwrap();
    assert_eq!(node.change("other.example", true).await, Changed);
    assert_eq!(node.blocking.hosts(), [host("evil.example"), host("other.example")]);
}

#[tokio::test]
async fn the_last_number_and_names_that_are_none_stop_nobody() {
    let home = home();
    for name in ["blocked-hosts/+99", "blocked-hosts/077", "blocked-hosts/x"] {
        home.inner().settle(name, b"1\nno.example").await.unwrap();
    }
    let node = Node::on(&home);
    assert_eq!(node.change("evil.example", true).await, Changed);
    assert_eq!(node.blocking.hosts(), [host("evil.example")]);
    home.inner().settle(&format!("blocked-hosts/{}", u64::MAX), b"1\nlast.example").await.unwrap();
    let late = Node::on(&home);
    late.poll().await;
    assert!(late.blocks("last.example"));
    let refused = late.blocking.change(&host("more.example"), true).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Corrupt);
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
