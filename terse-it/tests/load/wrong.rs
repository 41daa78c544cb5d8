//! A server that answers wrong: whatever it does wrong, both generators must say so and fail.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::scripts::script;
use super::{TOOLS, generator};

/// What it does wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Redirects lead elsewhere.
    Elsewhere,
    /// Everything is 200, with a body that a careless page would run.
    Fine,
    /// Everything is 500.
    Broken,
    /// Every link has the target of another one.
    Swapped,
    /// Nothing, but for one redirect that leads elsewhere, the one of this number.
    Once(usize),
}

/// What it knows.
struct Known {
    fault: Fault,
    /// Targets of the links that were made; the number of each is its code.
    targets: Mutex<Vec<String>>,
    /// How many redirects were asked for.
    asked: AtomicUsize,
}

/// A body that does harm where it isn't escaped.
pub(crate) const HOSTILE: &str =
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

/// Where nobody wanted to go.
const EVIL: &str = "https://evil.example/";

/// Starts one that lives as long as the test.
pub(crate) fn serve(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let known = Arc::new(Known { fault, targets: Mutex::default(), asked: AtomicUsize::new(0) });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let known = Arc::clone(&known);
            // Whoever goes away in the middle of an answer is no longer of interest.
            thread::spawn(move || drop(converse(stream, &known)));
        }
    });
    address
}

fn converse(mut stream: TcpStream, known: &Known) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            let lower = header.to_ascii_lowercase();
            length = lower.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap());
            header.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let (status, location, answer) = answer(&line, &body, known);
        let location = location.map(|to| format!("location: {to}\r\n")).unwrap_or_default();
        let length = answer.len();
        let text = format!("HTTP/1.1 {status} X\r\n{location}content-length: {length}\r\n\r\n{answer}");
        stream.write_all(text.as_bytes())?;
    }
}

/// Status, location and body of an answer. Links are made as they should be, or there were nothing to ask for.
fn answer(line: &str, body: &[u8], known: &Known) -> (u16, Option<String>, String) {
    if line.contains("/links/batch") {
        let asked: Value = serde_json::from_slice(body).unwrap();
        let mut targets = known.targets.lock().unwrap();
        let mut make = |item: &Value| {
            targets.push(item["url"].as_str().unwrap().to_owned());
            json!({ "status": 201, "link": { "code": format!("code{}", targets.len() - 1) } })
        };
        let items: Vec<Value> = asked["items"].as_array().unwrap().iter().map(&mut make).collect();
        return (200, None, json!({ "items": items }).to_string());
    }
    let code = line.split("code").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let target = |further: usize| {
        let targets = known.targets.lock().unwrap();
        code.and_then(|code| targets.get((code + further) % targets.len().max(1)).cloned())
    };
    match known.fault {
        Fault::Elsewhere => (302, Some(EVIL.into()), String::new()),
        Fault::Fine => (200, None, HOSTILE.into()),
        Fault::Broken => (500, None, String::new()),
        Fault::Swapped => (302, target(1), String::new()),
        Fault::Once(number) => {
            let is_it = known.asked.fetch_add(1, Ordering::Relaxed) == number;
            (302, if is_it { Some(EVIL.into()) } else { target(0) }, String::new())
        }
    }
}

/// What goes wrong, and in which scenario: each scenario has one, each fault several.
const CASES: [(Fault, &str); 8] = [
    (Fault::Elsewhere, "smoke"),
    (Fault::Fine, "steady"),
    (Fault::Broken, "hot-link"),
    (Fault::Fine, "cold-scan"),
    (Fault::Broken, "create-burst"),
    (Fault::Swapped, "campaign"),
    (Fault::Elsewhere, "soak"),
    (Fault::Fine, "limit"),
];

fn command(tool: &str, scenario: &str, rate: &str, address: SocketAddr) -> Command {
    let mut command = Command::new(generator(tool));
    if tool == "k6" {
        command.args(["run", "--quiet", "--no-color", "--no-usage-report"]);
        command.args(["-e", "SECONDS=2", "-e", &format!("RATE={rate}"), "-e", "LINKS=5", &script(scenario)]);
        command.env("TERSE_URL", format!("http://{address}"));
    } else {
        command.args([scenario, "--seconds", "2", "--rate", rate, "--links", "5"]);
        command.args(["--url", &format!("http://{address}")]);
    }
    command
}

#[test]
fn a_server_that_answers_wrong_fails_every_run_loudly() {
    let runs = CASES.iter().flat_map(|case| TOOLS.map(|tool| (*case, tool)));
    let threads: Vec<_> = runs
        .map(|((fault, scenario), tool)| {
            let address = serve(fault);
            thread::spawn(move || (fault, scenario, tool, command(tool, scenario, "20", address).output().unwrap()))
        })
        .collect();
    for (fault, scenario, tool, output) in threads.into_iter().map(|thread| thread.join().unwrap()) {
        let said = super::said(&output);
        assert!(!output.status.success(), "{scenario} of {tool} is content with {fault:?}: {said}");
        assert!(said.contains("not right: "), "{scenario} of {tool} doesn't say what is wrong with {fault:?}: {said}");
    }
}

#[test]
fn one_wrong_target_among_a_thousand_right_ones_fails_a_run() {
    let threads = TOOLS.map(|tool| {
        let address = serve(Fault::Once(100));
        let mut command = command(tool, "campaign", "100", address);
        thread::spawn(move || (tool, command.output().unwrap()))
    });
    for (tool, output) in threads.map(|thread| thread.join().unwrap()) {
        let said = super::said(&output);
        assert!(!output.status.success(), "{tool} is content: {said}");
        assert_eq!(said.matches(EVIL).count(), 1, "{tool}: {said}");
        // Others may fail, too, where the machine is busy; this one has to.
        let told = match tool {
            "k6" => said.lines().any(|line| line.contains("have been crossed") && line.contains("wrong_answers")),
            _ => said.contains("FAIL  wrong answers                      1.00"),
        };
        assert!(told, "{tool} fails for something else: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_fails_every_run() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for tool in TOOLS {
        let output = command(tool, "smoke", "20", nobody).output().unwrap();
        assert!(!output.status.success(), "{tool}: {}", super::said(&output));
    }
}
