//! What an operator asks of a broker, by the package's own program.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::Broker;

/// How long a command may take, in the broker.
pub const CONTROL_LIMIT: Duration = Duration::from_secs(30);
/// What the queues of undecodable clicks are called, behind the deployment.
pub(super) const DEAD: &str = ".clicks.dead";
/// What comes before the number of a stream of clicks.
const STREAMS: &str = ".clicks.";

/// A queue or a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// How many messages it has, as it counted them some seconds ago.
    pub messages: u64,
}

impl Queue {
    fn is_dead_letters(&self) -> bool {
        self.name.ends_with(DEAD)
    }

    /// Whether it is a stream of clicks.
    fn is_stream(&self) -> bool {
        let number = self.name.rsplit_once(STREAMS).map(|(_, number)| number);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

impl Broker {
    /// Its queues and streams.
    #[must_use]
    #[track_caller]
    pub fn queues(&self) -> Vec<Queue> {
        parse(&self.control(&["--silent", "--formatter", "json", "list_queues", "name", "messages"]))
    }

    /// How many streams of clicks there are.
    #[must_use]
    #[track_caller]
    pub fn streams(&self) -> usize {
        self.queues().iter().filter(|queue| queue.is_stream()).count()
    }

    /// Messages in all streams of clicks.
    #[must_use]
    #[track_caller]
    pub fn streamed(&self) -> u64 {
        self.queues().iter().filter(|queue| queue.is_stream()).map(|stream| stream.messages).sum()
    }

    /// Clicks that nobody could decode.
    #[must_use]
    #[track_caller]
    pub fn dead_letters(&self) -> u64 {
        let queues = self.queues();
        let mut dead = queues.iter().filter(|queue| queue.is_dead_letters()).peekable();
        assert!(dead.peek().is_some(), "there is no dead-letter queue among {queues:?}");
        dead.map(|queue| queue.messages).sum()
    }

    /// Leaves it less memory than it has taken already: it asks publishers to spare it.
    #[track_caller]
    pub fn starve(&self) {
        self.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    }

    /// Leaves it as much memory as usual.
    #[track_caller]
    pub fn feed(&self) {
        self.control(&["set_vm_memory_high_watermark", "0.4"]);
    }

    /// What the package's control program says.
    #[track_caller]
    fn control(&self, arguments: &[&str]) -> String {
        let mut command = self.program("rabbitmqctl");
        command.args(["--timeout", &CONTROL_LIMIT.as_secs().to_string()]).args(arguments);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.unwrap_or_else(|error| panic!("rabbitmqctl does not start: {error}"));
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[track_caller]
fn parse(text: &str) -> Vec<Queue> {
    let told: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}) in {text}"));
    let queue =
        |queue: &Value| Some(Queue { name: queue["name"].as_str()?.to_owned(), messages: queue["messages"].as_u64()? });
    let queues = told.as_array().map(|queues| queues.iter().map(queue).collect::<Option<Vec<_>>>());
    queues.flatten().unwrap_or_else(|| panic!("no queues in {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_dead_letters_are_known_by_their_names() {
        let queues = parse(
            r#"[{"name":"terse.k3.clicks.dead","messages":2},{"name":"terse.k3.clicks.11","messages":70},
                {"name":"audit","messages":9},{"name":"terse.k3.clicks.","messages":1}]"#,
        );
        let named = |is: fn(&Queue) -> bool| queues.iter().filter(|q| is(q)).map(|q| q.messages).collect::<Vec<_>>();
        assert_eq!(named(Queue::is_stream), [70]);
        assert_eq!(named(Queue::is_dead_letters), [2]);
        assert!(parse("[]").is_empty());
    }

    #[test]
    #[should_panic(expected = "no queues in")]
    fn an_answer_of_another_form_is_not_taken_for_no_queues() {
        let _ = parse(r#"[{"name":"audit"}]"#);
    }
}
