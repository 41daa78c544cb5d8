//! The access log: what is told of a request, and what never is.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;
use terse_core::Role;
use tracing_subscriber::fmt::MakeWriter;

use crate::server::{Choices, Keys, Server};

/// Everything that was logged by this test process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The log lines of the level `info` and above that mention `id`.
fn logged(id: &str) -> Vec<String> {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| {
        let lines = Lines::default();
        tracing_subscriber::fmt().json().with_writer(lines.clone()).init();
        lines
    });
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    text.lines().filter(|line| line.contains(id)).map(str::to_owned).collect()
}

#[test]
fn each_api_request_is_one_line_without_secrets() {
    assert_eq!(logged("log-1"), Vec::<String>::new());
    let keys = Arc::new(Keys::default());
    let key = keys.issue("a", Role::Writer).reveal().to_owned();
    let server = Server::with(Choices { keys: Some(keys), ..Choices::default() });
    let request = server.ask("GET", "/api/v1/links/some-code?secret=query").header("X-Request-Id", "log-1");
    request.header("Authorization", &format!("Bearer {key}")).send().assert_problem(404, "not_found");
    let lines = logged("log-1");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    let fields = &line["fields"];
    assert_eq!((&fields["method"], &fields["status"]), (&Value::from("GET"), &Value::from(404)));
    assert_eq!(fields["route"], "/api/v1/links/{code}");
    assert_eq!(fields["client"], "127.0.0.0/24");
    assert_eq!(fields["key"], key.split('_').nth(1).unwrap());
    assert!(fields["ms"].is_u64());
    for secret in ["secret", "some-code", "127.0.0.1", key.rsplit('_').next().unwrap()] {
        assert!(!lines[0].contains(secret), "{secret} in {}", lines[0]);
    }
}

#[test]
fn who_forced_a_breaker_is_told() {
    assert_eq!(logged("log-3"), Vec::<String>::new());
    let keys = Arc::new(Keys::default());
    let key = keys.issue("a", Role::Admin).reveal().to_owned();
    let id = key.split('_').nth(1).unwrap();
    let server = Server::with(Choices { keys: Some(keys), ..Choices::default() });
    for (body, force) in [("open", "open"), ("closed", "closed")] {
        let request = server.ask("PUT", "/api/v1/admin/breakers/main/read");
        let request = request.header("Authorization", &format!("Bearer {key}"));
        assert_eq!(request.json(&format!("{{\"force\":\"{body}\"}}")).send().status, 200);
        let told = |line: &Value| line["level"] == "WARN" && line["fields"]["force"] == force;
        let lines = logged(id);
        let line = lines.iter().map(|line| serde_json::from_str(line).unwrap()).find(told);
        let line = line.unwrap_or_else(|| panic!("{lines:?}"));
        assert_eq!((&line["fields"]["breaker"], &line["fields"]["key"]), (&"main/read".into(), &id.into()));
    }
}

#[test]
fn redirects_and_probes_are_not_logged_as_a_rule() {
    assert_eq!(logged("log-2"), Vec::<String>::new());
    let server = Server::start();
    for path in ["/none", "/livez", "/metrics"] {
        server.ask("GET", path).header("X-Request-Id", "log-2").send();
    }
    assert_eq!(logged("log-2"), Vec::<String>::new());
    server.ask("GET", "/api/v1/links/batch").header("X-Request-Id", "log-2").send();
    assert!(logged("log-2")[0].contains("\"/api/v1/links/batch\""));
}

#[test]
fn what_a_client_sends_forges_no_line_of_the_log() {
    assert_eq!(logged("log-5"), Vec::<String>::new());
    let server = Server::start();
    let id = r#"log-5"},"level":"ERROR","f0rged":{"x":""#;
    let request = server.ask("GET", "/api/v1/links/x%0a%0df0rged%1b%5b2J?f0rged").header("X-Request-Id", id);
    let request = request.header("User-Agent", "\"f0rged\" \\u001b[2J").header("Referer", "https://f0rged.example/");
    assert_eq!(request.send().status, 404);
    // This is no id, so one is made.
    server.ask("GET", "/api/v1/links").header("X-Request-Id", "log-5\tf0rged").send();
    let block = server.json("POST", "/api/v1/admin/block", &serde_json::json!({"host": "evil.example\nf0rged"}));
    assert_eq!(block.status, 422, "{block:?}");
    let lines = logged("f0rged");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&line["level"], &line["fields"]["request_id"]), (&"INFO".into(), &id.into()));
    assert_eq!(logged("log-5"), lines);
    for line in logged("") {
        assert!(serde_json::from_str::<Value>(&line).is_ok_and(|line| line.is_object()), "{line}");
    }
}
