//! A real server on a free port, over a memory store with faults on schedule,
//! and a client that sends exactly the bytes it is told to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde_json::Value;
use terse_core::access::{Authenticator, Caller, Denied, KeyRequest, KeyText, PresentedKey};
use terse_core::codegen::CodeSource;
use terse_core::metrics::Metrics;
use terse_core::ports::{AttemptId, DependencyHealth, LinkReader, LinkWriter, Lookup, StoreError, Tier};
use terse_core::shorten::Shortener;
use terse_core::{ApiKey, Clock, Link, Resolution, Role, ShortCode, Timestamp, UrlPolicy};
use terse_http::{
    Access, Bounds, Lifecycle, Limits, Phase, RedirectStatus, ServerHandle, Settings, State, Surfaces, TrustedProxies,
};
use terse_resilience::{Breaker, BreakerSettings, Breakers};
use terse_store::MemoryStore;
use terse_testkit::{FaultyStore, SeededEntropy, TestClock};

use self::blocking::Blocks;
use self::counts::Counts;
use self::recorded::Recorded;

#[path = "blocking.rs"]
pub(crate) mod blocking;
#[path = "counts.rs"]
pub(crate) mod counts;
#[path = "recorded.rs"]
pub(crate) mod recorded;

/// No answer of these tests takes longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes limits on a clock, counted in the metrics.
pub(crate) type MakeLimits = Box<dyn Fn(&Arc<TestClock>, &Metrics) -> Limits>;

/// What a test may choose before the server starts.
pub(crate) struct Choices {
    pub(crate) status: RedirectStatus,
    pub(crate) surfaces: Surfaces,
    pub(crate) bounds: Bounds,
    pub(crate) keys: Option<Arc<Keys>>,
    pub(crate) public_url: String,
    pub(crate) dependencies: Vec<Arc<dyn DependencyHealth>>,
    pub(crate) trusted_proxies: TrustedProxies,
    /// The directory of the book.
    pub(crate) docs_dir: Option<PathBuf>,
    /// Makes the limits, on the clock of the server.
    pub(crate) limits: MakeLimits,
    /// Whether redirects from memory are answered beneath the HTTP server.
    pub(crate) lane: bool,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            status: RedirectStatus::Found,
            surfaces: Surfaces { redirect: true, api: true },
            bounds: Bounds::default(),
            keys: None,
            public_url: "https://go.example.org".to_owned(),
            dependencies: vec![],
            trusted_proxies: TrustedProxies::default(),
            docs_dir: None,
            limits: Box::new(|_, _| Limits::default()),
            lane: true,
        }
    }
}

/// A running server; dropping it stops it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<FaultyStore<MemoryStore>>,
    pub(crate) reader: Arc<Remembering>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) breakers: Arc<Breakers>,
    /// What admins block.
    pub(crate) blocks: Arc<Blocks>,
    /// What was counted of clicks.
    pub(crate) counted: Arc<Counts>,
    /// What was recorded of clicks.
    pub(crate) recorded: Arc<Recorded>,
    state: State,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(Choices::default())
    }

    pub(crate) fn with(choices: Choices) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(FaultyStore::new(Arc::new(MemoryStore::new())));
        let reader = Arc::new(Remembering::nothing(store.clone()));
        let clock = Arc::new(TestClock::default());
        let entropy = Arc::new(SeededEntropy::new(7));
        let breakers = Arc::new(breakers(&clock));
        let (counted, recorded) = (Arc::new(Counts::default()), Arc::new(Recorded::default()));
        let blocks = Arc::new(Blocks::default());
        let (lifecycle, metrics) = (Lifecycle::starting(), Arc::new(Metrics::new()));
        lifecycle.enter(Phase::Ready);
        let shortener = Shortener {
            codes: Arc::new(Counted(AtomicU64::new(0))),
            writer: store.clone(),
            catalog: store.clone(),
            idempotency: store.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            metrics: metrics.clone(),
        };
        let settings = Settings {
            public_url: choices.public_url,
            listen: address,
            redirect_status: choices.status,
            redirect_max_age_s: 600,
            surfaces: choices.surfaces,
            trusted_proxies: choices.trusted_proxies,
            bounds: choices.bounds,
            docs_dir: choices.docs_dir,
            release: "1.2.3",
        };
        let state = State {
            shortener: Arc::new(shortener),
            resolver: reader.clone(),
            catalog: store.clone(),
            stats: counted.clone(),
            recording: Some(recorded.clone()),
            blocking: blocks.clone(),
            policy: Arc::new(UrlPolicy::new("go.example.org", false).refusing(blocks.blocked.clone())),
            access: choices.keys.map_or(Access::Open, |keys| Access::Keys(keys)),
            store_health: store.clone(),
            dependencies: choices.dependencies,
            breakers: breakers.clone(),
            limits: Arc::new((choices.limits)(&clock, &metrics)),
            lifecycle: lifecycle.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            entropy,
            settings: Arc::new(settings),
        };
        let (handle, thread) = run(listener, state.clone(), choices.lane);
        Self {
            address,
            store,
            reader,
            clock,
            lifecycle,
            metrics,
            counted,
            recorded,
            breakers,
            blocks,
            state,
            handle,
            thread: Some(thread),
        }
    }

    /// What stops it.
    pub(crate) fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// All that its handlers have.
    pub(crate) fn state(&self) -> State {
        self.state.clone()
    }

    /// Puts `link` into the store, behind the server's back.
    pub(crate) fn put(&self, link: &Link) {
        let attempt = AttemptId([9; 16]);
        self.store.inner().insert_if_absent(link, attempt).now_or_never().unwrap().unwrap();
    }

    /// A request with `Host: localhost` that ends its connection.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Request {
        Request {
            address: self.address,
            method: method.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path).send()
    }

    /// A request with a JSON body.
    pub(crate) fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.ask(method, path).json(&body.to_string()).send()
    }

    /// Creates a link and returns it.
    pub(crate) fn create(&self, body: &Value) -> Value {
        let answer = self.json("POST", "/api/v1/links", body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.value()
    }

    /// Sends `bytes` as they are and returns all that comes back until the server closes the connection.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read_to_end(&mut stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The value of the metric line that starts with `name`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.encode().unwrap();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
    }
}

/// The two breakers of a shard, as the textbook sets them.
fn breakers(clock: &Arc<TestClock>) -> Breakers {
    let mut breakers = Breakers::new();
    for name in ["main/read", "main/write"] {
        let time = clock.clone();
        let breaker = Breaker::new(BreakerSettings::default(), Arc::new(move || time.monotonic_ms()), 7).unwrap();
        breakers.add(name, Arc::new(breaker)).unwrap();
    }
    breakers
}

fn run(listener: TcpListener, state: State, lane: bool) -> (ServerHandle, JoinHandle<()>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let serve = if lane { terse_http::serve } else { terse_http::serve_without_lane };
            let server = serve(vec![listener], state).unwrap();
            sender.send(server.handle()).unwrap();
            server.await.unwrap();
        });
    });
    (receiver.recv().unwrap(), thread)
}

impl Drop for Server {
    fn drop(&mut self) {
        // The command is sent by the call already; what the future waits for is the thread's end, joined below.
        let _ = self.handle.stop(false).now_or_never();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// All that arrives until the end of the connection; a reset counts as its end.
pub(crate) fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return bytes,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
            Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
}

/// A request before it is sent.
pub(crate) struct Request {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn json(self, body: &str) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    pub(crate) fn form(self, body: &str) -> Self {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    pub(crate) fn send(self) -> Answer {
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            head.push_str("Host: localhost\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PATCH" | "PUT") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[head.as_bytes(), b"\r\n", &self.body].concat()).unwrap();
        Answer::parse(&read_to_end(&mut stream))
    }
}

/// An answer, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// Takes apart one answer whose body reaches to the end of `bytes`.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    /// The only header called `name`.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| header == name).map(|(_, value)| value.as_str());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is sent twice");
        value
    }

    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that this is the problem `code` under `status`, well-formed and not cached.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        assert_eq!(self.header("x-content-type-options"), Some("nosniff"), "{self:?}");
        let problem = self.value();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:terse:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{problem}");
        problem
    }

    /// Asserts that this is a 422 with exactly these faults, as `field: code`.
    #[track_caller]
    pub(crate) fn assert_faults(&self, expected: &[&str]) {
        let problem = self.assert_problem(422, "validation_failed");
        assert_eq!(faults(&problem), expected, "{problem}");
    }
}

/// The faults of a problem, as `field: code`.
pub(crate) fn faults(problem: &Value) -> Vec<String> {
    let faults = problem["errors"].as_array().cloned().unwrap_or_default();
    assert!(faults.iter().all(|fault| fault["detail"].is_string()), "{problem}");
    faults.iter().map(|f| format!("{}: {}", f["field"].as_str().unwrap(), f["code"].as_str().unwrap())).collect()
}

/// A reader with a memory that a test fills by hand, and a count of how often anything was asked.
pub(crate) struct Remembering {
    inner: Arc<FaultyStore<MemoryStore>>,
    pub(crate) known: Mutex<HashMap<String, Resolution>>,
    /// What a cache that nodes share would know.
    pub(crate) near: Mutex<HashMap<String, Resolution>>,
    pub(crate) asked: AtomicUsize,
}

impl Remembering {
    fn nothing(inner: Arc<FaultyStore<MemoryStore>>) -> Self {
        Self { inner, known: Mutex::default(), near: Mutex::default(), asked: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl LinkReader for Remembering {
    fn peek(&self, code: &str) -> Option<Lookup> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.known.lock().get(code).map(|link| Lookup { link: Some(link.clone()), tier: Tier::L1 })
    }

    async fn resolve(&self, code: &ShortCode) -> Result<Lookup, StoreError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.inner.resolve(code).await
    }

    async fn resolve_near(&self, code: &ShortCode) -> Option<Lookup> {
        let near = self.near.lock().get(code.as_str()).cloned();
        self.peek(code.as_str()).or(near.map(|link| Lookup { link: Some(link), tier: Tier::L2 }))
    }
}

/// Codes c1, c2, c3 …
struct Counted(AtomicU64);

#[async_trait]
impl CodeSource for Counted {
    async fn next_code(&self) -> Result<ShortCode, StoreError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(ShortCode::parse(&format!("c{number}")).unwrap())
    }
}

/// Keys, and whether they can be checked at all.
#[derive(Default)]
pub(crate) struct Keys {
    keys: Mutex<Vec<ApiKey>>,
    pub(crate) unavailable: std::sync::atomic::AtomicBool,
}

impl Keys {
    pub(crate) fn issue(&self, name: &str, role: Role) -> KeyText {
        let mut keys = self.keys.lock();
        let entropy = SeededEntropy::new(100 + keys.len() as u64);
        let request = KeyRequest { name: name.into(), role, owner: None, expires_at: None };
        let (key, text) = ApiKey::issue(request, TestClock::default().now(), &entropy);
        keys.push(key);
        text
    }
}

impl Authenticator for Keys {
    fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, Denied> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(Denied::Unavailable);
        }
        let presented = PresentedKey::parse(presented).map_err(|_| Denied::Unknown)?;
        let keys = self.keys.lock();
        let key = keys.iter().find(|key| key.admits(&presented, now)).ok_or(Denied::Unknown)?;
        Ok(Caller { owner: key.owner.clone(), role: key.role, key: Some(key.id.clone()) })
    }
}
