//! A leaky bucket under more than it lets through: requests leave it one by one,
//! evenly, however they came.
//!
//! What is measured is when answers arrive, so the generator's own wakings are in
//! it, and how evenly this machine wakes anybody: a thread that does nothing but
//! wake at the same rate tells that, at the same time. In the quick form, on a machine
//! that does other things, clients may be so late that turns pass unused: then it
//! is asserted only that none is given twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Stage;
use crate::load::{Answer, Timeline};
use crate::{Client, Request, Setup};

/// Turns a second of the buckets, each of a server of its own.
const RATES: [u32; 4] = [20, 50, 100, 200];
/// Clients that ask again as soon as they are answered: so many always wait.
const CLIENTS: usize = 16;
/// Answers at the beginning that are left out: the bucket is empty at first.
const BEGIN: usize = 2;
/// By how much a gap may differ from 1/rate, in the full form 95 of 100 of them.
const GAP_ERROR: f64 = 0.05;
/// By how much the mean gap may: errors don't add up.
const MEAN_ERROR: f64 = 0.01;
/// By how much it may be shorter in a second on a machine that does other things: the first answer may be late.
const BUSY_MEAN_ERROR: f64 = 0.25;

pub(super) fn paced(stage: &mut Stage<'_>) {
    for rate in RATES {
        let lasting = stage.form.pick(Duration::from_secs(1), Duration::from_secs(20));
        let (answered, woken) = answers(&stage.timeline, rate, lasting);
        let gaps = Gaps::of(&answered[BEGIN.min(answered.len())..]);
        let period = 1.0 / f64::from(rate);
        let machine = Gaps::of(&woken).error(period, 0.95);
        let [p50, p95, worst] = [0.5, 0.95, 1.0].map(|part| gaps.error(period, part));
        stage.report.count(&format!("{rate} a second: answers"), answered.len());
        for (what, error) in [("median", p50), ("p95", p95), ("machine's p95", machine), ("largest", worst)] {
            let name = format!("{rate} a second: {what} error of a gap, hundredths of a percent of it");
            stage.report.count(&name, (error * 10_000.0).round() as usize);
        }
        let mean = gaps.mean() / period - 1.0;
        let (shorter, longer) = stage.form.pick((BUSY_MEAN_ERROR, f64::INFINITY), (MEAN_ERROR, MEAN_ERROR));
        assert!(mean >= -shorter && mean <= longer, "{rate} a second: the mean gap is off by {mean:.4}");
        let allowed = stage.form.pick(f64::INFINITY, GAP_ERROR);
        assert!(
            p95 <= allowed,
            "{rate} a second: 5 of 100 gaps are off by {p95:.3} or more, \
             the machine's by {machine:.3}"
        );
    }
}

/// When clients were answered, all together, that asked for `lasting` without a pause, and when somebody woke meanwhile
/// who wanted to at the same rate.
fn answers(timeline: &Timeline, rate: u32, lasting: Duration) -> (Vec<Instant>, Vec<Instant>) {
    let file = format!(
        "[limits]\ncreate = 'off'\napi = 'off'\n[limits.redirect]\nalgorithm = 'leaky-bucket'\nrate = {rate}\n\
         per = '1s'\nqueue = {}\n",
        2 * CLIENTS
    );
    let server = Setup::new().env("TERSE_LIMITS", "on").file(&file).start();
    let client = server.client();
    let path = format!("/{}", client.shorten("https://example.com/paced"));
    let ended = AtomicBool::new(false);
    let _load = timeline.load();
    let _fault = timeline.fault(&format!("{CLIENTS} clients ask for more than {rate} turns a second"));
    let (mut answered, woken): (Vec<Instant>, _) = std::thread::scope(|scope| {
        let ask = |_| scope.spawn(|| ask_again(timeline, &client, &path, &ended));
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        let woken = woken(rate, lasting);
        ended.store(true, Ordering::SeqCst);
        (clients.into_iter().flat_map(super::limits::joined).collect(), woken)
    });
    answered.sort_unstable();
    (answered, woken)
}

/// When this thread woke that wants to `rate` times a second, for `lasting`.
fn woken(rate: u32, lasting: Duration) -> Vec<Instant> {
    let began = Instant::now();
    let turns = (1..).map(|turn| Duration::from_secs(turn) / rate).take_while(|turn| *turn <= lasting);
    let wake = |turn: Duration| {
        std::thread::sleep((began + turn).saturating_duration_since(Instant::now()));
        Instant::now()
    };
    turns.map(wake).collect()
}

fn ask_again(timeline: &Timeline, client: &Client, path: &str, ended: &AtomicBool) -> Vec<Instant> {
    let (mut wire, mut answered, request) = (client.connect(), Vec::new(), Request::new("GET", path));
    while !ended.load(Ordering::SeqCst) {
        let asked = Instant::now();
        let answer = super::limits::call(&mut wire, &request);
        let came = if answer.status == 302 { Answer::Answered } else { Answer::Failed };
        timeline.note("redirect", asked, asked.elapsed(), came);
        assert_eq!(answer.status, 302, "there is room in the queue for all: {answer:?}");
        answered.push(Instant::now());
    }
    answered
}

/// Seconds between one answer and the next.
struct Gaps(Vec<f64>);

impl Gaps {
    fn of(answered: &[Instant]) -> Self {
        assert!(answered.len() > 2, "only {} answers", answered.len());
        Self(answered.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect())
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// By how much of `period`, at most, so large a `part` of the gaps differ from it.
    fn error(&self, period: f64, part: f64) -> f64 {
        let mut errors: Vec<f64> = self.0.iter().map(|gap| (gap / period - 1.0).abs()).collect();
        errors.sort_unstable_by(f64::total_cmp);
        errors[((errors.len() as f64 * part).ceil() as usize).clamp(1, errors.len()) - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_gap_is_told_as_a_part_of_it() {
        let began = Instant::now();
        let at = [0, 10, 20, 31, 40].map(|ms| began + Duration::from_millis(ms));
        let gaps = Gaps::of(&at);
        assert!((gaps.mean() - 0.010).abs() < 1e-9);
        let error = |part| (gaps.error(0.010, part) * 1_000.0).round();
        assert_eq!([error(0.5), error(0.75), error(1.0)], [0.0, 100.0, 100.0]);
    }

    #[test]
    #[should_panic(expected = "only 2 answers")]
    fn two_answers_say_nothing() {
        let _ = Gaps::of(&[Instant::now(), Instant::now()]);
    }
}
