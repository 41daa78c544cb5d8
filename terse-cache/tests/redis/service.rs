//! The Redis of the tests: the one that is there, and private ones.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a Redis may take to start.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often another port is tried, if somebody took the free one first.
const PORT_TRIES: u32 = 5;

/// The Redis that `TERSE_REDIS` names.
pub(crate) fn shared() -> SocketAddr {
    let Ok(url) = std::env::var("TERSE_REDIS") else {
        panic!("TERSE_REDIS names no Redis: `cargo xtask test` starts one and sets it");
    };
    let address = url.strip_prefix("redis://").expect("TERSE_REDIS is redis://address:port");
    address.trim_end_matches('/').parse().expect("TERSE_REDIS is redis://address:port")
}

/// A text that differs for each call and each run.
pub(crate) fn unique() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("t{}-{:x}-{number}", std::process::id(), since_epoch.as_millis())
}

/// A redis-server of the test's own; it ends with this.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    folder: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// Starts one with these `arguments` besides its address and folder, and waits until it answers.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        for _ in 0..PORT_TRIES {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let folder = std::env::temp_dir().join(format!("terse-redis-{}", unique()));
            std::fs::create_dir(&folder).unwrap();
            let arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            let child = spawn(address, &folder, &arguments);
            let mut server = Self { child, address, folder, arguments };
            if server.answers() {
                return server;
            }
        }
        panic!("no redis-server started on {PORT_TRIES} ports that were free a moment ago");
    }

    /// Starts it again, with the data that it saved.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.address, &self.folder, &self.arguments);
        assert!(self.answers(), "redis-server did not start again");
    }

    /// Whether it answers before long, be it that it wants a password.
    fn answers(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < START_LIMIT {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if first_answer(self.address).is_ok_and(|answer| answer == *b"+PON" || answer == *b"-NOA") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // Left behind at worst, in the folder for what may be left behind.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The beginning of what `address` says to a PING. A program that connects to
/// a free port of its own system may meet itself there, so that it connects is not enough.
fn first_answer(address: SocketAddr) -> std::io::Result<[u8; 4]> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn spawn(address: SocketAddr, folder: &PathBuf, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"]).arg(folder);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed")
}
