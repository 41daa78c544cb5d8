use terse_core::click::{Click, Dropped, Signals};
use terse_core::ports::clicks::ReadModel as _;
use terse_core::{ShortCode, Timestamp, Version};

use super::read_model::LateReadModel;
use super::*;
use crate::config::keys::{DATA_DIR, LISTEN};
use crate::config::raw::Inputs;
use crate::exit::Exit;

const LEAST: Duration = Duration::from_secs(30);

fn config(data_dir: &Path) -> Config {
    let flags = vec![(&LISTEN, "127.0.0.1:0".to_owned()), (&DATA_DIR, data_dir.display().to_string())];
    let mut config = Config::load(Inputs { flags, working_dir: data_dir.to_owned(), ..Inputs::default() }).unwrap();
    config.http.surfaces = terse_http::Surfaces { redirect: true, api: true };
    config.analytics = true;
    config
}

fn grace() -> Grace {
    Grace::begin(LEAST)
}

pub(super) fn click() -> Click<'static> {
    Click {
        at: Timestamp::from_millis(1_767_323_045_000),
        code: "abc",
        version: Version(1),
        client: None,
        referrer: b"",
        user_agent: b"agent",
        language: b"",
        signals: Signals::default(),
    }
}

async fn told(clicks: &Clicks, world: &World) -> Vec<(&'static str, bool)> {
    let mut told = Vec::new();
    for dependency in clicks.dependencies(&world.clock) {
        told.push((dependency.name(), dependency.check().await.is_ok()));
    }
    told
}

#[tokio::test]
async fn a_start_needs_neither_a_read_model_nor_a_journal() {
    let place = tempfile::tempdir().unwrap();
    let (config, world) = (config(place.path()), World::real());
    std::fs::write(stats_file(&config), [b'x'; 8_192]).unwrap();
    std::fs::write(journals(&config), b"no directory").unwrap();
    let mut clicks = Clicks::open(&config, None, &world).await.unwrap();
    clicks.start(&config, "here".to_owned(), &world).unwrap();
    assert_eq!(told(&clicks, &world).await, [("stats", false), ("clicks", false)]);
    let code = ShortCode::parse("abc").unwrap();
    assert_eq!(clicks.stats().overall(&code).await.unwrap_err().kind, StoreErrorKind::Unavailable);
    let mut recorder = clicks.recording().unwrap().of_a_worker();
    assert_eq!(recorder.record(&click()), Err(Dropped::Fault));

    // The task that tries again finds both mended.
    std::fs::remove_file(stats_file(&config)).unwrap();
    std::fs::remove_file(journals(&config)).unwrap();
    let home: Arc<dyn HomeStore> = Arc::new(terse_store::MemoryStore::new());
    let mut tasks = Tasks::new();
    clicks.run(&mut tasks, &home, &world);
    tokio::time::timeout(LEAST, async {
        while told(&clicks, &world).await != [("stats", true), ("clicks", true)] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    recorder.seal_if_old(0);
    assert_eq!(recorder.record(&click()), Ok(()));
    drop(recorder);
    let stats = clicks.stats();
    tokio::time::timeout(LEAST, async {
        // The projector pauses between its tries.
        while stats.overall(&code).await.unwrap().is_none_or(|row| row.clicks + row.bots == 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert!(tasks.join(LEAST).await.is_empty());
    clicks.end(Workers::Ended, grace(), LEAST).await;
}

#[tokio::test]
async fn a_start_needs_no_file_of_countries_and_health_tells() {
    let place = tempfile::tempdir().unwrap();
    let (mut config, world) = (config(place.path()), World::real());
    config.clicks.countries = Some(place.path().join("country.mmdb"));
    let clicks = Clicks::open(&config, None, &world).await.unwrap();
    assert!(told(&clicks, &world).await.contains(&("countries", false)));
    clicks.end(Workers::Ended, grace(), LEAST).await;
}

#[tokio::test]
async fn a_read_model_of_another_bus_still_ends_the_start() {
    let place = tempfile::tempdir().unwrap();
    let (config, world) = (config(place.path()), World::real());
    let clicks = Clicks::open(&config, None, &world).await.unwrap();
    clicks.end(Workers::Ended, grace(), LEAST).await;
    std::fs::remove_file(stats_file(&config)).unwrap();
    let other = LateReadModel::new(stats_file(&config));
    other.0.open_once(LEAST).await.unwrap();
    other.settle_bus(Bus::Streams { partitions: 8 }).await.unwrap();
    other.0.end().unwrap().close();
    drop(other);
    assert_eq!(Clicks::open(&config, None, &world).await.err().map(|error| error.exit), Some(Exit::Config));
}

/// It would publish what nobody could count: parts for other streams than there are.
#[tokio::test]
async fn journals_of_another_bus_end_the_start_of_a_server_that_only_counts_too() {
    let place = tempfile::tempdir().unwrap();
    let (mut config, world) = (config(place.path()), World::real());
    config.analytics = false;
    let clicks = Clicks::open(&config, None, &world).await.unwrap();
    let mut recorder = clicks.recording().unwrap().of_a_worker();
    recorder.record(&click()).unwrap();
    drop(recorder);
    clicks.end(Workers::Ended, grace(), LEAST).await;
    std::fs::remove_file(stats_file(&config)).unwrap();
    config.http.surfaces = terse_http::Surfaces { redirect: false, api: false };
    config.analytics = true;
    let broker = BrokerConfig::new("amqp://127.0.0.1:1/v", "d", 8).unwrap();
    assert_eq!(Clicks::open(&config, Some(broker), &world).await.err().map(|error| error.exit), Some(Exit::Config));
    let clicks = Clicks::open(&config, None, &world).await.unwrap();
    clicks.end(Workers::Ended, grace(), LEAST).await;
}

#[tokio::test]
async fn workers_that_have_not_ended_go_on_recording_and_their_journal_is_left_to_recovery() {
    for (workers, recorded) in [(Workers::Running, Ok(())), (Workers::Ended, Err(Dropped::NoBlock))] {
        let place = tempfile::tempdir().unwrap();
        let (config, world) = (config(place.path()), World::real());
        let clicks = Clicks::open(&config, None, &world).await.unwrap();
        let mut recorder = clicks.recording().unwrap().of_a_worker();
        clicks.end(workers, grace(), LEAST).await;
        assert_eq!(recorder.record(&click()), recorded, "{workers:?}");
    }
}

#[test]
fn operators_are_warned_when_blocks_may_take_half_of_the_journals_disk() {
    const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yml");
    let mut said = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: terse_click_blocks_pending > "));
    let blocks: u64 = said.next().unwrap().parse().unwrap();
    let usual = JournalConfig::new(PathBuf::new());
    assert_eq!(blocks * usual.block_bytes as u64, usual.budget_bytes / 2);
}
