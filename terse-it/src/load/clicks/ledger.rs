//! Who was asked for what, and what of it has to be counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::FAULTS_KEPT;
use crate::Response;
use crate::load::{KnownLink, percentile};

/// What became of the requests for one code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests whose connection stood.
    pub sent: u64,
    /// 302 answers to them.
    pub received: u64,
}

/// What became of all requests.
#[derive(Clone, Debug)]
pub struct ClickLedger {
    codes: Vec<String>,
    tallies: Vec<Tally>,
    refused: u64,
    unanswered: u64,
    wrong: u64,
    faults: Vec<String>,
    /// Of the 302 answers.
    latencies: Vec<Duration>,
}

impl ClickLedger {
    /// An empty one for `links`.
    pub(super) fn of(links: &[KnownLink]) -> Self {
        let codes: Vec<String> = links.iter().map(|link| link.code.clone()).collect();
        let tallies = vec![Tally::default(); codes.len()];
        let (faults, latencies) = (Vec::new(), Vec::new());
        Self { codes, tallies, refused: 0, unanswered: 0, wrong: 0, faults, latencies }
    }

    /// Notes a click on link number `index` and what was answered; returns whether that was its 302.
    pub(super) fn note(
        &mut self,
        index: usize,
        link: &KnownLink,
        took: Duration,
        answer: std::io::Result<&Response>,
    ) -> bool {
        self.tallies[index].sent += 1;
        match answer {
            Ok(answer) if answer.status == 302 && answer.header("location") == Some(&link.target) => {
                self.tallies[index].received += 1;
                self.latencies.push(took);
                return true;
            }
            Ok(answer) if super::is_refused(answer) => self.refused += 1,
            Ok(answer) => {
                self.wrong += 1;
                self.tell(format!("{link:?}: {answer:?}"));
            }
            Err(error) => {
                self.unanswered += 1;
                self.tell(format!("{}: {error}", link.code));
            }
        }
        false
    }

    fn tell(&mut self, fault: String) {
        if self.faults.len() < FAULTS_KEPT {
            self.faults.push(fault);
        }
    }

    /// Adds what another load of the same links did.
    ///
    /// # Panics
    /// When it was another's links.
    pub fn add(&mut self, other: Self) {
        assert_eq!(self.codes, other.codes, "ledgers of other links");
        for (tally, more) in self.tallies.iter_mut().zip(other.tallies) {
            tally.sent += more.sent;
            tally.received += more.received;
        }
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.wrong += other.wrong;
        let room = FAULTS_KEPT - self.faults.len();
        self.faults.extend(other.faults.into_iter().take(room));
        self.latencies.extend(other.latencies);
    }

    /// Every code with its tally, the most clicked first.
    pub fn tallies(&self) -> impl Iterator<Item = (&str, Tally)> {
        self.codes.iter().map(String::as_str).zip(self.tallies.iter().copied())
    }

    /// All codes together.
    #[must_use]
    pub fn sum(&self) -> Tally {
        let add =
            |sum: Tally, more: &Tally| Tally { sent: sum.sent + more.sent, received: sum.received + more.received };
        self.tallies.iter().fold(Tally::default(), add)
    }

    /// Requests that were answered 503 with `Retry-After`.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Requests whose connection broke.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// The value below which `percent` of 100 latencies of the 302 answers lie.
    #[must_use]
    pub fn latency(&self, percent: usize) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        percentile(&sorted, percent)
    }

    /// Fails if an answer was neither the link's 302 nor 503 with `Retry-After`.
    #[track_caller]
    pub fn assert_truthful(&self) {
        assert_eq!(self.wrong, 0, "answers were wrong, such as {:#?}", self.faults);
    }

    /// Fails unless every request got its 302.
    #[track_caller]
    pub fn assert_all_answered(&self) {
        let failed = (self.wrong, self.refused, self.unanswered);
        assert_eq!(failed, (0, 0, 0), "wrong, refused, unanswered; such as {:#?}", self.faults);
        assert!(self.sum().received > 0, "nobody clicked");
    }

    /// What was found out, code by code, with what was `counted` of each.
    #[must_use]
    pub fn json(&self, counted: &BTreeMap<String, u64>) -> Value {
        let line = |(code, tally): (&str, Tally)| json!({ "code": code, "sent": tally.sent, "received": tally.received, "counted": counted.get(code) });
        let codes: Vec<Value> = self.tallies().map(line).collect();
        json!({
            "refused": self.refused, "unanswered": self.unanswered, "wrong": self.wrong,
            "faults": self.faults, "codes": codes,
        })
    }
}
