//! What a server says of the clicks that it recorded, beside the redirects that it was seen to answer.
//!
//! A server that drops clicks does less than it was measured for. So whatever measures redirects asks in the end for
//! as many clicks as there were answers of 302, and for none that was dropped.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::links::Targets;
use super::server::ask;

/// What a server in these roles does: it redirects and records, and nobody counts.
pub const RECORDS: &[&str] = &["redirect", "api"];
/// What recorded clicks may take of the disk each second that a server is measured.
const BYTES_A_SECOND: u64 = 20 << 20;
/// What one recorded click takes at most, with the headers of [`super::wire::Get`].
const CLICK_BYTES: u64 = 256;
/// Blocks that are prepared or open, however few clicks there are.
const LEAST_BYTES: u64 = 64 << 20;
/// How long it may take until everything recorded is counted.
const COUNTED_LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The setting of a journal from which nothing is dropped, though nobody passes its blocks: for load of `seconds`, and
/// `answers` besides.
#[must_use]
pub fn journal_for(seconds: f64, answers: usize) -> (&'static str, String) {
    let bytes = (seconds * BYTES_A_SECOND as f64) as u64 + answers as u64 * CLICK_BYTES + LEAST_BYTES;
    ("TERSE_JOURNAL_BYTES", format!("{}MiB", bytes.div_ceil(1 << 20)))
}

/// What a server counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Clicks in its journal.
    pub recorded: u64,
    /// Clicks that are lost.
    pub dropped: u64,
    /// Clicks that are in the read model.
    pub applied: u64,
}

impl Recorded {
    /// What the server at `address` tells.
    ///
    /// # Errors
    /// When it doesn't.
    pub fn read(address: SocketAddr) -> Result<Self> {
        let reply = ask(address, "/metrics")?;
        Self::parse(&String::from_utf8_lossy(&reply.body))
    }

    /// Reads the lines of `metrics` that count clicks.
    ///
    /// # Errors
    /// When one is missing or can't be understood.
    pub fn parse(metrics: &str) -> Result<Self> {
        Ok(Self {
            recorded: sum(metrics, "terse_clicks_recorded_total")?,
            dropped: sum(metrics, "terse_clicks_dropped_total")?,
            applied: sum(metrics, "terse_clicks_applied_total")?,
        })
    }

    /// Fails unless a click was recorded for each of `followed` redirects and none dropped. Of `unread` requests at
    /// most, nobody knows the answer.
    ///
    /// # Errors
    /// With what was counted instead.
    pub fn check(&self, followed: u64, unread: u64) -> Result<()> {
        let Self { recorded, dropped, .. } = *self;
        ensure!(dropped == 0, "{dropped} clicks were dropped beside {recorded} recorded: this measured dropping");
        let expected = followed..=followed + unread;
        ensure!(expected.contains(&recorded), "{recorded} clicks were recorded of {followed} redirects");
        Ok(())
    }
}

/// The sum over all labels of the metric `name`, of whole numbers.
fn sum(metrics: &str, name: &str) -> Result<u64> {
    let mut found = None;
    for line in metrics.lines() {
        let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])) else { continue };
        let value = rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        let value = value.with_context(|| format!("a metric without a value: {line}"))?;
        found = Some(found.unwrap_or(0) + value as u64);
    }
    found.with_context(|| format!("the metrics tell nothing of {name}"))
}

/// Fails unless the server at `address` recorded a click for each redirect of `links`, all of which it answered.
///
/// # Errors
/// As [`Recorded::check`].
pub fn assert_recorded(address: SocketAddr, links: &Targets) -> Result<()> {
    Recorded::read(address)?.check(links.followed(), links.unread())
}

/// Waits until the server at `address` has counted what it recorded.
///
/// # Errors
/// When it takes too long.
pub fn await_counted(address: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        let Recorded { recorded, applied, .. } = Recorded::read(address)?;
        if recorded == applied {
            return Ok(());
        }
        if begun.elapsed() > COUNTED_LIMIT {
            bail!("{applied} of {recorded} clicks are counted after {} s", COUNTED_LIMIT.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Fails unless the statistics of the server at `address` tell as many clicks as redirects were seen of each of a
/// `sample` of `links`, the first and evenly picked ones.
///
/// # Errors
/// With the first one that differs.
pub fn assert_told(address: SocketAddr, links: &Targets, sample: usize) -> Result<()> {
    for index in (0..links.len()).step_by(links.len().div_ceil(sample.max(1)).max(1)) {
        let (code, followed) = (links.code(index), links.followed_of(index));
        let total = told(address, code)?;
        ensure!(total == followed, "{total} clicks are told of /{code}, which redirected {followed} times");
    }
    Ok(())
}

/// The clicks of all time that the server at `address` tells of `code`.
fn told(address: SocketAddr, code: &str) -> Result<u64> {
    let reply = ask(address, &format!("/api/v1/links/{code}/stats"))?;
    ensure!(reply.status == 200, "the statistics of {code} were answered {}", reply.status);
    let stats: Value = serde_json::from_slice(&reply.body).context("reading statistics")?;
    stats["total"].as_u64().context("statistics without a total")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::super::links::Pair;
    use super::*;

    fn metrics(recorded: u64, dropped: u64, applied: u64) -> String {
        format!(
            "# TYPE terse_clicks_recorded_total counter\nterse_clicks_recorded_total {recorded}\n\
             terse_clicks_dropped_total{{reason=\"budget\"}} {dropped}\n\
             terse_clicks_dropped_total{{reason=\"no_block\"}} 0\nterse_clicks_applied_total {applied}\n"
        )
    }

    /// Answers each connection's request with the next of `bodies`.
    fn serve(bodies: Vec<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for body in bodies {
                let (mut stream, _) = listener.accept().unwrap();
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            }
        });
        address
    }

    fn links() -> Targets {
        Targets::of(&[Pair { code: "aaaaaaa".into(), index: 0 }, Pair { code: "bbbbbbb".into(), index: 1 }])
    }

    #[test]
    fn clicks_are_summed_over_the_reasons_of_their_loss() {
        let read = Recorded::parse(&(metrics(12, 3, 5) + "terse_clicks_dropped_total{reason=\"fault\"} 4\n")).unwrap();
        assert_eq!(read, Recorded { recorded: 12, dropped: 7, applied: 5 });
        assert!(Recorded::parse("terse_clicks_recorded_total 1\n").is_err());
        assert!(Recorded::parse(&metrics(1, 0, 0).replace("total 1", "total many")).is_err());
    }

    #[test]
    fn each_redirect_is_one_click_and_none_is_dropped() {
        let counted = |recorded, dropped| Recorded { recorded, dropped, applied: 0 };
        assert!(counted(5, 0).check(5, 0).is_ok());
        assert!(counted(7, 0).check(5, 2).is_ok(), "whose answers nobody read");
        for (recorded, unread) in [(4, 0), (6, 0), (8, 2), (4, 2)] {
            let error = counted(recorded, 0).check(5, unread).unwrap_err().to_string();
            assert_eq!(error, format!("{recorded} clicks were recorded of 5 redirects"));
        }
        assert!(counted(5, 1).check(5, 0).unwrap_err().to_string().contains("measured dropping"));
        assert!(counted(4, 1).check(5, 0).is_err());
    }

    #[test]
    fn counting_is_awaited() {
        await_counted(serve(vec![metrics(5, 0, 0), metrics(5, 0, 4), metrics(5, 0, 5)])).unwrap();
        // A server that has gone never gets there.
        assert!(await_counted(serve(vec![metrics(5, 0, 4)])).is_err());
    }

    #[test]
    fn what_is_told_of_a_link_is_how_often_it_redirected() {
        let links = links();
        links.follow(1);
        let stats = |total: u32| format!("{{\"code\":\"x\",\"total\":{total}}}");
        assert_told(serve(vec![stats(0), stats(1)]), &links, 2).unwrap();
        let error = assert_told(serve(vec![stats(0), stats(2)]), &links, 9).unwrap_err().to_string();
        assert_eq!(error, "2 clicks are told of /bbbbbbb, which redirected 1 times");
        assert_told(serve(vec![stats(0)]), &links, 1).unwrap();
    }

    #[test]
    fn a_journal_lasts_for_its_time_and_its_answers() {
        assert_eq!(journal_for(0.0, 0), ("TERSE_JOURNAL_BYTES", "64MiB".to_owned()));
        assert_eq!(journal_for(240.0, 1 << 20), ("TERSE_JOURNAL_BYTES", "5120MiB".to_owned()));
    }
}
