//! Link events: what the API did to links, heard by somebody else on a real RabbitMQ.
//!
//! `TERSE_AMQP` names the broker that tests share; the one that is killed is its test's own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use terse_it::broker::Broker;
use terse_it::{
    API_LINKS, Client, Connection, Request, Setup, Stop, await_none, await_true, code_of, code_path, heavy_turn,
};

use crate::amqp::Amqp;

/// What is in doubt after a kill is asked of the store ten seconds later.
const PATIENCE: Duration = Duration::from_secs(60);
const SCHEMA: &str = include_str!("../../../deploy/rabbitmq/link-event.v1.schema.json");
const WRITERS: usize = 8;
const ROUNDS: usize = 3;
/// How many links are created before a server is killed.
const PER_ROUND: usize = 60;

/// By code and version, the ids of the events that told it.
type Heard = BTreeMap<(String, u64), BTreeSet<String>>;

/// Whoever listens to the events of a deployment.
struct Listener {
    amqp: Amqp,
    exchange: String,
    queue: String,
}

impl Listener {
    /// Of the deployment in `setup`, which is made if there is none.
    fn new(setup: &Setup, url: &str) -> Self {
        let migrated = setup.run(&["migrate"]);
        let told = migrated.stdout.lines().find_map(|line| line.strip_prefix("deployment "));
        let deployment = told.unwrap_or_else(|| panic!("no deployment in {migrated:?}"));
        let exchange = format!("terse.{}.events", &deployment[..16]);
        let queue = format!("{exchange}.listener");
        let mut amqp = Amqp::connect(url);
        amqp.listen(&exchange, &queue);
        Self { amqp, exchange, queue }
    }

    /// All events that came since the last call, each as its schema says.
    fn hear(&mut self) -> Vec<Value> {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        let messages = self.amqp.take_all(&self.queue);
        let event = |message: &crate::amqp::Message| {
            let event: Value = serde_json::from_slice(&message.body).unwrap();
            assert_eq!(event["type"], message.routing_key.as_str());
            fits(&schema, &event).unwrap_or_else(|why| panic!("{why} in {event}"));
            event
        };
        messages.iter().map(event).collect()
    }

    fn end(mut self) {
        self.amqp.delete(&self.exchange, &self.queue);
    }
}

/// Whether `value` is as `schema` says, in the words of JSON Schema that ours uses.
fn fits(schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(allowed) = schema["enum"].as_array() {
        return allowed.contains(value).then_some(()).ok_or_else(|| format!("{value} is none of {allowed:?}"));
    }
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    let is = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Null => "null",
        Value::Number(_) => "integer",
        Value::Bool(_) => "boolean",
    };
    if !types.contains(&json!(is)) {
        return Err(format!("{value} is not of {types:?}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(&schema["items"], item)?;
    }
    let Some(fields) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        fields.get(name.as_str().unwrap()).ok_or_else(|| format!("there is no {name}"))?;
    }
    fields.iter().try_for_each(|(name, value)| match schema["properties"].get(name) {
        Some(schema) => fits(schema, value),
        None => Err(format!("nobody knows {name}")),
    })
}

fn of(event: &Value) -> (String, String, u64) {
    let text = |name: &str| event[name].as_str().unwrap().to_owned();
    (text("code"), text("type"), event["version"].as_u64().unwrap())
}

fn told(code: &str, kind: &str, version: u64) -> (String, String, u64) {
    (code.to_owned(), format!("link.{kind}.v1"), version)
}

fn dropped(client: &Client) -> Value {
    let health = client.get("/health").json();
    let checks = health["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "events:dropped").unwrap_or_else(|| panic!("{health}"))["observedValue"]
        .clone()
}

#[test]
fn each_change_of_a_link_is_told_in_the_order_of_its_versions() {
    let _turn = heavy_turn();
    let url = std::env::var("TERSE_AMQP").expect("TERSE_AMQP names a RabbitMQ, as cargo xtask up rabbitmq prints it");
    let setup = Setup::new().env("TERSE_BUS", &url).flag("--role=api");
    let mut listener = Listener::new(&setup, &url);
    let mut server = setup.start();
    let client = server.client();
    let code = code_of(&client.create(&json!({ "url": "https://example.com/a", "title": "One", "tags": ["x"] })));
    assert_eq!(client.patch(&code, &json!({ "url": "https://example.com/b" })).status, 200);
    assert_eq!(client.patch(&code, &json!({ "url": "https://example.com/b" })).status, 200);
    assert_eq!(client.patch(&code, &json!({ "state": "disabled" })).status, 200);
    assert_eq!(client.delete(&code).status, 204);
    let keyed = |body: &Value| {
        let request = Request::new("POST", API_LINKS).header("Idempotency-Key", "k1").json(body);
        code_of(&client.send(request).expect(201).json())
    };
    let body = json!({ "url": "https://example.com/keyed" });
    let once = keyed(&body);
    assert_eq!(keyed(&body), once);
    let items =
        [json!({ "url": "https://example.com/1" }), json!({ "url": "no" }), json!({ "url": "https://e.com/2" })];
    let batch = client.post(&format!("{API_LINKS}/batch"), &json!({ "items": items })).expect(200).json();
    let made = [0, 2].map(|number| code_of(&batch["items"][number]["link"]));
    assert_eq!(client.get(&code_path(&made[0])).status, 200);
    assert_eq!(client.post(API_LINKS, &json!({ "url": "https://e.com/3", "alias": made[0] })).status, 409);

    let mut heard = Vec::new();
    let codes: BTreeSet<&String> = made.iter().chain([&code, &once]).collect();
    await_true("all changes to be told", PATIENCE, || {
        heard.extend(listener.hear());
        heard.len() >= 7
    });
    assert!(heard.iter().all(|event| codes.contains(&of(event).0)), "{heard:?}");
    let own: Vec<_> = heard.iter().map(of).filter(|(of, ..)| *of == code).collect();
    let expected = [told(&code, "created", 1), told(&code, "changed", 2), told(&code, "changed", 3)];
    assert_eq!(own, [&expected[..], &[told(&code, "deleted", 4)]].concat());
    assert_eq!(heard[0]["link"]["title"], "One");
    for code in made.iter().chain([&once]) {
        assert!(heard.iter().any(|event| of(event) == told(code, "created", 1)), "{code} in {heard:?}");
    }
    let metrics = client.get("/metrics").text();
    assert!(metrics.contains("terse_link_events_total{outcome=\"dropped\"} 0"), "{metrics}");
    assert_eq!(dropped(&client), 0);
    let ended = server.stop(Stop::Politely);
    assert!(ended.code == Some(0) && ended.took < Duration::from_secs(5), "{ended:?}");
    listener.end();
}

/// Creates and edits links until the connection breaks; the codes that were answered, with the versions.
fn write_until_killed(client: &Client, name: &str, ended: &AtomicBool, count: &AtomicUsize) -> Vec<(String, u64)> {
    let mut answered = Vec::new();
    let Ok(mut connection) = Connection::open(client.address()) else { return answered };
    for number in 0.. {
        let target = format!("https://example.com/{name}/{number}");
        let Ok(made) = connection.call(&Request::new("POST", API_LINKS).json(&json!({ "url": target }))) else { break };
        let code = code_of(&made.expect(201).json());
        answered.push((code.clone(), 1));
        count.fetch_add(1, Ordering::Relaxed);
        let edit = Request::new("PATCH", &code_path(&code)).json(&json!({ "title": name }));
        let Ok(edited) = connection.call(&edit) else { break };
        assert_eq!(edited.status, 200);
        answered.push((code, 2));
        if ended.load(Ordering::Relaxed) {
            break;
        }
    }
    answered
}

#[test]
fn every_answered_change_is_told_whatever_is_killed_meanwhile() {
    let _turn = heavy_turn();
    let mut broker = Broker::start();
    let setup = Setup::new().kept_on_failure().env("TERSE_BUS", &broker.url()).flag("--role=api");
    let mut listener = Listener::new(&setup, &broker.url());
    let mut server = setup.start();
    let mut answered = Vec::new();
    for round in 0..ROUNDS {
        // In the second round the broker is away: no create fails for that.
        if round == 1 {
            broker.kill();
        }
        let (ended, count) = (AtomicBool::new(false), AtomicUsize::new(0));
        let client = server.client();
        answered.extend(std::thread::scope(|scope| {
            let writer = |number: usize| {
                let (client, ended, count) = (&client, &ended, &count);
                scope.spawn(move || write_until_killed(client, &format!("{round}-{number}"), ended, count))
            };
            let writers: Vec<_> = (0..WRITERS).map(writer).collect();
            await_true("links to be created", PATIENCE, || count.load(Ordering::Relaxed) >= PER_ROUND);
            server.stop(Stop::AtOnce);
            ended.store(true, Ordering::SeqCst);
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        }));
        if round == 1 {
            broker.restart();
            listener.amqp = Amqp::connect(&broker.url());
        }
        server = setup.start();
    }
    let mut heard = Heard::new();
    let mut missing = |wanted: &[(String, u64)]| {
        for event in listener.hear() {
            let (code, _, version) = of(&event);
            heard.entry((code, version)).or_default().insert(event["id"].to_string());
        }
        wanted.iter().filter(|change| !heard.contains_key(*change)).cloned().collect::<Vec<_>>()
    };
    await_none("all that was answered to be told", PATIENCE, || missing(&answered));
    // What stands is told, answered or not.
    let client = server.client();
    let stands = client.all_links(200);
    assert!(stands.len() >= answered.len() / 2, "{} of {}", stands.len(), answered.len());
    let created: Vec<_> = stands.iter().map(|link| (code_of(link), 1)).collect();
    await_none("all that stands to be told", PATIENCE, || missing(&created));
    let codes: BTreeSet<String> = stands.iter().map(code_of).collect();
    assert!(heard.keys().all(|(code, _)| codes.contains(code)), "what is told has happened");
    let twice = heard.values().filter(|ids| ids.len() > 1).count();
    assert!(twice <= WRITERS * ROUNDS, "{twice} changes were told under more than one id");
    assert_eq!(dropped(&client), 0);
}
