//! `docker-compose.yml` and `deploy/Dockerfile`, as far as they can be checked
//! without an engine: structure, pinned versions, health checks, volumes,
//! addresses, and that terse knows every key that is set for it.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde::Deserialize;
use serde_json::Value;

/// What of the compose format is used here; any other key is a mistake.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Compose {
    name: String,
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    image: String,
    build: Option<Build>,
    command: Option<String>,
    #[allow(dead_code, reason = "that it is a text is all there is to check")]
    hostname: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    ports: Vec<String>,
    volumes: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    healthcheck: HealthCheck,
    stop_grace_period: Option<String>,
    restart: String,
    logging: Logging,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    context: PathBuf,
    dockerfile: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Dependency {
    condition: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthCheck {
    test: Vec<String>,
    interval: String,
    timeout: String,
    retries: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Logging {
    driver: String,
    options: BTreeMap<String, String>,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json_of(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(truth)) => Value::Bool(*truth),
        Yaml::Value(Scalar::Integer(number)) => (*number).into(),
        Yaml::Value(Scalar::String(text)) => Value::String(text.to_string()),
        Yaml::Sequence(items) => items.iter().map(json_of).collect(),
        Yaml::Mapping(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (key.as_str().expect("a key is a text").to_owned(), value));
            Value::Object(pairs.map(|(key, value)| (key, json_of(value))).collect())
        }
        other => panic!("no other form of YAML is used here: {other:?}"),
    }
}

fn parse(text: &str) -> Result<Compose, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let [document] = documents.as_slice() else { return Err("not one document".into()) };
    serde_json::from_value(json_of(document)).map_err(|error| error.to_string())
}

fn compose() -> Compose {
    parse(&read("docker-compose.yml")).unwrap()
}

/// Whether an image is named with a whole version, so that everybody runs the same.
fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else { return false };
    let version = tag.split('-').next().unwrap_or_default();
    version.split('.').count() >= 2 && version.split('.').all(|part| part.parse::<u32>().is_ok())
}

#[test]
fn the_compose_file_has_the_structure_that_compose_knows() {
    let compose = compose();
    assert_eq!(compose.name, "terse");
    let names: Vec<&str> = compose.services.keys().map(String::as_str).collect();
    assert_eq!(names, ["rabbitmq", "redis", "scylla", "terse"]);
    assert!(compose.services.values().all(|service| service.restart == "unless-stopped"));
}

#[test]
fn a_key_that_compose_does_not_know_is_found() {
    let misspelt = read("docker-compose.yml").replacen("healthcheck:", "health_check:", 1);
    assert!(parse(&misspelt).unwrap_err().contains("health_check"));
}

#[test]
fn every_image_is_of_one_version() {
    for (name, service) in &compose().services {
        assert!(is_pinned(&service.image), "{name}: {}", service.image);
    }
    for image in ["redis", "redis:latest", "redis:7", "redis:alpine", "localhost:5000/redis"] {
        assert!(!is_pinned(image), "{image}");
    }
}

#[test]
fn every_service_has_a_bounded_health_check() {
    for (name, service) in &compose().services {
        let check = &service.healthcheck;
        assert!(["CMD", "CMD-SHELL"].contains(&check.test[0].as_str()) && check.test.len() > 1, "{name}");
        assert!(check.interval.ends_with('s') && check.timeout.ends_with('s') && check.retries > 0, "{name}");
    }
}

#[test]
fn every_service_keeps_its_data_in_a_named_volume_and_every_volume_is_used() {
    let compose = compose();
    let mut used: Vec<&str> = Vec::new();
    for (name, service) in &compose.services {
        for volume in &service.volumes {
            let (volume, path) = volume.split_once(':').unwrap();
            assert!(compose.volumes.contains_key(volume) && path.starts_with('/'), "{name}: {volume}");
            used.push(volume);
        }
        assert!(!service.volumes.is_empty(), "{name}");
    }
    used.sort_unstable();
    assert_eq!(used, compose.volumes.keys().map(String::as_str).collect::<Vec<_>>());
    assert!(compose.volumes.values().all(BTreeMap::is_empty));
}

#[test]
fn nothing_listens_beyond_this_machine_and_logs_are_bounded() {
    for (name, service) in &compose().services {
        assert!(!service.ports.is_empty() && service.ports.iter().all(|port| port.starts_with("127.0.0.1:")), "{name}");
        let Logging { driver, options } = &service.logging;
        assert!(
            driver == "json-file" && options.contains_key("max-size") && options.contains_key("max-file"),
            "{name}"
        );
    }
}

#[test]
fn terse_waits_for_a_store_that_is_there_and_may_drain() {
    let compose = compose();
    let terse = &compose.services["terse"];
    for (name, dependency) in &terse.depends_on {
        assert!(compose.services.contains_key(name), "{name}");
        assert_eq!(dependency.condition, "service_healthy");
    }
    assert!(terse.environment["TERSE_STORE"].starts_with("cql://scylla:9042/"));
    assert_eq!(terse.environment["TERSE_CACHE"], "redis://redis:6379");
    assert_eq!(terse.stop_grace_period.as_deref(), Some("30s"));
}

/// One word, so that the image's own options, which it reads first, leave it as it is.
#[test]
fn scylla_acknowledges_a_write_only_when_its_log_is_on_disk() {
    let scylla = compose().services["scylla"].command.clone().unwrap();
    assert!(scylla.split(' ').any(|word| word == "--commitlog-sync=batch"), "{scylla}");
}

#[test]
fn every_key_that_is_set_exists() {
    let keys = read("terse-server/src/config/keys.rs");
    for variable in compose().services["terse"].environment.keys() {
        assert!(keys.contains(&format!("\"{variable}\"]")), "{variable}");
    }
}

/// The server: `TERSE_BIN`, else where cargo built it beside this test.
fn server() -> PathBuf {
    let built = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("terse");
    let server = std::env::var_os("TERSE_BIN").map_or_else(built, PathBuf::from);
    assert!(server.is_file(), "terse is not built: run `cargo build -p terse-server` first, or set TERSE_BIN");
    server
}

#[test]
fn the_server_accepts_the_configuration_that_it_is_given() {
    let place = tempfile::tempdir().unwrap();
    let check = |environment: &BTreeMap<String, String>| {
        let mut command = Command::new(server());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TERSE_")) {
            command.env_remove(name);
        }
        command.arg("check-config").current_dir(place.path()).envs(environment).output().unwrap()
    };
    let mut environment = compose().services["terse"].environment.clone();
    let output = check(&environment);
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).unwrap();
    for name in environment.keys() {
        assert!(shown.contains(&format!("# {name}\n")), "{name} in:\n{shown}");
    }
    environment.insert("TERSE_NO_SUCH_KEY".into(), "1".into());
    assert_eq!(check(&environment).status.code(), Some(64));
}

/// The result of terse's health check when readiness is answered with `answer`.
fn health_check_succeeds(answer: &'static [u8]) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut request = [0; 23];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(answer).unwrap();
        request
    });
    let check = compose().services["terse"].healthcheck.test.clone();
    let script = check[3].replace("$$", "$").replace("8080", &port.to_string());
    let status = Command::new(&check[1]).args([&check[2], &script]).status().unwrap();
    assert_eq!(&server.join().unwrap(), b"GET /readyz HTTP/1.0\r\n\r");
    status.success()
}

#[test]
fn the_health_check_of_terse_tells_ready_from_draining() {
    assert!(health_check_succeeds(b"HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!health_check_succeeds(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
}

/// The instructions of the Dockerfile, continued lines joined.
fn instructions() -> Vec<String> {
    let text = read("deploy/Dockerfile").replace("\\\n", " ");
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_image_is_built_from_pinned_images_in_two_stages() {
    let bases: Vec<String> = instructions()
        .iter()
        .filter_map(|line| line.strip_prefix("FROM ")?.split(' ').next().map(str::to_owned))
        .collect();
    assert_eq!(bases.len(), 2);
    assert!(bases.iter().all(|base| is_pinned(base)), "{bases:?}");
    let rust = read("Cargo.toml").lines().find_map(|l| l.strip_prefix("rust-version = ").map(str::to_owned)).unwrap();
    assert!(bases[0].starts_with(&format!("rust:{}", rust.trim_matches('"'))), "{bases:?}");
}

#[test]
fn what_the_image_copies_is_there_and_not_ignored() {
    let compose = compose();
    let build = compose.services["terse"].build.as_ref().unwrap();
    assert!(root().join(&build.dockerfile).is_file());
    let context = root().join(&build.context);
    for copy in instructions().iter().filter_map(|line| line.strip_prefix("COPY ")) {
        let words: Vec<&str> = copy.split(' ').collect();
        let from_context = !words[0].starts_with("--from=");
        for source in words[..words.len() - 1].iter().filter(|_| from_context) {
            assert!(context.join(source).exists(), "{source}");
        }
    }
    let passed: Vec<String> =
        read(".dockerignore").lines().filter_map(|line| line.strip_prefix('!').map(str::to_owned)).collect();
    let is_passed =
        |name: &str| passed.iter().any(|one| one == name || one.strip_suffix('*').is_some_and(|p| name.starts_with(p)));
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    for needed in members.into_iter().chain(["Cargo.toml", "Cargo.lock", "docs/quiz.toml"]) {
        assert!(is_passed(needed), "{needed} is kept from the build by .dockerignore");
    }
}
