//! The workspace as cargo tells it: its folders, its packages, what depends on what.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::Supervisor;

/// How long one build may take; a clean one on two cores takes a few minutes.
pub const BUILD_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Where the workspace is and what it consists of.
pub struct Workspace {
    /// Its root folder.
    pub root: PathBuf,
    /// Where builds go.
    pub target: PathBuf,
    /// This program, as others can run it: found before a build puts another file in its place.
    pub program: PathBuf,
    /// All packages, ours and others', and who depends on whom.
    pub graph: Graph,
}

impl Workspace {
    /// Asks cargo about the workspace that this program was started in.
    ///
    /// # Errors
    /// When cargo fails or its answer can't be understood.
    pub fn find() -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut command = cargo(&["metadata", "--format-version", "1"]);
        let output = command.stderr(Stdio::inherit()).output().context("running cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", output.status);
        }
        let metadata: Value = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
        let folder = |key: &str| metadata[key].as_str().map(PathBuf::from).with_context(|| format!("no {key}"));
        let graph = Graph::parse(&metadata)?;
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")?, program, graph })
    }

    /// Builds with `arguments` of `cargo build` and returns the path of the program `name`.
    ///
    /// # Errors
    /// When the build fails or makes no such program.
    pub fn build(&self, supervisor: &Supervisor, arguments: &[&str], name: &str) -> Result<PathBuf> {
        let mut command = cargo(&["build", "--message-format=json-render-diagnostics"]);
        command.args(arguments).current_dir(&self.root).stdout(Stdio::piped());
        let mut group = supervisor.spawn(&mut command)?;
        let output = group.take_stdout().context("no output of cargo build")?;
        let mut program = None;
        for line in std::io::BufRead::lines(std::io::BufReader::new(output)) {
            program = program_of(&line?, name).or(program);
        }
        let status = group.wait(BUILD_LIMIT)?;
        if !status.success() {
            bail!("cargo build: {status}");
        }
        program.with_context(|| format!("the build made no program {name}"))
    }
}

/// The path of the program or benchmark `name` if `message` of cargo announces it.
fn program_of(message: &str, name: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let kind = &message["target"]["kind"][0];
    let program = kind == "bin" && message["profile"]["test"] == Value::Bool(false);
    let is_it = message["target"]["name"] == name && (program || kind == "bench");
    is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
}

/// Whether this runs where nobody watches, so that what is missing must fail.
#[must_use]
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// `cargo` with `arguments`; in CI, and for what is installed, the lock file is what counts.
#[must_use]
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    if is_locked(arguments, in_ci()) {
        command.arg("--locked");
    }
    command
}

/// Whether `cargo` may take only what a lock file names. It takes that word once.
fn is_locked(arguments: &[&str], in_ci: bool) -> bool {
    match arguments.first() {
        Some(&"fmt") => false,
        Some(&"install") => true,
        _ => in_ci,
    }
}

/// One package of the dependency graph.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Cargo's name of name, version and source in one.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence, an SPDX expression.
    pub license: Option<String>,
    /// Its folder.
    pub folder: PathBuf,
    /// Whether it belongs to the workspace.
    pub ours: bool,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// The names of its test programs, without those of its library and programs.
    pub tests: BTreeSet<String>,
}

/// One arrow of the dependency graph.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The [`Package::id`] of what is depended on.
    pub id: String,
    /// Whether the package itself needs it, not just its tests or build script.
    pub normal: bool,
}

/// Who depends on whom.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All packages.
    pub packages: Vec<Package>,
}

impl Graph {
    /// Reads the output of `cargo metadata`.
    ///
    /// # Errors
    /// When something is missing in it.
    pub fn parse(metadata: &Value) -> Result<Self> {
        let list = |value: &Value, what: &str| value.as_array().cloned().with_context(|| format!("no {what}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let members: BTreeSet<String> =
            list(&metadata["workspace_members"], "workspace_members")?.iter().map(text).collect();
        let nodes = list(&metadata["resolve"]["nodes"], "resolve")?;
        let mut packages = Vec::new();
        for package in list(&metadata["packages"], "packages")? {
            let id = text(&package["id"]);
            let node = nodes.iter().find(|node| node["id"] == package["id"]);
            let arrows = node.and_then(|node| node["deps"].as_array()).cloned().unwrap_or_default();
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            packages.push(Package {
                name: text(&package["name"]),
                version: text(&package["version"]),
                license: package["license"].as_str().map(str::to_owned),
                folder: manifest.parent().unwrap_or(Path::new("")).to_owned(),
                ours: members.contains(&id),
                dependencies: arrows.iter().map(dependency).collect(),
                tests: tests(&package["targets"]),
                id,
            });
        }
        Ok(Self { packages })
    }

    /// The packages of the workspace.
    pub fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.ours)
    }

    /// The package with this id.
    #[must_use]
    pub fn package(&self, id: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.id == id)
    }

    /// All that `package` needs to run, directly or through others, without itself.
    #[must_use]
    pub fn needs(&self, package: &Package) -> Vec<&Package> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Package> = vec![package];
        let mut found = Vec::new();
        while let Some(next) = open.pop() {
            for arrow in next.dependencies.iter().filter(|arrow| arrow.normal) {
                if let Some(needed) = self.package(&arrow.id).filter(|_| seen.insert(arrow.id.clone())) {
                    found.push(needed);
                    open.push(needed);
                }
            }
        }
        found
    }
}

fn dependency(arrow: &Value) -> Dependency {
    let kinds = arrow["dep_kinds"].as_array().cloned().unwrap_or_default();
    Dependency {
        id: arrow["pkg"].as_str().unwrap_or_default().to_owned(),
        normal: kinds.iter().any(|kind| kind["kind"].is_null()),
    }
}

fn tests(targets: &Value) -> BTreeSet<String> {
    let targets = targets.as_array().into_iter().flatten();
    let programs = targets.filter(|target| target["kind"][0] == "test");
    programs.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn cargo_hears_once_that_the_lock_file_counts() {
        assert!(is_locked(&["install", "mdbook"], false));
        assert!(is_locked(&["install", "mdbook"], true));
        assert!(is_locked(&["test"], true));
        assert!(!is_locked(&["test"], false));
        assert!(!is_locked(&["fmt", "--check"], true));
    }

    /// A graph of the workspace's packages `ours`; `arrows` as (from, to, kind), kind "" = normal.
    pub(crate) fn graph(ours: &[&str], arrows: &[(&str, &str, &str)]) -> Graph {
        let mut names: BTreeSet<&str> = ours.iter().copied().collect();
        names.extend(arrows.iter().flat_map(|(from, to, _)| [*from, *to]));
        let kind = |kind: &str| if kind.is_empty() { Value::Null } else { kind.into() };
        let nodes: Vec<Value> = names
            .iter()
            .map(|name| {
                let deps: Vec<Value> = arrows
                    .iter()
                    .filter(|(from, _, _)| from == name)
                    .map(|(_, to, of)| serde_json::json!({"pkg": to, "dep_kinds": [{"kind": kind(of)}]}))
                    .collect();
                serde_json::json!({"id": name, "deps": deps})
            })
            .collect();
        let packages: Vec<Value> = names
            .iter()
            .map(|name| {
                serde_json::json!({"id": name, "name": name, "version": "1.2.3", "license": "MIT",
                    "manifest_path": format!("/w/{name}/Cargo.toml")})
            })
            .collect();
        Graph::parse(&serde_json::json!({
            "workspace_members": ours, "packages": packages, "resolve": {"nodes": nodes}
        }))
        .unwrap()
    }

    fn names(packages: &[&Package]) -> BTreeSet<String> {
        packages.iter().map(|package| package.name.clone()).collect()
    }

    #[test]
    fn needs_go_through_others_but_not_through_tests() {
        let graph = graph(&["a"], &[("a", "b", ""), ("b", "c", ""), ("a", "t", "dev"), ("b", "s", "build")]);
        let needed = graph.needs(graph.package("a").unwrap());
        assert_eq!(names(&needed), BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn needs_end_although_the_graph_has_a_circle() {
        let graph = graph(&["a"], &[("a", "b", ""), ("b", "a", "")]);
        assert_eq!(graph.needs(graph.package("b").unwrap()).len(), 2);
    }

    #[test]
    fn packages_know_whether_they_are_ours_and_where_they_are() {
        let graph = graph(&["a"], &[("a", "b", "")]);
        assert_eq!(names(&graph.ours().collect::<Vec<_>>()), BTreeSet::from(["a".to_owned()]));
        assert_eq!(graph.package("b").unwrap().folder, Path::new("/w/b"));
        assert!(Graph::parse(&serde_json::json!({})).is_err());
    }

    #[test]
    fn the_built_program_is_told_from_its_test_and_from_libraries() {
        let message = |kind: &str, test: bool| {
            serde_json::json!({"target": {"name": "terse", "kind": [kind]}, "profile": {"test": test},
                "executable": "/t/terse"})
            .to_string()
        };
        assert_eq!(program_of(&message("bin", false), "terse"), Some("/t/terse".into()));
        assert_eq!(program_of(&message("bin", true), "terse"), None);
        assert_eq!(program_of(&message("lib", false), "terse"), None);
        assert_eq!(program_of(&message("bin", false), "other"), None);
        assert_eq!(program_of("not json", "terse"), None);
    }

    #[test]
    fn this_very_workspace_is_found() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.graph.ours().any(|package| package.name == "xtask"));
        assert!(workspace.root.join("Cargo.lock").exists());
        let store = workspace.graph.ours().find(|package| package.name == "terse-store").unwrap();
        assert!(store.tests.contains("conformance") && !store.tests.contains("terse-store"), "{:?}", store.tests);
    }
}
