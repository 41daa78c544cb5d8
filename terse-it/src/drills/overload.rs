//! More uncached redirects and creates than a slow store can do, for a minute:
//! it does what it can, links in memory don't notice, and it is over when it is over.
//!
//! The store is the cluster behind wires that hold every answer back by
//! [`STORE_TAKES`]. What it can do at best is measured first, with as many
//! callers as the server promises never to refuse; then ten times as many ask
//! for three times that, whatever they are told. In the full form the nodes have a
//! core of their own: what is measured is the server, not how long it waits for the CPU behind its store.
//!
//! Bounds: twice [`THREADS`] here and the connections of [`MANY`], one request on each.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use terse_testkit::Mode;

use super::{FIRST_START_LIMIT, Form, Stage, Wires, ask_until_answered, is_refused, shards_file};
use crate::load::{Answer, KnownLink, Lasting, Timeline, percentile, seed};
use crate::metrics::Scrape;
use crate::{API_LINKS, Client, Connection, Request, Response, Server, Setup, await_true, joined};

/// How much longer the store takes: this for a request and this for its answer.
const STORE_TAKES: Duration = Duration::from_micros(2_500);
/// Threads of each kind of request, each with its share of the connections.
const THREADS: usize = 8;
/// Connections that redirect, and that create: as many as are never refused, and far more.
const FEW: [usize; 2] = [48, 16];
const MANY: [usize; 2] = [480, 160];
/// How many times the best the many ask for.
const TIMES: f64 = 3.0;
/// Links that stay in memory, and how often each of their readers asks.
const HOT: usize = 8;
const READER_RESTS: Duration = Duration::from_millis(5);
/// Links in memory at most: few of the others ever are.
const ENTRIES: usize = 64;
/// What is promised while it lasts.
const HOT_P99: Duration = Duration::from_millis(50);
const GOODPUT_PERCENT: f64 = 90.0;
/// How much memory the many may take: their connections, and what is under way.
const GROWTH_BYTES: u64 = 64 * 1_024 * 1_024;
/// By when all is as before once they are gone; in the quick form the machine has other things to do.
const RECOVERS_IN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));
/// Requests in a row that all are answered then.
const IN_A_ROW: usize = 20;

/// What came of requests.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    redirects: usize,
    creates: usize,
    shed: usize,
    /// Refused for another reason, as by a breaker.
    refused: usize,
}

impl AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.redirects += other.redirects;
        self.creates += other.creates;
        self.shed += other.shed;
        self.refused += other.refused;
    }
}

impl Done {
    fn per_second(&self, time: Duration) -> f64 {
        (self.redirects + self.creates) as f64 / time.as_secs_f64()
    }

    /// Notes what `answer` is; a wrong one ends the drill.
    fn note(&mut self, wanted: u16, target: &str, answer: &Response) {
        match answer.status {
            302 if wanted == 302 => {
                assert_eq!(answer.header("location"), Some(target), "{answer:?}");
                self.redirects += 1;
            }
            201 if wanted == 201 => self.creates += 1,
            503 if is_refused(answer) && answer.json()["code"] == "overloaded" => self.shed += 1,
            _ if is_refused(answer) => self.refused += 1,
            _ => panic!("{wanted} was expected: {answer:?}"),
        }
    }
}

pub(super) fn overload(stage: &mut Stage<'_>) {
    let (wires, keyspace) = (Wires::to(stage.cluster()), stage.cluster().keyspace("overload"));
    let file = shards_file(&[wires.shard("main", "0-4095", &keyspace)]);
    let setup = Setup::new().ready_within(FIRST_START_LIMIT).file(&file);
    let server = setup.env("TERSE_CACHE_ENTRIES", &ENTRIES.to_string()).start();
    let client = server.client();
    let links = seed(&client, "cold", stage.form.pick(600, 4_000));
    let hot = seed(&client, "hot", HOT);
    wires.set(Mode::Delay(STORE_TAKES));
    let second = Duration::from_secs(1);
    // They are read all the time from here on: so they stay in memory.
    let readers = Readers::start(&client, &hot, &stage.timeline);
    let press = Press { client: &client, links: &links, timeline: stage.timeline.clone() };
    // A node that has just started compiles what it does often. Until then its best is not its best, and a core is
    // too little for it.
    press.on(FEW, stage.form.pick(second / 2, 45 * second), None);
    let _apart = (stage.form == Form::Full).then(|| {
        let apart = stage.cluster().apart(&[server.pid()]);
        press.on(FEW, 10 * second, None);
        apart
    });
    let peak_time = stage.form.pick(2 * second, 15 * second);
    let peak = press.on(FEW, peak_time, None);
    let alone = readers.begin();
    let (before, from) = (server.resident_bytes(), Scrape::of(&client));
    let time = stage.form.pick(3 * second, 60 * second);
    let rate = TIMES * peak.per_second(peak_time).max(1.0);
    // In the quick form the server may be what takes longest: then it is not held back as well.
    let fault = stage.timeline.fault("ten times as many ask");
    let done = press.on(MANY, time, stage.form.pick(None, Some(rate)));
    fault.end();
    let times = readers.end();
    let ended = Instant::now();
    recover(&client, &links, &hot, stage.form.pick(RECOVERS_IN.0, RECOVERS_IN.1));
    stage.report.time("until all was answered again", ended.elapsed());
    let growth = server.resident_bytes().saturating_sub(before);
    stage.report.time("redirects from memory before, p99", percentile(&alone, 99));
    tell(stage, (&peak, peak_time), (&done, time), &times, growth);
    assert_told(&server, &from, &done);
    assert!(stage.form == Form::Quick || done.shed > 0, "nothing was shed: {done:?}");
    assert!(peak.shed == 0, "64 callers are never too many: {peak:?}");
    assert!(done.redirects > 0, "{done:?}");
    assert!(growth <= GROWTH_BYTES, "it took {growth} bytes of memory");
}

fn tell(
    stage: &mut Stage<'_>,
    (peak, peak_time): (&Done, Duration),
    (done, time): (&Done, Duration),
    readers: &[Duration],
    growth: u64,
) {
    let (best, goodput) = (peak.per_second(peak_time), done.per_second(time));
    let report = &mut stage.report;
    report.count("at best, redirects and creates a second", best as usize);
    report.count("overloaded, redirects and creates a second", goodput as usize);
    report.count("overloaded, of these creates a second", (done.creates as f64 / time.as_secs_f64()) as usize);
    report.count("at best, of these creates a second", (peak.creates as f64 / peak_time.as_secs_f64()) as usize);
    report.count("shed", done.shed);
    report.count("refused for another reason", done.refused);
    report.count("redirects from memory", readers.len());
    let p99 = percentile(readers, 99);
    report.time("redirects from memory, p99", p99);
    report.count("memory that it took, KiB", usize::try_from(growth / 1_024).unwrap_or(usize::MAX));
    let share = 100.0 * goodput / best;
    report.count("overloaded, percent of the best", share as usize);
    let (least, latest) = stage.form.pick((0.0, Duration::MAX), (GOODPUT_PERCENT, HOT_P99));
    assert!(share >= least && p99 <= latest, "{least} % of the best and {latest:?} are promised:\n{}", stage.report);
}

/// What is asked for.
#[derive(Clone, Copy)]
enum What {
    Redirects,
    Creates,
}

/// Whom many ask for what.
struct Press<'a> {
    client: &'a Client,
    links: &'a [KnownLink],
    timeline: Timeline,
}

impl Press<'_> {
    /// Redirects of the links and creates over so many connections for so long, at most `rate` of them a second.
    fn on(&self, connections: [usize; 2], time: Duration, rate: Option<f64>) -> Done {
        let all = (connections[0] + connections[1]) as f64;
        let turn_takes = rate.map(|rate| Duration::from_secs_f64(all / rate)).unwrap_or_default();
        let _load = self.timeline.load();
        let work = |(number, what): (usize, What)| {
            let (mut done, began, mut turn) = (Done::default(), Instant::now(), 0);
            let of_them = (connections[what as usize] + number) / THREADS;
            let mut wires: Vec<_> = (0..of_them).map(|_| self.client.connect()).collect();
            while began.elapsed() < time {
                let turn_began = Instant::now();
                match what {
                    What::Redirects => self.redirect(&mut wires, number, turn, &mut done),
                    What::Creates => self.create(&mut wires, number, turn, &mut done),
                }
                turn += 1;
                let left = time.saturating_sub(began.elapsed());
                std::thread::sleep(turn_takes.saturating_sub(turn_began.elapsed()).min(left));
            }
            done
        };
        // Apart, for a create takes many times as long: those who wait for one would ask for no redirects meanwhile.
        let threads = [What::Redirects, What::Creates].into_iter();
        let threads = threads.flat_map(|what| (0..THREADS).map(move |number| (number, what))).collect();
        let parts = super::rush::in_threads(threads, work);
        parts.into_iter().fold(Done::default(), |mut all, part| {
            all += part;
            all
        })
    }

    /// A redirect on each of a thread's connections, all of them asked for before the first answer is read.
    fn redirect(&self, wires: &mut [Connection], number: usize, turn: usize, done: &mut Done) {
        // Every thread has links of its own: no two look-ups are one.
        let first = turn * (wires.len() + 1);
        let link = |at: usize| &self.links[(number + THREADS * (first + at)) % self.links.len()];
        let asked = Instant::now();
        for (at, wire) in wires.iter_mut().enumerate() {
            send(wire, &Request::new("GET", &format!("/{}", link(at).code)));
        }
        for (at, wire) in wires.iter_mut().enumerate() {
            let answer = receive(wire);
            self.timeline.note("redirect", asked, asked.elapsed(), told(302, &answer));
            done.note(302, &link(at).target, &answer);
        }
    }

    /// The same with creates.
    fn create(&self, wires: &mut [Connection], number: usize, turn: usize, done: &mut Done) {
        let asked = Instant::now();
        for (at, wire) in wires.iter_mut().enumerate() {
            let url = format!("https://example.com/pressed/{number}/{turn}/{at}");
            send(wire, &Request::new("POST", API_LINKS).json(&json!({ "url": url })));
        }
        for wire in wires {
            let answer = receive(wire);
            self.timeline.note("create", asked, asked.elapsed(), told(201, &answer));
            done.note(201, "", &answer);
        }
    }
}

/// What an answer is, where that status is wanted.
fn told(wanted: u16, answer: &Response) -> Answer {
    match answer.status {
        status if status == wanted => Answer::Answered,
        _ if is_refused(answer) => Answer::Refused,
        _ => Answer::Failed,
    }
}

fn send(wire: &mut Connection, request: &Request) {
    wire.write(&request.bytes("127.0.0.1")).unwrap_or_else(|error| panic!("not sent: {error}"));
}

fn receive(wire: &mut Connection) -> Response {
    wire.receive(false).unwrap_or_else(|error| panic!("no answer: {error}"))
}

/// Threads that read links in memory, one each.
struct Readers {
    ended: Arc<AtomicBool>,
    times: Arc<Mutex<Vec<Duration>>>,
    threads: Vec<JoinHandle<()>>,
    /// That they read, in the timeline.
    _running: Lasting,
}

impl Readers {
    fn start(client: &Client, hot: &[KnownLink], timeline: &Timeline) -> Self {
        let (ended, times) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<Duration>>>::default());
        let read = |link: &KnownLink| {
            let (client, link, timeline) = (client.clone(), link.clone(), timeline.clone());
            let (ended, times) = (Arc::clone(&ended), Arc::clone(&times));
            std::thread::spawn(move || read(&client, &link, &timeline, &ended, &times))
        };
        let threads = hot.iter().map(read).collect();
        Self { ended, times, threads, _running: timeline.load() }
    }

    /// How long redirects took until now, sorted; those that count begin now.
    fn begin(&self) -> Vec<Duration> {
        let mut times = std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner));
        times.sort_unstable();
        times
    }

    /// Ends them; how long redirects took since then, sorted.
    fn end(mut self) -> Vec<Duration> {
        self.ended.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().for_each(|reader| joined(reader.join()));
        self.begin()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }
}

fn read(client: &Client, link: &KnownLink, timeline: &Timeline, ended: &AtomicBool, times: &Mutex<Vec<Duration>>) {
    let mut wire = client.connect();
    let request = Request::new("GET", &format!("/{}", link.code));
    // The first time it may not be in memory.
    ask_until_answered(&mut wire, &request);
    while !ended.load(Ordering::SeqCst) {
        let began = Instant::now();
        let answer = wire.call(&request).unwrap_or_else(|error| panic!("no answer: {error}"));
        timeline.note("redirect, in memory", began, began.elapsed(), told(302, &answer));
        assert_eq!(answer.header("location"), Some(link.target.as_str()), "{answer:?}");
        times.lock().unwrap_or_else(PoisonError::into_inner).push(began.elapsed());
        std::thread::sleep(READER_RESTS);
    }
}

/// Waits until redirects and creates are answered one after the other, every one of them.
fn recover(client: &Client, links: &[KnownLink], hot: &[KnownLink], limit: Duration) {
    let mut wire = client.connect();
    await_true("redirects and creates as before", limit, || {
        (0..IN_A_ROW).all(|number| {
            let link = links.iter().chain(hot).nth(number * links.len() / IN_A_ROW);
            let link = link.unwrap_or_else(|| panic!("there are no links"));
            let found = wire.call(&Request::new("GET", &format!("/{}", link.code)));
            let url = json!({ "url": format!("https://example.com/after/{number}") });
            let made = wire.call(&Request::new("POST", API_LINKS).json(&url));
            found.is_ok_and(|answer| answer.status == 302) && made.is_ok_and(|answer| answer.status == 201)
        })
    });
}

/// Metrics and health tell of what was shed.
fn assert_told(server: &Server, from: &Scrape, done: &Done) {
    let client = server.client();
    let shed = |scrape: &Scrape| scrape.sum("terse_shed_total", &[]);
    let counted = shed(&Scrape::of(&client)) - shed(from);
    assert!(counted >= done.shed as u64 / 2, "{done:?}, {counted} were counted");
    let health = client.get("/health").json();
    // Nothing is shed any more: one number, counted by the limits and by the metrics.
    assert_eq!(shed_by(&health), Some(shed(&Scrape::of(&client))), "{health}");
    // A breaker may stay open for some seconds.
    await_true("/health to be 200", RECOVERS_IN.0, || client.get("/health").status == 200);
}

/// How many requests were shed, as this health report tells.
fn shed_by(health: &Value) -> Option<u64> {
    let checks = health["checks"].as_array()?;
    checks.iter().find(|check| check["name"] == "overload:shed")?["observedValue"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, headers: &[(&str, &str)]) -> Response {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Response { status, headers, body: json!({ "code": code }).to_string().into_bytes() }
    }

    #[test]
    fn what_is_shed_is_told_from_what_is_refused_otherwise() {
        let mut done = Done::default();
        done.note(302, "https://a/", &answer(302, "", &[("location", "https://a/")]));
        done.note(201, "", &answer(201, "", &[]));
        done.note(201, "", &answer(503, "overloaded", &[("retry-after", "1")]));
        done.note(302, "https://a/", &answer(503, "store_unavailable", &[("retry-after", "1")]));
        assert_eq!([done.redirects, done.creates, done.shed, done.refused], [1; 4]);
        assert!((done.per_second(Duration::from_secs(4)) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_health_tells_of_what_was_shed_is_a_number() {
        let health = |checks| shed_by(&json!({ "checks": checks }));
        let limit = json!({ "name": "overload:limit", "observedValue": 256 });
        assert_eq!(health(json!([limit, { "name": "overload:shed", "observedValue": 7 }])), Some(7));
        assert_eq!((health(json!([limit])), health(json!([{ "name": "overload:shed" }]))), (None, None));
    }

    #[test]
    #[should_panic(expected = "302 was expected")]
    fn a_wrong_answer_ends_the_drill() {
        Done::default().note(302, "https://a/", &answer(404, "not_found", &[]));
    }
}
