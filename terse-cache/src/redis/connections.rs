//! The connections to Redis: made and replaced by upkeep alone, so that no
//! look-up ever waits for one.
//!
//! Each carries many requests at once, their answers matched by order. One
//! that stays mute is given up, for the driver would wait for it for ever, and
//! with it go the requests that its driver still holds. What was asked on it is
//! never asked again elsewhere, so no answer can meet another's question.
//!
//! One to a Redis that takes no writes is replaced by upkeep: after a failover the
//! name leads to another one, and who is connected stays with the replica that
//! the old one became. The new connection is there before the old one goes, so
//! that a replica that nobody replaces is read as ever, at one connection a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError, RedisResult,
};
use terse_resilience::SettingsError;
use tokio::time::timeout;

use super::config::RedisConfig;

/// A connection is given up when so many requests in a row went without an answer …
const MUTE_TIMEOUTS: u32 = 5;
/// … and so long after the first of them, in milliseconds: a short pause of
/// Redis, which many requests meet at once, is no reason.
const MUTE_MS: u64 = 300;

/// One connection.
pub(super) struct Connection {
    driver: MultiplexedConnection,
    silence: Silence,
    /// It said that it is a replica.
    read_only: AtomicBool,
}

/// Requests without an answer since the last one with.
#[derive(Default)]
struct Silence {
    timeouts: AtomicU32,
    first_ms: AtomicU64,
}

impl Silence {
    fn ended(&self) {
        // Looking first keeps the line shared between cores.
        if self.timeouts.load(Ordering::Relaxed) != 0 {
            self.timeouts.store(0, Ordering::Relaxed);
        }
    }

    /// One more; whether that makes it mute.
    fn goes_on(&self, now_ms: u64) -> bool {
        let before = self.timeouts.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.first_ms.store(now_ms, Ordering::Relaxed);
        }
        before + 1 >= MUTE_TIMEOUTS && now_ms.saturating_sub(self.first_ms.load(Ordering::Relaxed)) >= MUTE_MS
    }
}

impl Connection {
    /// The driver's handle. Dropping its future gives up the answer, not the connection.
    pub(super) fn driver(&self) -> MultiplexedConnection {
        self.driver.clone()
    }

    /// It answered, whatever the answer.
    pub(super) fn answered(&self) {
        self.silence.ended();
    }

    /// It answered that it is a replica, which takes no writes.
    pub(super) fn refused_write(&self) {
        self.read_only.store(true, Ordering::Relaxed);
    }

    /// It did not answer in time. Tells whether to give it up.
    pub(super) fn timed_out(&self, now_ms: u64) -> bool {
        self.silence.goes_on(now_ms)
    }
}

/// Room for a connection. Locked for as long as it takes to copy a pointer.
type Place = Mutex<Option<Arc<Connection>>>;

/// All connections: so many places, each with a connection or without.
pub(super) struct Connections {
    client: Client,
    driver: AsyncConnectionConfig,
    timeout: Duration,
    places: Vec<Place>,
    next: AtomicUsize,
    /// Why the newest attempt to connect failed; `None` while all goes well.
    fault: Mutex<Option<String>>,
}

impl Connections {
    /// Places without connections; the network isn't touched.
    pub(super) fn new(config: &RedisConfig) -> Result<Self, SettingsError> {
        let client = client(config).map_err(|_| SettingsError { setting: "host", must: "be a name or an address" })?;
        // Whoever has a slot of a bulkhead finds room in the driver's queue. Timeouts are ours.
        let queue = config.gets.saturating_add(config.writes).saturating_add(config.draws) as usize;
        let driver = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(queue);
        let places = (0..config.connections).map(|_| Mutex::default()).collect();
        let (timeout, next, fault) = (config.connect_timeout, AtomicUsize::new(0), Mutex::default());
        Ok(Self { client, driver, timeout, places, next, fault })
    }

    /// A connection, in turn; `None` when there is none.
    pub(super) fn pick(&self) -> Option<Arc<Connection>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |offset: usize| self.places[first.wrapping_add(offset) % self.places.len()].lock().clone();
        (0..self.places.len()).find_map(turn)
    }

    /// Gives `connection` up; upkeep makes another.
    pub(super) fn lose(&self, connection: &Arc<Connection>, why: &str) {
        for place in &self.places {
            let mut held = place.lock();
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, connection)) {
                *held = None;
                tracing::info!(why, "connection to the cache given up");
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.places.iter().filter(|place| place.lock().is_some()).count()
    }

    /// Why there is none, for people to read.
    pub(super) fn fault(&self) -> String {
        self.fault.lock().clone().unwrap_or_else(|| "not connected".to_owned())
    }

    /// Asks every connection for a sign of life and makes those that lack, all
    /// side by side. Takes at most twice the timeout.
    pub(super) async fn upkeep_once(&self) {
        let steps = join_all(self.places.iter().map(|place| self.upkeep(place))).await;
        self.tell(steps.into_iter().find_map(Result::err));
    }

    async fn upkeep(&self, place: &Place) -> Result<(), String> {
        let held = place.lock().clone();
        if let Some(connection) = held {
            match self.ping(connection.driver()).await {
                // An error is an answer too: a new connection would get the same.
                Ok(answer) => {
                    connection.answered();
                    answer.map_err(|error| error.to_string())?;
                    if !connection.read_only.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                }
                Err(why) => self.lose(&connection, &why),
            }
        }
        let driver = self.connect().await?;
        let connection = Connection { driver, silence: Silence::default(), read_only: AtomicBool::new(false) };
        *place.lock() = Some(Arc::new(connection));
        Ok(())
    }

    /// A connection that has answered: the system accepts connections for a stopped Redis too.
    async fn connect(&self) -> Result<MultiplexedConnection, String> {
        let made = timeout(self.timeout, async {
            let mut driver = self.client.get_multiplexed_async_connection_with_config(&self.driver).await?;
            redis::cmd("PING").exec_async(&mut driver).await?;
            Ok::<_, RedisError>(driver)
        });
        match made.await {
            Ok(made) => made.map_err(|error| error.to_string()),
            Err(_elapsed) => Err(self.no_answer()),
        }
    }

    /// What Redis says to a sign of life.
    ///
    /// # Errors
    /// When it says nothing.
    pub(super) async fn ping(&self, mut driver: MultiplexedConnection) -> Result<Result<(), RedisError>, String> {
        match timeout(self.timeout, redis::cmd("PING").exec_async(&mut driver)).await {
            Ok(Err(error)) if error.code().is_none() => Err(error.to_string()),
            Ok(answer) => Ok(answer),
            Err(_elapsed) => Err(self.no_answer()),
        }
    }

    fn no_answer(&self) -> String {
        format!("no answer within {} ms", self.timeout.as_millis())
    }

    /// Logs where it changes, not each second.
    fn tell(&self, fault: Option<String>) {
        let before = std::mem::replace(&mut *self.fault.lock(), fault.clone());
        match (before, fault) {
            (before, Some(fault)) if before.as_ref() != Some(&fault) => {
                tracing::warn!(fault, "the cache is out of reach; redirects go on without it");
            }
            (Some(_), None) => tracing::info!("the cache is in reach again"),
            _ => {}
        }
    }
}

/// Whether a replica said that it takes no writes. Before Redis 7 a script wraps that in an error of its own.
pub(super) fn is_replicas(error: &RedisError) -> bool {
    error.code() == Some("READONLY") || error.detail().is_some_and(|text| text.contains("-READONLY "))
}

fn client(config: &RedisConfig) -> RedisResult<Client> {
    let mut login = RedisConnectionInfo::default().set_db(i64::from(config.db)).set_skip_set_lib_name();
    if let Some(credentials) = &config.credentials {
        login = login.set_password(&credentials.password);
        if let Some(user) = &credentials.user {
            login = login.set_username(user);
        }
    }
    let address = ConnectionAddr::Tcp(config.host.clone(), config.port).into_connection_info()?;
    // Nagle's rule would hold a request back until the one before is acknowledged.
    let settings = TcpSettings::default().set_nodelay(true);
    Client::open(address.set_tcp_settings(settings).set_redis_settings(login))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_mute_after_timeouts_in_a_row_and_some_time() {
        let silence = Silence::default();
        let burst = (0..100).map(|_| silence.goes_on(1_000)).filter(|mute| *mute).count();
        assert_eq!(burst, 0, "many at once are one pause");
        assert!(!silence.goes_on(1_000 + MUTE_MS - 1));
        assert!(silence.goes_on(1_000 + MUTE_MS));
    }

    #[test]
    fn a_replica_is_known_by_its_error_whether_a_script_wraps_it_or_not() {
        use redis::{ErrorKind, ServerErrorKind};
        let told = |kind, detail: &str| RedisError::from((ErrorKind::Server(kind), "told by Redis", detail.to_owned()));
        assert!(is_replicas(&told(ServerErrorKind::ReadOnly, "You can't write against a read only replica.")));
        let wrapped = "Error running script (call to f_1a): @user_script:12: -READONLY You can't write against it.";
        assert!(is_replicas(&told(ServerErrorKind::ResponseError, wrapped)));
        assert!(!is_replicas(&told(ServerErrorKind::BusyLoading, "Redis is loading the dataset in memory")));
        assert!(!is_replicas(&RedisError::from((ErrorKind::Io, "a wire that broke"))));
    }

    #[test]
    fn few_timeouts_are_not_enough_however_long_they_take() {
        let silence = Silence::default();
        for n in 1..MUTE_TIMEOUTS {
            assert!(!silence.goes_on(u64::from(n) * 10_000));
        }
        assert!(silence.goes_on(u64::from(MUTE_TIMEOUTS) * 10_000));
    }

    #[test]
    fn nothing_waits_for_an_acknowledgement_and_logins_go_along() {
        let namespace = crate::redis::Namespace::new("d1", None).unwrap();
        let mut config = RedisConfig::new("::1", 6_380, namespace);
        config.db = 3;
        let credentials = super::super::Credentials { user: Some("alice".to_owned()), password: "p@:/".to_owned() };
        config.credentials = Some(credentials);
        let made = client(&config).unwrap();
        let info = made.get_connection_info();
        assert!(info.tcp_settings().nodelay());
        assert_eq!(info.addr(), &ConnectionAddr::Tcp("::1".to_owned(), 6_380));
        let login = info.redis_settings();
        assert_eq!((login.db(), login.username(), login.password()), (3, Some("alice"), Some("p@:/")));
    }

    #[test]
    fn an_answer_ends_the_silence() {
        let silence = Silence::default();
        (0..50).for_each(|_| assert!(!silence.goes_on(0)));
        silence.ended();
        assert!(!silence.goes_on(10_000), "the first since then");
        (1..MUTE_TIMEOUTS).for_each(|_| assert!(!silence.goes_on(10_000 + MUTE_MS - 1)));
        assert!(silence.goes_on(10_000 + MUTE_MS));
    }
}
