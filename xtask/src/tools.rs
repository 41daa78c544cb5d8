//! The programs that tests and benchmarks need besides cargo.
//!
//! What is missing is installed where that is allowed (root and apt-get on the
//! machine); where it isn't, the missing thing is named with the command that
//! installs it. In CI a missing program is a failure, never a silent skip.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::process::{Supervisor, find_program};
use crate::workspace::{Workspace, in_ci};

/// How long one installation may take.
const INSTALL_LIMIT: Duration = Duration::from_secs(5 * 60);

/// A program as Debian packages it.
pub struct Program {
    /// What it is called, in different distributions.
    pub names: &'static [&'static str],
    /// The Debian package that has it.
    pub package: &'static str,
}

/// A browser, for the checks of the page.
pub const CHROMIUM: Program =
    Program { names: &["chromium", "chromium-browser", "google-chrome"], package: "chromium" };
/// The web server that redirects are compared with.
pub const NGINX: Program = Program { names: &["nginx"], package: "nginx-light" };

/// What fetches the script that draws the book's diagrams.
pub const NPM: Program = Program { names: &["npm"], package: "npm" };

/// The load generator's version; Go's checksum database guards what it names.
const K6_VERSION: &str = "v1.8.1";

/// What to do about a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Install,
    Fail,
    GoWithout,
}

/// What this machine allows.
#[derive(Clone, Copy, Debug)]
struct Machine {
    root: bool,
    apt: bool,
    ci: bool,
}

impl Machine {
    fn look() -> Self {
        Self { root: rustix::process::geteuid().is_root(), apt: find_program(&["apt-get"]).is_some(), ci: in_ci() }
    }

    fn plan(self) -> Plan {
        match self {
            Self { root: true, apt: true, .. } => Plan::Install,
            Self { ci: true, .. } => Plan::Fail,
            _ => Plan::GoWithout,
        }
    }
}

/// Finds programs, and installs those that are missing.
pub struct Tools<'a> {
    supervisor: &'a Supervisor,
    machine: Machine,
    updated: Cell<bool>,
}

impl<'a> Tools<'a> {
    /// Tools of this machine.
    #[must_use]
    pub fn new(supervisor: &'a Supervisor) -> Self {
        Self { supervisor, machine: Machine::look(), updated: Cell::new(false) }
    }

    /// The path of `program`, installed if it was missing. `None` = it is
    /// missing, which has been said, and this isn't CI.
    ///
    /// # Errors
    /// When it is missing and this is CI.
    pub fn find(&self, program: &Program) -> Result<Option<PathBuf>> {
        if let Some(path) = find_program(program.names) {
            return Ok(Some(path));
        }
        let done = match self.machine.plan() {
            Plan::Install => self.apt_install(program.package).map(|()| find_program(program.names)),
            Plan::Fail | Plan::GoWithout => Ok(None),
        };
        match done {
            Ok(Some(path)) => Ok(Some(path)),
            Ok(None) => self.missing(program.names[0], &format!("apt-get install {}", program.package), None),
            Err(error) => self.missing(program.names[0], &format!("apt-get install {}", program.package), Some(&error)),
        }
    }

    /// What `found` finds, with `package` installed if it was missing; a service
    /// that the package brings is not started.
    ///
    /// # Errors
    /// When it can't be had, with the command that installs it.
    pub fn require(&self, name: &str, package: &str, found: &dyn Fn() -> Option<PathBuf>) -> Result<PathBuf> {
        if let Some(path) = found() {
            return Ok(path);
        }
        let installed = match self.machine.plan() {
            Plan::Install => self.apt_install(package),
            Plan::Fail | Plan::GoWithout => Err(anyhow::anyhow!("only root can install it here")),
        };
        let remedy = format!("apt-get install {package}");
        installed.map_err(|cause| anyhow::anyhow!(missing_text(name, &remedy, Some(&cause))))?;
        found().with_context(|| missing_text(name, &remedy, None))
    }

    /// The path of Schemathesis in its own Python environment under `target/`,
    /// made if it was missing or its pinned versions have changed.
    ///
    /// # Errors
    /// When it can't be had and this is CI.
    pub fn schemathesis(&self, workspace: &Workspace) -> Result<Option<PathBuf>> {
        let pins = workspace.root.join("xtask/requirements-schemathesis.txt");
        let environment = workspace.target.join("schemathesis");
        match self.python_environment(&environment, &pins, "st") {
            Ok(path) => Ok(Some(path)),
            Err(error) => self.missing("schemathesis", "apt-get install python3-venv", Some(&error)),
        }
    }

    /// The path of k6 under `target/`, built by Go if it was missing or another version.
    ///
    /// # Errors
    /// When it can't be had and this is CI.
    pub fn k6(&self, workspace: &Workspace) -> Result<Option<PathBuf>> {
        let folder = workspace.target.join("k6").join(K6_VERSION);
        match self.go_install(&format!("go.k6.io/k6@{K6_VERSION}"), &folder, "k6") {
            Ok(path) => Ok(Some(path)),
            Err(error) => self.missing("k6", "install Go 1.25 or later, which fetches k6 once", Some(&error)),
        }
    }

    /// Has Go build `package` into `folder`, unless the program `name` is there.
    fn go_install(&self, package: &str, folder: &Path, name: &str) -> Result<PathBuf> {
        let program = folder.join(name);
        if program.exists() {
            return Ok(program);
        }
        let go = find_program(&["go"]).context("there is no Go to build it with")?;
        println!("building {package}");
        let mut command = Command::new(go);
        command.args(["install", package]).env("GOBIN", folder).stdout(Stdio::null());
        self.supervisor.run_ok(&mut command, INSTALL_LIMIT)?;
        Ok(program)
    }

    /// Makes `environment` hold what `pins` lists and returns its program `name`.
    fn python_environment(&self, environment: &Path, pins: &Path, name: &str) -> Result<PathBuf> {
        let wanted = fs::read_to_string(pins).with_context(|| pins.display().to_string())?;
        let stamp = environment.join("installed.txt");
        let program = environment.join("bin").join(name);
        if program.exists() && fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            return Ok(program);
        }
        println!("installing {}", pins.display());
        let make = |limit| {
            let mut command = Command::new("python3");
            command.args(["-m", "venv"]).arg(environment).stdout(Stdio::null());
            self.supervisor.run_ok(&mut command, limit)
        };
        if make(INSTALL_LIMIT).is_err() && self.machine.plan() == Plan::Install {
            self.apt_install("python3-venv")?;
            make(INSTALL_LIMIT)?;
        }
        let mut command = Command::new(environment.join("bin/python3"));
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(pins);
        self.supervisor.run_ok(&mut command, INSTALL_LIMIT)?;
        fs::write(&stamp, wanted)?;
        Ok(program)
    }

    fn apt_install(&self, package: &str) -> Result<()> {
        println!("installing the package {package}");
        if !self.updated.replace(true) {
            self.apt(&["update", "-qq"])?;
        }
        let _quiet = StartPolicy::deny()?;
        self.apt(&["install", "-y", "-qq", "--no-install-recommends", package])
    }

    fn apt(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdout(Stdio::null());
        self.supervisor.run_ok(&mut command, INSTALL_LIMIT)
    }

    fn missing(&self, name: &str, remedy: &str, cause: Option<&anyhow::Error>) -> Result<Option<PathBuf>> {
        let text = missing_text(name, remedy, cause);
        if self.machine.ci {
            bail!("{text}");
        }
        println!("{text}");
        Ok(None)
    }
}

/// Where Debian's packages ask whether they may start what they bring.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it exists, no package starts a service: the answer 101 forbids it.
/// A policy that the machine has already is left as it is.
struct StartPolicy {
    written: Option<PathBuf>,
}

impl StartPolicy {
    fn deny() -> Result<Self> {
        Self::deny_at(Path::new(POLICY))
    }

    fn deny_at(path: &Path) -> Result<Self> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let opened = fs::File::options().write(true).create_new(true).mode(0o755).open(path);
        match opened {
            Ok(mut file) => file.write_all(b"#!/bin/sh\nexit 101\n")?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(Self { written: None }),
            Err(error) => return Err(error).context(path.display().to_string()),
        }
        Ok(Self { written: Some(path.to_owned()) })
    }
}

impl Drop for StartPolicy {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            // It may have been removed by hand meanwhile.
            let _ = fs::remove_file(path);
        }
    }
}

fn missing_text(name: &str, remedy: &str, cause: Option<&anyhow::Error>) -> String {
    let cause = cause.map(|error| format!(": {error:#}")).unwrap_or_default();
    format!("missing: {name}{cause} (as root: {remedy})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Program = Program { names: &["no-such-program-here"], package: "no-such-package-here" };

    fn tools(supervisor: &Supervisor, ci: bool) -> Tools<'_> {
        Tools { supervisor, machine: Machine { root: false, apt: true, ci }, updated: Cell::new(false) }
    }

    #[test]
    fn only_root_installs_and_only_ci_fails() {
        let plan = |root, apt, ci| Machine { root, apt, ci }.plan();
        assert_eq!(plan(true, true, false), Plan::Install);
        assert_eq!(plan(true, true, true), Plan::Install);
        assert_eq!(plan(true, false, true), Plan::Fail);
        assert_eq!(plan(false, true, true), Plan::Fail);
        assert_eq!(plan(false, true, false), Plan::GoWithout);
        assert_eq!(plan(true, false, false), Plan::GoWithout);
    }

    #[test]
    fn a_missing_program_fails_in_ci_and_is_named_elsewhere() {
        let supervisor = Supervisor::unwatched();
        let error = tools(&supervisor, true).find(&ABSENT).unwrap_err().to_string();
        assert_eq!(error, "missing: no-such-program-here (as root: apt-get install no-such-package-here)");
        assert_eq!(tools(&supervisor, false).find(&ABSENT).unwrap(), None);
    }

    #[test]
    fn the_cause_is_told_with_what_is_missing() {
        let cause = anyhow::anyhow!("no network").context("apt-get");
        assert_eq!(missing_text("x", "y", Some(&cause)), "missing: x: apt-get: no network (as root: y)");
    }

    #[test]
    fn a_program_that_is_there_is_used_as_it_is() {
        let supervisor = Supervisor::unwatched();
        let bash = Program { names: &["bash"], package: "no-such-package-here" };
        assert!(tools(&supervisor, true).find(&bash).unwrap().is_some());
    }

    #[test]
    fn what_is_required_and_cannot_be_had_is_an_error_everywhere() {
        let supervisor = Supervisor::unwatched();
        let expected = "missing: x: only root can install it here (as root: apt-get install no-such-package-here)";
        for ci in [false, true] {
            let tools = tools(&supervisor, ci);
            let error = tools.require("x", ABSENT.package, &|| find_program(ABSENT.names)).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(tools.require("x", ABSENT.package, &|| Some("/there".into())).is_ok());
        }
    }

    #[test]
    fn no_package_starts_a_service_and_a_policy_of_the_machine_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("policy-rc.d");
        let policy = StartPolicy::deny_at(&path).unwrap();
        assert_eq!(Command::new(&path).status().unwrap().code(), Some(101));
        drop(StartPolicy::deny_at(&path).unwrap());
        assert!(path.exists());
        drop(policy);
        assert!(!path.exists());
    }

    #[test]
    fn an_environment_with_the_wanted_pins_is_used_as_it_is() {
        let supervisor = Supervisor::unwatched();
        let folder = tempfile::tempdir().unwrap();
        let pins = folder.path().join("pins.txt");
        fs::write(&pins, "a==1\n").unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        fs::write(folder.path().join("bin/st"), "").unwrap();
        fs::write(folder.path().join("installed.txt"), "a==1\n").unwrap();
        let found = tools(&supervisor, true).python_environment(folder.path(), &pins, "st").unwrap();
        assert_eq!(found, folder.path().join("bin/st"));
    }

    #[test]
    fn what_go_has_built_is_used_as_it_is() {
        let supervisor = Supervisor::unwatched();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("k6"), "").unwrap();
        let found = tools(&supervisor, true).go_install("no.such.package/here@v1.0.0", folder.path(), "k6");
        assert_eq!(found.unwrap(), folder.path().join("k6"));
    }

    #[test]
    fn every_pin_names_an_exact_version() {
        let pins = include_str!("../requirements-schemathesis.txt");
        let wanted: Vec<&str> = pins.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(wanted.iter().all(|line| line.contains("==")), "{wanted:?}");
        assert!(wanted.iter().any(|line| line.starts_with("schemathesis==")));
    }
}
