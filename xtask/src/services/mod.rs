//! `cargo xtask up` and `down`: the database, the cache and the broker that
//! terse works with, on this machine.
//!
//! Where a Docker engine answers, `docker-compose.yml` runs them (see
//! [`compose`]); otherwise they are processes of their own, on ports of their
//! own, with everything of theirs under `target/services`. `up` starts what is
//! missing and leaves the rest as it is, so twice is once, and after a kill it
//! brings back what was killed, with its data. `down` ends what `up` started
//! and nobody else's process.
//!
//! States of a service: absent, running, paused (see [`record::State`]). What
//! was started is in the record file before it runs, so an interrupted `up`
//! leaves nothing that `down` doesn't know. One `up` or `down` at a time: the
//! others wait, at most `LOCK_LIMIT`.

pub mod cassandra;
pub mod compose;
pub mod cql;
pub mod environment;
pub mod rabbitmq;
pub mod record;
pub mod redis;
pub mod service;
pub mod warm;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use self::environment::Environment;
use self::record::State;
use self::service::Service;
use crate::process::{Group, POLL, Supervisor};
use crate::tools::Tools;
use crate::workspace::Workspace;

/// How long one `up` or `down` waits for another one: as long as a start of everything may take.
const LOCK_LIMIT: Duration = Duration::from_secs(10 * 60);

/// What `up` can bring up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Three Cassandra nodes
    Cassandra,
    /// One Redis
    Redis,
    /// One RabbitMQ
    Rabbitmq,
    /// Everything
    All,
}

/// Arguments of `cargo xtask up`.
#[derive(clap::Args)]
pub struct UpOptions {
    /// What to bring up
    #[arg(value_enum, default_value = "all")]
    which: Which,
    /// Processes on this machine, even where a Docker engine answers
    #[arg(long)]
    native: bool,
}

/// Arguments of `cargo xtask down`.
#[derive(clap::Args)]
pub struct DownOptions {
    /// Delete what the services stored, too
    #[arg(long)]
    delete_data: bool,
}

/// What is brought up as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Three Cassandra nodes.
    Cassandra,
    /// One Redis.
    Redis,
    /// One RabbitMQ with its name daemon.
    Rabbitmq,
}

/// All kinds, in the order in which they start.
pub const KINDS: [Kind; 3] = [Kind::Cassandra, Kind::Redis, Kind::Rabbitmq];

impl Which {
    fn kinds(self) -> Vec<Kind> {
        match self {
            Self::Cassandra => vec![Kind::Cassandra],
            Self::Redis => vec![Kind::Redis],
            Self::Rabbitmq => vec![Kind::Rabbitmq],
            Self::All => KINDS.to_vec(),
        }
    }
}

impl Kind {
    fn services(self, folder: &Path) -> Vec<Service> {
        match self {
            Self::Cassandra => cassandra::services(folder),
            Self::Redis => redis::services(folder),
            Self::Rabbitmq => rabbitmq::services(folder),
        }
    }

    fn start_limit(self) -> Duration {
        match self {
            Self::Cassandra => cassandra::START_LIMIT,
            Self::Redis => redis::START_LIMIT,
            Self::Rabbitmq => rabbitmq::START_LIMIT,
        }
    }

    /// Whether the service answers in its own protocol; a cluster, whether all of it does.
    fn healthy(self, service: &Service) -> Result<()> {
        match self {
            Self::Cassandra => cassandra::healthy(),
            Self::Redis => redis::healthy(),
            Self::Rabbitmq if service.name == "epmd" => rabbitmq::names_healthy(),
            Self::Rabbitmq => rabbitmq::healthy(),
        }
    }
}

/// A service that this program has just started.
struct Started<'s> {
    service: &'s Service,
    group: Group,
}

/// The services of one workspace.
pub struct Services<'a> {
    folder: PathBuf,
    environment: PathBuf,
    supervisor: &'a Supervisor,
    compiler: Compiler,
}

/// How far the JVMs compile what they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// As far as they can: for measurements, and for use.
    Full,
    /// Quickly, and no further: a cluster of tests starts and changes its
    /// schema in two thirds of the CPU, and would end before the rest pays.
    Quick,
}

/// Brings up what `options` names, and tells where it is.
///
/// # Errors
/// When something can't be had, doesn't start, or doesn't get healthy in time.
pub fn up(workspace: &Workspace, supervisor: &Supervisor, options: &UpOptions) -> Result<()> {
    let services = Services::new(workspace, supervisor)?;
    let _lock = services.lock()?;
    let (environment, done) = if !options.native && compose::engine_answers() {
        (compose::up(workspace, supervisor, &services.folder, options.which)?, Ok(()))
    } else {
        let done = options.which.kinds().into_iter().try_for_each(|kind| services.bring_up(kind));
        // Told even if one failed: whatever runs by now goes on.
        (services.environment(), done)
    };
    environment.write(&services.environment)?;
    print!("{environment}");
    println!("# also in {}", services.environment.display());
    done
}

/// Takes down what `up` brought up.
///
/// # Errors
/// When something can't be ended; its data is then left alone.
pub fn down(workspace: &Workspace, supervisor: &Supervisor, options: &DownOptions) -> Result<()> {
    let services = Services::new(workspace, supervisor)?;
    let _lock = services.lock()?;
    compose::down(workspace, supervisor, &services.folder, options.delete_data)?;
    services.take_down(&KINDS)?;
    record::kill_marked_below(&services.folder)?;
    if options.delete_data {
        // Only now: a node that is still stopping writes.
        for service in KINDS.iter().flat_map(|kind| kind.services(&services.folder)) {
            remove_folder(&service.folder)?;
        }
    }
    Ok(())
}

impl<'a> Services<'a> {
    /// The services of `workspace`.
    ///
    /// # Errors
    /// When their folder can't be made.
    pub fn new(workspace: &Workspace, supervisor: &'a Supervisor) -> Result<Self> {
        let folder = workspace.target.join("services");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder, environment: environment_file(workspace), supervisor, compiler: Compiler::Full })
    }

    fn lock(&self) -> Result<File> {
        let path = self.folder.join("lock");
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        let deadline = Instant::now() + LOCK_LIMIT;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(error).with_context(|| path.display().to_string());
            }
            if Instant::now() >= deadline || self.supervisor.is_interrupted() {
                bail!("another `cargo xtask up` or `down` is at work: {} is locked", path.display());
            }
            thread::sleep(POLL);
        }
        Ok(file)
    }

    /// Whether any process of `kind` is there.
    #[must_use]
    pub fn any(&self, kind: Kind) -> bool {
        kind.services(&self.folder).iter().any(|service| service.state() != State::Absent)
    }

    /// Starts what is missing of `kind`, wakes what is paused, and waits until all of it is healthy.
    fn bring_up(&self, kind: Kind) -> Result<()> {
        let services = kind.services(&self.folder);
        let mut absent = Vec::new();
        for service in &services {
            match service.state() {
                State::Absent => absent.push(service),
                State::Paused(record) => {
                    println!("{} was paused and goes on", service.name);
                    record.resume();
                }
                State::Running(_) => {}
            }
        }
        let mut started = self.start(kind, &absent)?;
        for service in &services {
            let mut alive = || self.all_alive(&mut started);
            service.await_healthy(&mut alive, kind.start_limit(), &|| kind.healthy(service))?;
        }
        // A node that returns to a running cluster finds it warm, and work under way that a warm-up would crowd out.
        let all_started = started.len() == services.len();
        started.into_iter().for_each(|one| one.group.detach());
        if all_started && kind == Kind::Cassandra {
            let start = Instant::now();
            let outcome = warm::warm_up(&cassandra::addresses()).context("warming Cassandra up")?;
            println!("warmed up by {} operations in {:.1} s", outcome.done, start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Fails with the log of the first that has ended, or when nobody waits any more.
    fn all_alive(&self, started: &mut [Started]) -> Result<()> {
        if self.supervisor.is_interrupted() {
            bail!("interrupted");
        }
        let mut alive = started.iter_mut().map(|one| one.group.check_alive().map_err(|e| one.service.explain(&e)));
        alive.find(Result::is_err).unwrap_or(Ok(()))
    }

    fn start<'s>(&self, kind: Kind, absent: &[&'s Service]) -> Result<Vec<Started<'s>>> {
        if absent.is_empty() {
            return Ok(Vec::new());
        }
        let mut started = Vec::new();
        for (service, command) in absent.iter().zip(self.commands(kind, absent)?.iter_mut()) {
            println!("starting {}", service.name);
            let group = service.start(self.supervisor, command)?;
            started.push(Started { service, group });
            if service.name == "epmd" {
                // The broker would start a name daemon of its own if this one weren't there yet.
                let mut alive = || self.all_alive(&mut started);
                service.await_healthy(&mut alive, kind.start_limit(), &|| kind.healthy(service))?;
            }
        }
        Ok(started)
    }

    fn commands(&self, kind: Kind, absent: &[&Service]) -> Result<Vec<Command>> {
        let tools = Tools::new(self.supervisor);
        match kind {
            Kind::Cassandra => cassandra::commands(&self.folder, absent, self.compiler, &tools, self.supervisor),
            Kind::Redis => absent.iter().map(|_| redis::command(&tools)).collect(),
            Kind::Rabbitmq => absent.iter().map(|service| rabbitmq::command(service, &tools)).collect(),
        }
    }

    /// Ends all of these kinds, side by side, and waits until they are gone.
    fn take_down(&self, kinds: &[Kind]) -> Result<()> {
        // The broker goes before its name daemon.
        let services: Vec<Service> = kinds.iter().flat_map(|kind| kind.services(&self.folder)).rev().collect();
        let stop = |service: &Service| match service.state().record() {
            Some(record) => {
                println!("stopping {}", service.name);
                record.stop(&service.folder)
            }
            None => Ok(()),
        };
        let stopped: Vec<Result<()>> = thread::scope(|scope| {
            let stopping: Vec<_> = services.iter().map(|service| scope.spawn(move || stop(service))).collect();
            let joined = stopping.into_iter().map(|thread| thread.join());
            joined.map(|done| done.unwrap_or_else(|_| bail!("a thread that stops a service panicked"))).collect()
        });
        stopped.into_iter().collect::<Result<()>>()?;
        self.environment().write(&self.environment)
    }

    /// What runs now.
    fn environment(&self) -> Environment {
        let running = |kind: &Kind| {
            let running = kind.services(&self.folder);
            running.into_iter().filter_map(|service| Some((service.variable, service.state().record()?.pid))).collect()
        };
        Environment::of(KINDS.map(|kind| (kind, running(&kind))))
    }
}

/// Where `up` writes what runs.
#[must_use]
pub fn environment_file(workspace: &Workspace) -> PathBuf {
    workspace.target.join("services.env")
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(folder.display().to_string()),
        _ => Ok(()),
    }
}

/// The services that a command needs while it runs: what it had to start ends with it.
pub struct Session<'a> {
    services: Services<'a>,
    started: Vec<Kind>,
}

impl<'a> Session<'a> {
    /// Brings `kinds` up. One that ran already, whole or in part, is left running at the end.
    ///
    /// # Errors
    /// As [`up`]; then nothing that was started is left.
    pub fn start(
        workspace: &Workspace,
        supervisor: &'a Supervisor,
        kinds: &[Kind],
        compiler: Compiler,
    ) -> Result<Self> {
        let services = Services { compiler, ..Services::new(workspace, supervisor)? };
        let mut session = Self { services, started: Vec::new() };
        let lock = session.services.lock()?;
        for kind in kinds {
            if !session.services.any(*kind) {
                session.started.push(*kind);
            }
            session.services.bring_up(*kind)?;
        }
        session.services.environment().write(&session.services.environment)?;
        drop(lock);
        Ok(session)
    }

    /// What runs, as variables.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.services.environment().variables()
    }

    /// Ends what was started here, and all that it left.
    ///
    /// # Errors
    /// When something can't be ended.
    pub fn end(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let started = std::mem::take(&mut self.started);
        if started.is_empty() {
            return Ok(());
        }
        let _lock = self.services.lock()?;
        self.services.take_down(&started)?;
        for service in started.iter().flat_map(|kind| kind.services(&self.services.folder)) {
            record::kill_marked_below(&service.folder)?;
        }
        Ok(())
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            println!("xtask: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn everything_means_every_kind() {
        assert_eq!(Which::All.kinds(), KINDS);
        assert_eq!(Which::Redis.kinds(), [Kind::Redis]);
    }

    #[test]
    fn services_share_neither_name_nor_variable_nor_address_nor_folder() {
        let services: Vec<Service> = KINDS.iter().flat_map(|kind| kind.services(Path::new("/t"))).collect();
        let distinct = |values: Vec<String>| values.len() == values.iter().collect::<BTreeSet<_>>().len();
        assert!(distinct(services.iter().map(|service| service.name.into()).collect()));
        assert!(distinct(services.iter().map(|service| service.variable.into()).collect()));
        assert!(distinct(services.iter().map(|service| service.folder.display().to_string()).collect()));
        assert!(distinct(services.iter().flat_map(|s| s.addresses.iter().map(ToString::to_string)).collect()));
    }

    fn services<'a>(place: &Path, supervisor: &'a Supervisor) -> Services<'a> {
        Services {
            folder: place.to_owned(),
            environment: place.join("services.env"),
            supervisor,
            compiler: Compiler::Full,
        }
    }

    #[test]
    fn nothing_runs_in_an_empty_folder_and_taking_it_down_is_fine() {
        let place = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::unwatched();
        let services = services(place.path(), &supervisor);
        assert!(KINDS.iter().all(|kind| !services.any(*kind)));
        services.take_down(&KINDS).unwrap();
        assert_eq!(services.environment().variables(), []);
    }

    #[test]
    fn a_second_command_gives_up_waiting_when_interrupted() {
        let place = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::unwatched();
        let services = services(place.path(), &supervisor);
        let held = services.lock().unwrap();
        supervisor.interrupt();
        let error = services.lock().unwrap_err().to_string();
        assert!(error.starts_with("another `cargo xtask up` or `down` is at work"), "{error}");
        drop(held);
        services.lock().unwrap();
    }

    #[test]
    fn taking_down_ends_the_recorded_process_and_waits_for_it() {
        let place = tempfile::tempdir().unwrap();
        let supervisor = Supervisor::unwatched();
        let services = services(place.path(), &supervisor);
        let [redis] = redis::services(place.path()).try_into().ok().unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", "exec sleep 100"]);
        let group = Service { addresses: vec![], ..redis }.start(&supervisor, &mut command).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !services.any(Kind::Redis) {
            assert!(Instant::now() < deadline, "it was never written down");
            thread::sleep(POLL);
        }
        assert_eq!(services.environment().variables().last().unwrap(), &("REDIS_PID", group.pid().to_string()));
        services.take_down(&KINDS).unwrap();
        assert!(!services.any(Kind::Redis));
        assert_eq!(fs::read_to_string(&services.environment).unwrap(), "");
    }

    #[test]
    fn a_folder_that_is_not_there_is_as_good_as_deleted() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("a");
        remove_folder(&folder).unwrap();
        fs::create_dir_all(folder.join("b")).unwrap();
        remove_folder(&folder).unwrap();
        assert!(!folder.exists());
        fs::write(&folder, "").unwrap();
        assert!(remove_folder(&folder).is_err());
    }
}
