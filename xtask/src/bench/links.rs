//! The links that are measured with: made by the batch API, resolved by
//! redirects whose every answer is checked against the very target.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::draw::Draw;
use super::generator::{Connections, Load, Pace, Workload, drive};
use super::wire::{Answer, Get, post};

/// How many links one batch makes; the API's most.
const BATCH: usize = 1_000;
/// Connections that fill at once.
const FILL_CONNECTIONS: usize = 4;
/// How long filling may take.
const FILL_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Where link number `index` leads: a URL of usual length, different for each.
#[must_use]
pub fn target(index: usize) -> String {
    format!("https://www.example.com/catalogue/item-{index:09}?utm_source=newsletter&utm_medium=mail")
}

/// A link: its code and its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The code, as it stands in the path.
    pub code: Box<str>,
    /// The number of the [`target`].
    pub index: usize,
}

/// Creates `count` links through the batch API.
///
/// # Errors
/// When any of them isn't created, or two get one code.
pub fn fill(address: SocketAddr, count: usize) -> Result<Vec<Pair>> {
    let mut workload = Fill { address, count, next: 0, links: Vec::with_capacity(count) };
    drive(address, &unhurried(FILL_CONNECTIONS), &mut workload, &mut || Ok(()))?;
    let mut links = workload.links;
    if links.len() != count {
        bail!("{} links of {count} were made in time", links.len());
    }
    assert_distinct(&links)?;
    links.sort_by_key(|pair| pair.index);
    Ok(links)
}

/// As fast as the server answers, until the workload has no more requests.
#[must_use]
pub fn unhurried(connections: usize) -> Load {
    let (kind, pace) = (Connections::Kept, Pace::Closed);
    Load { connections, kind, pace, warm_up: Duration::ZERO, window: FILL_LIMIT }
}

/// Fails if two links have one code.
///
/// # Errors
/// With how many codes are missing.
pub fn assert_distinct(links: &[Pair]) -> Result<()> {
    let codes: HashSet<&str> = links.iter().map(|pair| &*pair.code).collect();
    if codes.len() != links.len() {
        bail!("{} links have only {} codes", links.len(), codes.len());
    }
    Ok(())
}

struct Fill {
    address: SocketAddr,
    count: usize,
    next: usize,
    links: Vec<Pair>,
}

impl Workload for Fill {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        let first = self.next;
        self.next = (first + BATCH).min(self.count);
        let items: Vec<Value> = (first..self.next).map(|index| json!({"url": target(index)})).collect();
        if items.is_empty() {
            return None;
        }
        *out = post(self.address, "/api/v1/links/batch", &json!({"items": items}).to_string());
        Some(first as u64)
    }

    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()> {
        if answer.status != 200 {
            bail!("a batch was answered {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        let body: Value = serde_json::from_slice(answer.body).context("reading the answer to a batch")?;
        let items = body["items"].as_array().context("a batch without items")?;
        let first = id as usize;
        if items.len() != BATCH.min(self.count - first) {
            bail!("a batch of {} items", items.len());
        }
        for (offset, item) in items.iter().enumerate() {
            if item["status"] != 201 {
                bail!("an item was answered {item}");
            }
            self.links.push(created(&item["link"], first + offset)?);
        }
        Ok(())
    }
}

/// The link number `index` as the API tells it.
///
/// # Errors
/// When it leads elsewhere or has no code.
fn created(link: &Value, index: usize) -> Result<Pair> {
    if link["url"] != target(index) {
        bail!("link {index} leads to {}", link["url"]);
    }
    let code = link["code"].as_str().context("a link without a code")?;
    Ok(Pair { code: code.into(), index })
}

/// Creates links one by one.
pub struct Creates {
    address: SocketAddr,
    next: usize,
    /// What was created.
    pub links: Vec<Pair>,
}

impl Creates {
    /// Creates on the server at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, next: 0, links: Vec::new() }
    }
}

impl Workload for Creates {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        let index = self.next;
        self.next += 1;
        *out = post(self.address, "/api/v1/links", &format!("{{\"url\":\"{}\"}}", target(index)));
        Some(index as u64)
    }

    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()> {
        if answer.status != 201 {
            bail!("a create was answered {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        }
        let link: Value = serde_json::from_slice(answer.body).context("reading the answer to a create")?;
        self.links.push(created(&link, id as usize)?);
        Ok(())
    }
}

/// Links with their whole targets, shared by all who follow them. Each knows how often it has redirected.
#[derive(Clone)]
pub struct Targets(Arc<Followed>);

struct Followed {
    links: Vec<Link>,
    unread: AtomicU64,
}

struct Link {
    code: Box<str>,
    target: Box<str>,
    followed: AtomicU64,
}

impl Targets {
    /// Of these links, in their order.
    #[must_use]
    pub fn of(links: &[Pair]) -> Self {
        let link = |pair: &Pair| Link {
            code: pair.code.clone(),
            target: target(pair.index).into(),
            followed: AtomicU64::new(0),
        };
        Self(Arc::new(Followed { links: links.iter().map(link).collect(), unread: AtomicU64::new(0) }))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.links.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.links.is_empty()
    }

    /// Their codes.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.0.links.iter().map(|link| &*link.code)
    }

    /// The code of the link `index`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn code(&self, index: usize) -> &str {
        &self.0.links[index].code
    }

    /// Notes a redirect of the link `index`.
    ///
    /// # Panics
    /// When there is none.
    pub fn follow(&self, index: usize) {
        self.0.links[index].followed.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the link `index` has redirected.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn followed_of(&self, index: usize) -> u64 {
        self.0.links[index].followed.load(Ordering::Relaxed)
    }

    /// How often they have redirected.
    #[must_use]
    pub fn followed(&self) -> u64 {
        self.0.links.iter().map(|link| link.followed.load(Ordering::Relaxed)).sum()
    }

    /// Notes that the answers to at most `count` requests are known to nobody.
    pub fn abandon(&self, count: u64) {
        self.0.unread.fetch_add(count, Ordering::Relaxed);
    }

    /// How many requests may have been answered, which nobody knows.
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.0.unread.load(Ordering::Relaxed)
    }
}

/// Follows links.
pub struct Redirects {
    get: Get,
    links: Targets,
    order: Arc<[u32]>,
    at: usize,
    repeats: bool,
}

impl Redirects {
    /// Follows `links` in `order`, over and over.
    #[must_use]
    pub fn repeated(links: &[Pair], order: Vec<u32>) -> Self {
        Self::over(&Targets::of(links), order.into())
    }

    /// Follows `links` in `order`, over and over.
    #[must_use]
    pub fn over(links: &Targets, order: Arc<[u32]>) -> Self {
        Self { get: Get::default(), links: links.clone(), order, at: 0, repeats: true }
    }

    /// Follows `links` in `order` once.
    #[must_use]
    pub fn through(links: &Targets, order: Arc<[u32]>) -> Self {
        Self { repeats: false, ..Self::over(links, order) }
    }

    /// The same, asking for each connection to be closed after its answer.
    #[must_use]
    pub fn closing(self) -> Self {
        Self { get: Get::closing(), ..self }
    }

    /// Follows each of `links` once.
    #[must_use]
    pub fn once(links: &[Pair]) -> Self {
        Self::through(&Targets::of(links), (0..links.len()).map(|index| index as u32).collect())
    }
}

impl Workload for Redirects {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        if self.at == self.order.len() && self.repeats {
            self.at = 0;
        }
        let index = *self.order.get(self.at)?;
        self.at += 1;
        self.get.write(self.links.code(index as usize).as_bytes(), out);
        Some(u64::from(index))
    }

    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()> {
        let Link { code, target, .. } = &self.links.0.links[id as usize];
        if answer.status != 302 || answer.location != Some(target.as_bytes()) {
            let location = answer.location.map(String::from_utf8_lossy);
            bail!("/{code} was answered {} {location:?} instead of 302 {target}", answer.status);
        }
        self.links.follow(id as usize);
        Ok(())
    }
}

/// Asks for codes that no link has.
pub struct Unknown {
    get: Get,
    codes: Vec<[u8; UNKNOWN_LENGTH]>,
    at: usize,
}

/// As long as the codes that terse makes.
const UNKNOWN_LENGTH: usize = 7;
/// What a code is made of.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Unknown {
    /// `count` codes that `known` has not, over and over.
    #[must_use]
    pub fn beside(known: &Targets, count: usize, draw: &mut Draw) -> Self {
        let known: HashSet<&[u8]> = known.codes().map(str::as_bytes).collect();
        let mut codes = Vec::with_capacity(count);
        while codes.len() < count {
            let code: [u8; UNKNOWN_LENGTH] = std::array::from_fn(|_| LETTERS[draw.below(LETTERS.len())]);
            if !known.contains(&code[..]) {
                codes.push(code);
            }
        }
        Self { get: Get::default(), codes, at: 0 }
    }
}

impl Workload for Unknown {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        let index = self.at;
        self.get.write(self.codes.get(index)?, out);
        self.at = (index + 1) % self.codes.len();
        Some(index as u64)
    }

    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()> {
        if answer.status != 404 || answer.location.is_some() {
            let code = String::from_utf8_lossy(&self.codes[id as usize]);
            bail!("the unknown /{code} was answered {}", answer.status);
        }
        Ok(())
    }
}

/// How often a link is asked for at most, where a refusal may be asked again.
const PASSES: usize = 10;
/// How long a server that refuses is left alone: what it asks for.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Redirects that may be refused for now: those are noted.
struct Patient {
    inner: Redirects,
    refused: Vec<u32>,
}

impl Workload for Patient {
    fn request(&mut self, out: &mut Vec<u8>) -> Option<u64> {
        self.inner.request(out)
    }

    fn check(&mut self, id: u64, answer: &Answer<'_>) -> Result<()> {
        if answer.status == 503 {
            self.refused.push(id as u32);
            return Ok(());
        }
        self.inner.check(id, answer)
    }
}

/// Follows each of `links` until it has redirected once, as fast as the server
/// answers. On a busy machine the store may refuse for a moment, which is no
/// part of a measurement here: those are asked for again.
///
/// # Errors
/// When any doesn't redirect to its target, or is refused again and again.
pub fn follow_all(address: SocketAddr, links: &Targets, connections: usize) -> Result<()> {
    follow_in_order(address, links, (0..links.len()).map(|index| index as u32).collect(), connections)
}

/// The same for `links` in `order`, in which a link may come often.
///
/// # Errors
/// When any doesn't redirect to its target, or is refused again and again.
pub fn follow_in_order(address: SocketAddr, links: &Targets, order: Arc<[u32]>, connections: usize) -> Result<()> {
    let mut order = order;
    for _ in 0..PASSES {
        let expected = order.len() as u64;
        let mut workload = Patient { inner: Redirects::through(links, order), refused: Vec::new() };
        let outcome = drive(address, &unhurried(connections), &mut workload, &mut || Ok(()))?;
        if outcome.answers != expected {
            bail!("{} of {expected} links were followed", outcome.answers);
        }
        order = workload.refused.into();
        if order.is_empty() {
            return Ok(());
        }
        println!("{} redirects were refused for now", order.len());
        std::thread::sleep(PAUSE);
    }
    bail!("{} links were refused {PASSES} times", order.len())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    fn pair(code: &str, index: usize) -> Pair {
        Pair { code: code.into(), index }
    }

    fn answer<'a>(status: u16, location: Option<&'a str>, body: &'a str) -> Answer<'a> {
        Answer { status, location: location.map(str::as_bytes), body: body.as_bytes(), keep_alive: true, bytes: 0 }
    }

    fn address() -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    #[test]
    fn targets_differ_and_have_one_length() {
        assert_ne!(target(1), target(2));
        assert_eq!(target(1).len(), target(999_999).len());
    }

    #[test]
    fn a_redirect_must_be_302_to_the_very_target() {
        let mut redirects = Redirects::repeated(&[pair("aaaaaaa", 1), pair("bbbbbbb", 2)], vec![1, 0]);
        let mut out = Vec::new();
        assert_eq!(redirects.request(&mut out), Some(1));
        assert!(out.starts_with(b"GET /bbbbbbb HTTP/1.1\r\n"));
        assert!(redirects.check(1, &answer(302, Some(&target(2)), "")).is_ok());
        for wrong in [answer(302, Some(&target(1)), ""), answer(301, Some(&target(2)), ""), answer(302, None, "")] {
            let error = redirects.check(1, &wrong).unwrap_err().to_string();
            assert!(error.starts_with("/bbbbbbb was answered"), "{error}");
        }
    }

    #[test]
    fn redirects_are_counted_for_each_link_when_they_were_right() {
        let links = Targets::of(&[pair("aaaaaaa", 1), pair("bbbbbbb", 2)]);
        let mut redirects = Redirects::over(&links, [0, 1].into());
        for _ in 0..2 {
            redirects.check(1, &answer(302, Some(&target(2)), "")).unwrap();
        }
        assert!(redirects.check(0, &answer(404, None, "")).is_err());
        links.clone().abandon(3);
        assert_eq!((links.followed_of(0), links.followed_of(1), links.followed(), links.unread()), (0, 2, 2, 3));
    }

    #[test]
    fn redirects_repeat_their_order_or_end_after_it() {
        let links = [pair("a", 1), pair("b", 2)];
        let asked = |mut redirects: Redirects| -> Vec<Option<u64>> {
            (0..3).map(|_| redirects.request(&mut Vec::new())).collect()
        };
        assert_eq!(asked(Redirects::repeated(&links, vec![1, 0])), [Some(1), Some(0), Some(1)]);
        assert_eq!(asked(Redirects::once(&links)), [Some(0), Some(1), None]);
    }

    #[test]
    fn redirects_of_a_churn_ask_for_the_end_of_their_connection() {
        let links = Targets::of(&[pair("a", 1)]);
        assert_eq!((links.len(), links.is_empty()), (1, false));
        let mut out = Vec::new();
        Redirects::over(&links, vec![0].into()).closing().request(&mut out);
        assert!(String::from_utf8(out).unwrap().contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn unknown_codes_are_none_of_the_known_and_must_be_answered_404() {
        let mut draw = Draw::seeded(5);
        let first = Unknown::beside(&Targets::of(&[]), 2, &mut draw.clone()).codes;
        let known = std::str::from_utf8(&first[0]).unwrap();
        let mut unknown = Unknown::beside(&Targets::of(&[pair(known, 1)]), 1, &mut draw);
        assert_eq!(unknown.codes, [first[1]], "the known one is passed over");
        let mut out = Vec::new();
        assert_eq!(unknown.request(&mut out), Some(0));
        assert!(out[5..].starts_with(&first[1]));
        assert_eq!(unknown.request(&mut out), Some(0), "over and over");
        assert!(unknown.check(0, &answer(404, None, "no")).is_ok());
        for wrong in [answer(302, Some("x"), ""), answer(503, None, ""), answer(404, Some("x"), "")] {
            assert!(unknown.check(0, &wrong).unwrap_err().to_string().starts_with("the unknown /"));
        }
    }

    #[test]
    fn what_is_refused_for_now_is_noted_and_what_is_wrong_is_an_error() {
        let links = Targets::of(&[pair("aaaaaaa", 1), pair("bbbbbbb", 2)]);
        let inner = Redirects::through(&links, [0, 1].into());
        let mut patient = Patient { inner, refused: vec![] };
        assert_eq!(patient.request(&mut Vec::new()), Some(0));
        assert!(patient.check(1, &answer(503, None, "")).is_ok());
        assert!(patient.check(0, &answer(302, Some(&target(1)), "")).is_ok());
        assert_eq!(patient.refused, [1]);
        assert!(patient.check(1, &answer(404, None, "")).is_err());
    }

    /// Serves connections one after the other, whose requests get `answers` in turn, over all of them.
    fn serve(answers: Vec<String>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut answers = answers.into_iter();
            while answers.len() > 0 {
                let (mut stream, _) = listener.accept().unwrap();
                while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                    let Some(answer) = answers.next() else { return };
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn what_is_refused_is_followed_again_and_nothing_else() {
        let links = Targets::of(&[pair("aaaaaaa", 1), pair("bbbbbbb", 2)]);
        let to = |index| format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", target(index));
        let refused = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n".to_owned();
        let address = serve(vec![to(2), refused, to(2), to(1)]);
        follow_in_order(address, &links, [1, 0, 1].into(), 1).unwrap();
        let wrong = serve(vec![to(2), to(1)]);
        assert!(follow_in_order(wrong, &links, [1, 1].into(), 1).is_err());
    }

    #[test]
    fn a_create_must_be_201_with_its_own_target() {
        let mut creates = Creates::new(address());
        let mut out = Vec::new();
        assert_eq!(creates.request(&mut out), Some(0));
        assert!(String::from_utf8(out).unwrap().ends_with(&format!("{{\"url\":\"{}\"}}", target(0))));
        let body = json!({"code": "abcdefg", "url": target(0)}).to_string();
        assert!(creates.check(0, &answer(201, None, &body)).is_ok());
        assert_eq!(creates.links, [pair("abcdefg", 0)]);
        assert!(creates.check(1, &answer(201, None, &body)).is_err(), "another link's target");
        assert!(creates.check(0, &answer(200, None, &body)).is_err());
        assert!(creates.check(0, &answer(201, None, "{}")).is_err());
    }

    #[test]
    fn a_fill_asks_for_whole_batches_and_a_rest() {
        let mut fill = Fill { address: address(), count: BATCH + 1, next: 0, links: vec![] };
        let items = |out: &[u8]| -> usize {
            let text = String::from_utf8_lossy(out);
            let body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
            body["items"].as_array().unwrap().len()
        };
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert_eq!((fill.request(&mut first), items(&first)), (Some(0), BATCH));
        assert_eq!((fill.request(&mut second), items(&second)), (Some(BATCH as u64), 1));
        assert_eq!(fill.request(&mut Vec::new()), None);
        let item = json!({"status": 201, "link": {"code": "abcdefg", "url": target(BATCH)}});
        let body = json!({"items": [item]}).to_string();
        assert!(fill.check(BATCH as u64, &answer(200, None, &body)).is_ok());
        assert_eq!(fill.links, [pair("abcdefg", BATCH)]);
        assert!(fill.check(0, &answer(200, None, &body)).is_err(), "an item for a thousand");
        let refused = json!({"items": [{"status": 429}]}).to_string();
        assert!(fill.check(BATCH as u64, &answer(200, None, &refused)).is_err());
    }

    #[test]
    fn one_code_for_two_links_is_an_error() {
        assert!(assert_distinct(&[pair("a", 1), pair("b", 2)]).is_ok());
        let error = assert_distinct(&[pair("a", 1), pair("a", 2)]).unwrap_err();
        assert_eq!(error.to_string(), "2 links have only 1 codes");
    }
}
