//! A run: goose's users take the requests of the plan, one after the other,
//! wait until each is due, send it, and judge the answer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail};
use goose::config::GooseConfiguration;
use goose::prelude::*;
use goose::{is_killswitch_triggered, trigger_killswitch};
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, redirect};
use serde_json::{Value, json};

use crate::draw::{Zipf, mix};
use crate::judge::{Answer, Expected, Outcome};
use crate::ledger::{Entry, Ledger};
use crate::plan::Plan;
use crate::scenario::{Kind, Scenario};
use crate::seed::{self, API_LINKS, Known};

/// How long an answer may take, and how long after the end of the plan a request may still leave.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long a user sleeps at most before it looks whether the run was ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A request that leaves so long after it was due leaves late: timers alone take up to two milliseconds.
const LATE: Duration = Duration::from_millis(50);
/// How often seconds that ended are told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Whom a run asks, and how much.
#[derive(Clone, Debug)]
pub struct Size {
    /// The server, without a slash at the end.
    pub url: String,
    /// The API key, if the server wants one.
    pub key: Option<String>,
    /// Requests per second; 0 = each user asks again as soon as it has its answer.
    pub rate: u32,
    /// How long.
    pub seconds: u32,
    /// How many links are made before.
    pub links: u32,
    /// Requests under way at most.
    pub users: u32,
    /// The server redirects everything to this target: nothing is made, and every request is for a redirect.
    pub constant: Option<String>,
    /// What tells this run's targets and draws from those of others.
    pub run: u64,
}

/// What users share.
struct Run {
    scenario: &'static Scenario,
    size: Size,
    /// `None` = no plan: closed loop.
    plan: Option<Plan>,
    links: Vec<Known>,
    zipf: Zipf,
    began: OnceLock<Began>,
    /// How many requests users have taken.
    next: AtomicU64,
    /// How many of them are over.
    over: AtomicU64,
    /// Whether it came to its end: otherwise somebody has stopped it.
    ended: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// When the load began, by the clock that runs evenly and by that of the calendar.
#[derive(Clone, Copy)]
struct Began {
    at: Instant,
    unix_ms: u64,
}

impl Began {
    fn now() -> Self {
        Self { at: Instant::now(), unix_ms: unix_ms() }
    }

    fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// One request, and what a right answer is.
struct Asked {
    number: u64,
    kind: Kind,
    path: String,
    body: Option<String>,
    expected: Expected,
}

/// What became of a run.
#[derive(Debug)]
pub struct Ran {
    /// What was answered.
    pub ledger: Ledger,
    /// When the load began, in milliseconds since 1970.
    pub began_unix_ms: u64,
    /// Whether the process was told to end before the run did: then it was not the load that was asked for.
    pub stopped: bool,
}

/// Runs `scenario`; `tell` gets each second as JSON when it has ended. Ends with the plan, [`ANSWER_LIMIT`] after it at
/// the latest, or when the process is told to end: then what was answered until then counts.
///
/// # Errors
/// When the links can't be made or goose can't run.
pub async fn run(scenario: &'static Scenario, size: Size, mut tell: impl FnMut(Value) + Send + 'static) -> Result<Ran> {
    if size.links == 0 && size.constant.is_none() && scenario.asks_for_links() {
        bail!("{} asks for links: there must be at least one", scenario.name);
    }
    let links = links(&size).await?;
    let plan = (size.rate > 0).then(|| scenario.plan(size.rate, size.seconds));
    let run = Arc::new(Run {
        scenario,
        plan,
        zipf: Zipf::new(links.len()),
        links,
        began: OnceLock::new(),
        next: AtomicU64::new(0),
        over: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        ledger: Mutex::new(Ledger::new()?),
        size,
    });
    let watched = Arc::clone(&run);
    let teller = tokio::spawn(async move {
        while !is_killswitch_triggered() {
            tokio::time::sleep(TELL_EVERY).await;
            let closed = watched.began.get().map(|began| watched.ledger().close_before(began.elapsed()));
            closed.into_iter().flatten().for_each(&mut tell);
        }
        tell
    });
    attack(&run).await?;
    let tell = teller.await.context("telling the seconds")?;
    let run = Arc::into_inner(run).context("users are left")?;
    let (ran, last) = run.ran();
    last.into_iter().for_each(tell);
    Ok(ran)
}

/// The links that are asked for.
async fn links(size: &Size) -> Result<Vec<Known>> {
    if let Some(target) = &size.constant {
        let known = |number: u32| Known { code: format!("c{number:06}"), target: target.clone() };
        return Ok((0..size.links.max(1)).map(known).collect());
    }
    let client = client().build().context("an HTTP client")?;
    seed::make(&client, &size.url, size.key.as_deref(), &format!("{:x}", size.run), size.links).await
}

fn client() -> ClientBuilder {
    Client::builder().redirect(redirect::Policy::none()).timeout(ANSWER_LIMIT).tcp_nodelay(true).no_proxy()
}

/// Has goose run all users to the end.
async fn attack(run: &Arc<Run>) -> Result<()> {
    let mut configuration = GooseConfiguration::default();
    configuration.host.clone_from(&run.size.url);
    configuration.users = Some(run.size.users as usize);
    // All at once: the plan says when requests leave.
    configuration.hatch_rate = Some(run.size.users.to_string());
    configuration.no_telnet = true;
    configuration.no_websocket = true;
    // The ledger counts; goose's own metrics know milliseconds only.
    configuration.no_metrics = true;
    configuration.quiet = 2;
    let begin = Transaction::new(Arc::new(|user: &mut GooseUser| Box::pin(prepare(user)))).set_on_start();
    let shared = Arc::clone(run);
    let step = Transaction::new(Arc::new(move |user: &mut GooseUser| {
        let run = Arc::clone(&shared);
        Box::pin(async move { step(user, &run).await })
    }));
    let scenario = GooseScenario::new(run.scenario.name).register_transaction(begin).register_transaction(step);
    let attack = GooseAttack::initialize_with_config(configuration).map_err(|error| anyhow!("goose: {error}"))?;
    attack.register_scenario(scenario).execute().await.map_err(|error| anyhow!("goose: {error}"))?;
    Ok(())
}

type GooseScenario = goose::goose::Scenario;

/// Gives a user a client of its own, with its own connections.
async fn prepare(user: &mut GooseUser) -> TransactionResult {
    user.set_client_builder(client()).await.map_err(Box::new)
}

/// Takes the next request of the plan and sees it through.
async fn step(user: &mut GooseUser, run: &Run) -> TransactionResult {
    let began = *run.began.get_or_init(Began::now);
    let number = run.next.fetch_add(1, Ordering::Relaxed);
    let Some(due) = run.due(number, began.elapsed()) else {
        // Others may still wait until theirs are due.
        if run.is_over(began.elapsed()) {
            run.ended.store(true, Ordering::Relaxed);
            trigger_killswitch("the plan is done");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        return Ok(());
    };
    let waited = began.elapsed() < due;
    while let Some(left) = due.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        if is_killswitch_triggered() {
            return Ok(());
        }
        tokio::time::sleep(left.min(LOOK_AGAIN)).await;
    }
    // Who had to wait for its time left in time, as exactly as timers are; who came late was kept by a slow answer.
    let sent = began.elapsed();
    let begins = if waited { sent } else { due };
    let asked = run.ask(number);
    let outcome = exchange(user, run, &asked).await;
    let at = began.elapsed();
    let late = sent.saturating_sub(due) > LATE;
    run.ledger().add(&Entry { at, kind: asked.kind, latency: at.saturating_sub(begins), late, outcome });
    run.over.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn exchange(user: &mut GooseUser, run: &Run, asked: &Asked) -> Outcome {
    match send(user, run, asked).await {
        Ok(answer) => asked.expected.judge(&asked.path, &answer),
        Err(error) => Outcome::NoAnswer(format!("{}: {error:#}", asked.path)),
    }
}

async fn send(user: &mut GooseUser, run: &Run, asked: &Asked) -> Result<Answer> {
    let url = format!("{}{}", run.size.url, asked.path);
    let builder = match &asked.body {
        None => user.client.get(url),
        Some(body) => user.client.post(url).header(CONTENT_TYPE, "application/json").body(body.clone()),
    };
    let builder = match (&run.size.key, asked.kind) {
        (Some(key), Kind::Create) => builder.bearer_auth(key),
        _ => builder,
    };
    let request = GooseRequest::builder().set_request_builder(builder).name(asked.kind.name()).build();
    let response = user.request(request).await.map_err(|error| anyhow!("request {}: {error}", asked.number))?;
    let response = response.response?;
    let status = response.status().as_u16();
    let header = |name, headers: &HeaderMap| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (location, retry_after) = (header(LOCATION, response.headers()), header(RETRY_AFTER, response.headers()));
    Ok(Answer { status, location, retry_after, body: response.bytes().await?.to_vec() })
}

/// Until when requests of `plan` leave.
fn last_leave(plan: &Plan) -> Duration {
    plan.length() + ANSWER_LIMIT
}

impl Run {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When request `number` is due; `None` = the run is over.
    fn due(&self, number: u64, now: Duration) -> Option<Duration> {
        match &self.plan {
            Some(plan) => plan.due(number).filter(|_| now < last_leave(plan)),
            None => (now < Duration::from_secs(self.size.seconds.into())).then_some(now),
        }
    }

    /// Whether nothing is left to be sent. Without a plan it is once the time is over, and this is asked only then.
    fn is_over(&self, now: Duration) -> bool {
        let all = |plan: &Plan| self.over.load(Ordering::Relaxed) >= plan.total();
        self.plan.as_ref().is_none_or(|plan| all(plan) || now >= last_leave(plan))
    }

    /// What became of it, and its last second, if there is something to tell of it.
    fn ran(self) -> (Ran, Option<Value>) {
        let stopped = !self.ended.into_inner();
        let mut ledger = self.ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = self.plan.filter(|_| !stopped) {
            ledger.never_left(plan.total().saturating_sub(ledger.all().requests));
        }
        let last = ledger.runs().then(|| ledger.close());
        let began_unix_ms = self.began.get().map_or(0, |began| began.unix_ms);
        (Ran { ledger, began_unix_ms, stopped }, last)
    }

    fn ask(&self, number: u64) -> Asked {
        let kind = if self.size.constant.is_some() { Kind::Redirect } else { self.scenario.kind(number) };
        let run = format!("{:x}", self.size.run);
        let (path, body, expected) = match kind {
            Kind::Redirect => {
                let hot = self.scenario.is_hot(number);
                let index = if hot { 0 } else { self.zipf.index(mix(self.size.run, number)) };
                let link = &self.links[index];
                (format!("/{}", link.code), None, Expected::Redirect(link.target.clone()))
            }
            Kind::Unknown => (format!("/none-{run}-{number}"), None, Expected::Missing),
            Kind::Create => {
                let target = seed::target(&run, &format!("made/{number}"));
                let body = json!({ "url": target }).to_string();
                let limited = self.scenario.expects_429;
                let expected = if limited { Expected::CreatedOrLimited(target) } else { Expected::Created(target) };
                (API_LINKS.to_owned(), Some(body), expected)
            }
        };
        Asked { number, kind, path, body, expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, constant: Option<&str>, rate: u32) -> Run {
        let scenario = Scenario::named(name).unwrap();
        let links = (0..10).map(|n| Known { code: format!("c{n}"), target: format!("https://example.com/{n}") });
        let size = Size {
            url: "http://127.0.0.1:1".into(),
            key: None,
            rate,
            seconds: 10,
            links: 10,
            users: 1,
            constant: constant.map(str::to_owned),
            run: 7,
        };
        Run {
            scenario,
            plan: (rate > 0).then(|| scenario.plan(rate, size.seconds)),
            links: links.collect(),
            zipf: Zipf::new(10),
            began: OnceLock::new(),
            next: AtomicU64::new(0),
            over: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            ledger: Mutex::new(Ledger::new().unwrap()),
            size,
        }
    }

    #[test]
    fn each_kind_of_request_has_its_path_and_its_right_answer() {
        let smoke = run("smoke", None, 10);
        let asked = smoke.ask(0);
        let link = smoke.links.iter().find(|link| asked.path == format!("/{}", link.code)).unwrap();
        assert_eq!(asked.expected, Expected::Redirect(link.target.clone()));
        let unknown = smoke.ask(8);
        assert_eq!((unknown.path.as_str(), unknown.expected), ("/none-7-8", Expected::Missing));
        let create = smoke.ask(9);
        assert_eq!(create.expected, Expected::Created("https://example.com/load/7/made/9".into()));
        assert!(create.body.unwrap().contains("load/7/made/9"));
        let limited = run("limit", None, 10).ask(0);
        assert!(matches!(limited.expected, Expected::CreatedOrLimited(_)));
    }

    #[test]
    fn everybody_asks_for_the_hot_link() {
        let hot = run("hot-link", None, 10);
        assert!((0..100).all(|number| hot.ask(number).path == "/c0"));
        let steady = run("steady", None, 10);
        assert!((0..100).any(|number| steady.ask(number).path != "/c0"), "by Zipf's law others are asked for too");
    }

    #[test]
    fn of_a_constant_server_nothing_but_redirects_are_asked() {
        let constant = run("create-burst", Some("https://example.com/x"), 0);
        assert!((0..20).all(|number| constant.ask(number).kind == Kind::Redirect));
    }

    #[test]
    fn a_run_is_over_when_all_requests_are_not_when_all_are_taken() {
        let planned = run("smoke", None, 10);
        planned.next.store(200, Ordering::Relaxed);
        planned.over.store(99, Ordering::Relaxed);
        assert!(!planned.is_over(Duration::from_secs(10)));
        planned.over.store(100, Ordering::Relaxed);
        assert!(planned.is_over(Duration::ZERO) && run("smoke", None, 0).is_over(Duration::ZERO));
    }

    #[test]
    fn a_server_that_answers_nothing_does_not_prolong_a_run() {
        let silent = run("smoke", None, 10);
        let limit = Duration::from_secs(10) + ANSWER_LIMIT;
        let before = limit - Duration::from_millis(1);
        assert_eq!(silent.due(50, before), Some(Duration::from_secs(5)), "it leaves late");
        assert_eq!(silent.due(50, limit), None, "it never leaves");
        assert!(!silent.is_over(before) && silent.is_over(limit));
    }

    #[test]
    fn requests_that_never_left_are_counted_unless_somebody_stopped_the_run() {
        for stopped in [false, true] {
            let silent = run("smoke", None, 10);
            let outcome = Outcome::NoAnswer("/a: nothing".into());
            let (at, latency) = (Duration::from_secs(10), ANSWER_LIMIT);
            silent.ledger().add(&Entry { at, kind: Kind::Redirect, latency, late: false, outcome });
            silent.ended.store(!stopped, Ordering::Relaxed);
            let (ran, last) = silent.ran();
            assert_eq!((ran.stopped, ran.ledger.all().late), (stopped, if stopped { 0 } else { 99 }));
            assert_eq!(last.unwrap()["late"], ran.ledger.all().late, "the seconds add up");
        }
    }

    #[test]
    fn without_a_rate_a_run_ends_with_its_time() {
        let closed = run("smoke", None, 0);
        let (early, late) = (Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!((closed.due(1_000_000, early), closed.due(0, late)), (Some(early), None));
        let planned = run("smoke", None, 10);
        assert_eq!((planned.due(10, late), planned.due(100, early)), (Some(Duration::from_secs(1)), None));
    }
}
