//! What to measure, from the command line.

use std::path::PathBuf;
use std::time::Duration;

/// A cluster to measure on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Its name in the results.
    pub(crate) name: String,
    /// Replicas of each row.
    pub(crate) replication: u8,
    /// Its nodes, each `host:port`.
    pub(crate) hosts: Vec<String>,
}

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How often each contender is measured.
    pub(crate) rounds: u32,
    /// How long each measurement takes.
    pub(crate) window: Duration,
    /// Load before each measurement, which isn't counted.
    pub(crate) warm_up: Duration,
    /// Load before the first measurement of a cluster, which isn't counted: a JVM compiles first.
    pub(crate) first_warm_up: Duration,
    /// How many links are resolved, over and over.
    pub(crate) links: u64,
    /// How many links one measurement creates at most; with more, its window ends early. So memory stays bounded.
    pub(crate) most_creates: u64,
    /// How many of a window's operations may be refused, in percent: above that it isn't this that is measured.
    pub(crate) max_refused_percent: u64,
    /// How many operations run at once.
    pub(crate) concurrency: usize,
    /// Where SQLite's files are made.
    pub(crate) folder: PathBuf,
    /// Whether memory and SQLite are measured.
    pub(crate) local: bool,
    /// Whether creates and look-ups a second are measured.
    pub(crate) rates: bool,
    /// Whether the rings are compared with the driver.
    pub(crate) comparison: bool,
    /// The clusters.
    pub(crate) clusters: Vec<Cluster>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 1,
            window: Duration::from_secs(1),
            warm_up: Duration::from_millis(100),
            first_warm_up: Duration::from_secs(1),
            links: 200,
            most_creates: 100_000,
            max_refused_percent: 1,
            concurrency: 64,
            folder: std::env::temp_dir(),
            local: true,
            rates: true,
            comparison: true,
            clusters: Vec::new(),
        }
    }
}

/// What the command line may say.
pub(crate) const USAGE: &str = "[--rounds N] [--window-ms N] [--warm-up-ms N] [--first-warm-up-ms N] [--links N] \
     [--most-creates N] [--max-refused-percent N] [--concurrency N] [--folder DIR] [--only-rates] [--only-comparison] \
     [--cluster NAME=REPLICATION=HOST:PORT,…]…";

impl Options {
    /// Reads the words of the command line, without the program's name.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        // `cargo bench` adds its own flag.
        let mut words = words.filter(|word| word != "--bench");
        while let Some(flag) = words.next() {
            match flag.as_str() {
                "--only-rates" => options.comparison = false,
                // Memory and SQLite have no driver to be compared with.
                "--only-comparison" => (options.local, options.rates) = (false, false),
                _ => {
                    let value = words.next().ok_or_else(|| format!("{flag} needs a value"))?;
                    options.set(&flag, &value)?;
                }
            }
        }
        if [u64::from(options.rounds), options.links, options.most_creates, options.concurrency as u64].contains(&0) {
            return Err("rounds, links, creates and concurrency are at least 1".to_owned());
        }
        Ok(options)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), String> {
        match flag {
            "--rounds" => self.rounds = number(flag, value)?,
            "--window-ms" => self.window = Duration::from_millis(number(flag, value)?),
            "--warm-up-ms" => self.warm_up = Duration::from_millis(number(flag, value)?),
            "--first-warm-up-ms" => self.first_warm_up = Duration::from_millis(number(flag, value)?),
            "--most-creates" => self.most_creates = number(flag, value)?,
            "--max-refused-percent" => self.max_refused_percent = number(flag, value)?,
            "--links" => self.links = number(flag, value)?,
            "--concurrency" => self.concurrency = number(flag, value)?,
            "--folder" => self.folder = value.into(),
            "--cluster" => self.clusters.push(cluster(value)?),
            _ => return Err(format!("unknown flag {flag}; usage: {USAGE}")),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{flag} takes a number, not {value}"))
}

fn cluster(value: &str) -> Result<Cluster, String> {
    let parts: Vec<&str> = value.split('=').collect();
    let [name, replication, hosts] = parts[..] else {
        return Err(format!("--cluster takes NAME=REPLICATION=HOST:PORT,…, not {value}"));
    };
    let hosts = hosts.split(',').map(str::to_owned).collect();
    Ok(Cluster { name: name.to_owned(), replication: number("--cluster", replication)?, hosts })
}
