//! The servers under test, each on the server core: terse, nginx, the floor.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::SIGTERM;

use super::pin::on_core;
use super::wire::parse;
use crate::process::{Group, Supervisor};

/// How long a server may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take that is on a cluster: at its first start it makes keyspaces and tables there.
const FIRST_START_LIMIT: Duration = Duration::from_secs(120);
/// How long one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How many lines of a server's log are shown when it fails.
const LOG_LINES: usize = 10;

/// A running server.
pub struct Server {
    group: Group,
    /// Where it listens.
    pub address: SocketAddr,
    /// How long it took from its start to its first good answer.
    pub ready_after: Duration,
}

impl Server {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.group.pid()
    }

    /// Has it live through a first signal, so that load on it can end before it does: see [`Group::spare`].
    pub fn spare(&self) {
        self.group.spare();
    }

    /// Asks it to end and waits for that.
    ///
    /// # Errors
    /// When it had to be killed, or said that it failed.
    pub fn stop(self) -> Result<()> {
        let status = self.group.stop()?;
        // The floor doesn't look at signals: it just ends.
        if !status.success() && status.signal() != Some(SIGTERM) {
            bail!("the server ended with {status}");
        }
        Ok(())
    }
}

/// Starts servers.
pub struct Servers<'a> {
    /// Ends them in the end.
    pub supervisor: &'a Supervisor,
    /// Where they run.
    pub core: usize,
    /// Where they keep what they keep.
    pub folder: PathBuf,
}

impl Servers<'_> {
    /// Starts the program `terse` on the data directory `data`, with everything else as it comes but the limits off.
    ///
    /// # Errors
    /// When it isn't ready in time.
    pub fn terse(&self, program: &Path, data: &Path) -> Result<Server> {
        self.terse_with(program, data, None)
    }

    /// The same, with what the file `config` says besides.
    ///
    /// # Errors
    /// As [`Servers::terse`].
    pub fn terse_with(&self, program: &Path, data: &Path, config: Option<&Path>) -> Result<Server> {
        let (mut command, address) = self.terse_command(program, data)?;
        let Some(config) = config else { return self.start("terse", &command, address, ("/readyz", 200), START_LIMIT) };
        command.arg("--config").arg(config);
        self.start("terse", &command, address, ("/readyz", 200), FIRST_START_LIMIT)
    }

    /// The same in these `roles`, or in all if there are none, with `settings` in its environment besides.
    ///
    /// # Errors
    /// As [`Servers::terse`].
    pub fn terse_set(
        &self,
        program: &Path,
        data: &Path,
        roles: &[&str],
        settings: &[(&str, String)],
    ) -> Result<Server> {
        let (mut command, address) = self.terse_command(program, data)?;
        command.args(roles.iter().flat_map(|role| ["--role", role]));
        command.envs(settings.iter().map(|(name, value)| (name, value)));
        self.start("terse", &command, address, ("/readyz", 200), START_LIMIT)
    }

    /// The same with the limits of the file `config`.
    ///
    /// # Errors
    /// As [`Servers::terse`].
    pub fn terse_limited(&self, program: &Path, data: &Path, config: &Path) -> Result<Server> {
        let (mut command, address) = self.terse_command(program, data)?;
        command.env("TERSE_LIMITS", "on").arg("--config").arg(config);
        self.start("terse", &command, address, ("/readyz", 200), FIRST_START_LIMIT)
    }

    fn terse_command(&self, program: &Path, data: &Path) -> Result<(Command, SocketAddr)> {
        let address = free_address()?;
        let mut command = Command::new(program);
        // What the operator of this shell has set is not what is measured.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERSE_")) {
            command.env_remove(name);
        }
        command
            .arg("serve")
            .current_dir(&self.folder)
            .env("TERSE_LISTEN", address.to_string())
            .env("TERSE_PUBLIC_URL", format!("http://{address}"))
            .env("TERSE_DATA_DIR", data)
            .env("TERSE_LIMITS", "off")
            .env("TERSE_LOG", "warn");
        Ok((command, address))
    }

    /// Starts nginx with one worker that redirects everything to `target`.
    ///
    /// # Errors
    /// When it isn't ready in time.
    pub fn nginx(&self, program: &Path, target: &str) -> Result<Server> {
        let address = free_address()?;
        let folder = self.folder.join("nginx");
        fs::create_dir_all(&folder)?;
        let config = folder.join("nginx.conf");
        fs::write(&config, nginx_config(&folder, address, target))?;
        let mut command = Command::new(program);
        command.arg("-e").arg(folder.join("error.log")).arg("-p").arg(&folder).arg("-c").arg(&config);
        self.start("nginx", &command, address, ("/abcdefg", 302), START_LIMIT)
    }

    /// Starts the constant actix-web `program`, which redirects everything to `target`.
    ///
    /// # Errors
    /// When it isn't ready in time.
    pub fn actix(&self, program: &Path, target: &str) -> Result<Server> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command.args([&address.to_string(), target]);
        self.start("actix-web", &command, address, ("/abcdefg", 302), START_LIMIT)
    }

    /// Starts the floor, which redirects everything to `target`, and with
    /// `close` ends each connection after its first answer.
    ///
    /// # Errors
    /// When it isn't ready in time.
    pub fn floor(&self, target: &str, close: bool) -> Result<Server> {
        let address = free_address()?;
        // This very program, also when a build has replaced its file meanwhile.
        let (name, flag) = if close { ("floor-close", Some("--close")) } else { ("floor", None) };
        let program = self.folder.join(name);
        fs::copy("/proc/self/exe", &program)?;
        let mut command = Command::new(program);
        command.args(["floor", &address.to_string(), target]).args(flag);
        self.start(name, &command, address, ("/abcdefg", 302), START_LIMIT)
    }

    fn start(
        &self,
        name: &str,
        command: &Command,
        address: SocketAddr,
        (path, status): (&str, u16),
        limit: Duration,
    ) -> Result<Server> {
        fs::create_dir_all(&self.folder)?;
        let log = self.folder.join(format!("{name}.log"));
        let begun = Instant::now();
        let group = on_core(self.core, || self.supervisor.serve(command, &log))?;
        let mut server = Server { group, address, ready_after: Duration::ZERO };
        while !ask(address, path).is_ok_and(|reply| reply.status == status) {
            let alive = server.group.check_alive();
            alive.with_context(|| format!("{name} says: {}", tail(&log)))?;
            if begun.elapsed() > limit {
                bail!("{name} isn't ready after {} s, it says: {}", limit.as_secs(), tail(&log));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        server.ready_after = begun.elapsed();
        Ok(server)
    }
}

fn nginx_config(folder: &Path, address: SocketAddr, target: &str) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  keepalive_timeout 1h;\n\
         \x20 client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n\
         \x20 fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n\
         \x20 server {{\n    listen {address};\n    location / {{ return 302 {target}; }}\n  }}\n}}\n"
    )
}

/// An address on loopback that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// An answer that was waited for.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<Vec<u8>>,
    /// The body.
    pub body: Vec<u8>,
}

/// Gets `path` on a connection of its own.
///
/// # Errors
/// When there is no whole answer in time.
pub fn ask(address: SocketAddr, path: &str) -> Result<Reply> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut input = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        input.extend_from_slice(&buffer[..read]);
        match parse(&input)? {
            Some(answer) => {
                let location = answer.location.map(<[u8]>::to_vec);
                return Ok(Reply { status: answer.status, location, body: answer.body.to_vec() });
            }
            None if read == 0 => bail!("the answer isn't whole"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::find_program;

    fn servers<'a>(supervisor: &'a Supervisor, folder: &Path) -> Servers<'a> {
        let core = super::super::pin::Cores::choose().map_or(0, |cores| cores.server);
        Servers { supervisor, core, folder: folder.to_owned() }
    }

    #[test]
    fn nginx_redirects_to_the_target_and_stops_when_asked() {
        let Some(program) = find_program(&["nginx"]) else {
            assert!(!crate::workspace::in_ci(), "nginx is missing");
            return;
        };
        let supervisor = Supervisor::unwatched();
        let folder = tempfile::tempdir().unwrap();
        // Its worker belongs to nobody in particular and must get in.
        let server = servers(&supervisor, folder.path()).nginx(&program, "https://a.example/x").unwrap();
        let reply = ask(server.address, "/1234567").unwrap();
        assert_eq!((reply.status, reply.location.as_deref()), (302, Some(&b"https://a.example/x"[..])));
        assert!(crate::process::family(server.pid()).len() >= 2, "a master and a worker");
        let address = server.address;
        server.stop().unwrap();
        assert!(ask(address, "/").is_err());
    }

    #[test]
    fn a_server_that_fails_tells_why() {
        let supervisor = Supervisor::unwatched();
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("broken");
        fs::write(&program, "#!/bin/bash\necho no such directory; exit 64\n").unwrap();
        let mut mode = fs::metadata(&program).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        fs::set_permissions(&program, mode).unwrap();
        let started = servers(&supervisor, folder.path()).terse(&program, folder.path());
        let error = format!("{:#}", started.err().unwrap());
        assert!(error.contains("says: no such directory") && error.contains("exit status: 64"), "{error}");
    }

    #[test]
    fn the_server_gets_its_settings_and_none_of_the_shell() {
        let supervisor = Supervisor::unwatched();
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("printer");
        fs::write(&program, "#!/bin/bash\nenv | grep ^TERSE_ | cut -d= -f1 | sort | tr '\\n' ' '; exit 1\n").unwrap();
        let mut mode = fs::metadata(&program).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
        fs::set_permissions(&program, mode).unwrap();
        let started = servers(&supervisor, folder.path()).terse(&program, folder.path());
        let error = format!("{:#}", started.err().unwrap());
        let names = "TERSE_DATA_DIR TERSE_LIMITS TERSE_LISTEN TERSE_LOG TERSE_PUBLIC_URL";
        assert!(error.contains(&format!("says: {names}")), "{error}");
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, (0..30).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        assert!(tail(&log).starts_with("20\n") && tail(&log).ends_with("29"));
        assert_eq!(tail(&folder.path().join("none")), "");
    }
}
