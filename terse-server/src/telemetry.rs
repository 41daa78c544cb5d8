//! Logging: to stderr, readable on a terminal and JSON otherwise. A panic is
//! logged like any other error. Nothing secret is handed to a log in the first
//! place: keys, URLs of services and credentials have no printable form.

use std::io::IsTerminal;
use std::panic::PanicHookInfo;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::keys::nearest;
use crate::config::values::shown;
use crate::exit::{Exit, StartError};

/// The levels that a filter knows.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the frameworks below log is news only when it is trouble, unless the filter names them.
/// `actix_http` calls every head that it can't parse an error: clients could fill the log at will.
/// `scylla` warns of each connection that fails and of settings that are meant; what that comes to is told by the shard.
const QUIET: [&str; 4] = ["actix_server=warn", "actix_http=off", "mio=warn", "scylla=off"];

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Readable on a terminal, JSON otherwise.
    Auto,
    /// Readable.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// A filter whose syntax is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

impl Filter {
    /// Checks a filter in the syntax of `tracing`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        for part in &parts {
            part.parse::<Directive>().map_err(|error| format!("is not a log filter: {error}"))?;
            // A bare word is taken as a module; a mistyped level would silently log too much or nothing.
            let word = part.to_ascii_lowercase();
            if !part.contains(['=', '[', ':'])
                && !LEVELS.contains(&word.as_str())
                && let Some(level) = nearest(&word, LEVELS)
            {
                return Err(format!("'{}' is not a level; did you mean '{level}'?", shown(part)));
            }
        }
        let text = parts.join(",");
        EnvFilter::builder().parse(&text).map_err(|error| format!("is not a log filter: {error}"))?;
        Ok(Self(text))
    }

    fn build(&self) -> EnvFilter {
        let mut filter = EnvFilter::new(&self.0);
        for directive in QUIET {
            let target = directive.split('=').next().unwrap_or_default();
            if !self.0.contains(target)
                && let Ok(directive) = directive.parse()
            {
                filter = filter.add_directive(directive);
            }
        }
        filter
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// [`StartError`] when something logs already.
pub fn start(filter: &Filter, format: LogFormat) -> Result<(), StartError> {
    let terminal = std::io::stderr().is_terminal();
    tracing::subscriber::set_global_default(subscriber(filter, format, terminal, std::io::stderr))
        .map_err(|error| StartError::new(Exit::Internal, format_args!("logging can't be started: {error}")))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// What turns events into lines for `writer`.
fn subscriber<W>(filter: &Filter, format: LogFormat, terminal: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter.build()).with_writer(writer);
    if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        Box::new(builder.json().flatten_event(true).with_span_list(false).finish())
    } else {
        Box::new(builder.with_ansi(terminal).finish())
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("of unknown kind");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
    tracing::error!(panic = text, place, thread, "a thread or task panicked");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn levels_and_directives_are_filters() {
        for text in [
            "info",
            "WARN",
            "off",
            "info,terse_http=debug",
            "terse_store::sqlite=trace",
            "[request]=debug",
            "warn,my_crate=info",
        ] {
            assert_eq!(Filter::parse(text), Ok(Filter(text.to_owned())), "{text}");
        }
        assert_eq!(Filter::parse("warn, my_crate=info"), Filter::parse("warn,my_crate=info"));
    }

    #[test]
    fn a_filter_that_means_nothing_is_refused() {
        for text in ["info,,terse=", "terse=loud", "info=debug=trace", "[unclosed=debug", "="] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        assert!(Filter::parse("inof").unwrap_err().contains("'info'"));
        assert!(Filter::parse("debgu,terse_http=info").unwrap_err().contains("'debug'"));
    }

    #[test]
    fn frameworks_are_quiet_unless_they_are_asked_for() {
        assert!(Filter::parse("debug").unwrap().build().to_string().contains("actix_server=warn"));
        assert!(!Filter::parse("actix_server=debug").unwrap().build().to_string().contains("actix_server=warn"));
    }

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `work` logs, line by line.
    fn logged(filter: &str, format: LogFormat, terminal: bool, work: impl FnOnce()) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let filter = Filter::parse(filter).unwrap();
        tracing::subscriber::with_default(subscriber(&filter, format, terminal, move || writer.clone()), work);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    fn one_of_each() {
        tracing::debug!("unimportant");
        tracing::warn!(shard = "a", took_ms = 7, "slow\nand \u{1b}[31mred");
    }

    #[test]
    fn json_is_one_object_a_line_whatever_is_logged() {
        for (format, terminal) in [(LogFormat::Json, true), (LogFormat::Auto, false)] {
            let lines = logged("info", format, terminal, one_of_each);
            assert_eq!(lines.len(), 1, "{lines:?}");
            let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
            assert_eq!((&event["level"], &event["shard"], &event["took_ms"]), (&"WARN".into(), &"a".into(), &7.into()));
            assert_eq!(event["message"], "slow\nand \u{1b}[31mred");
        }
    }

    #[test]
    fn a_terminal_gets_readable_lines_and_no_foreign_escapes() {
        for (format, terminal) in [(LogFormat::Pretty, false), (LogFormat::Auto, true)] {
            let lines = logged("info", format, terminal, one_of_each).join("\n");
            assert!(lines.contains("WARN") && lines.contains("slow") && !lines.contains("unimportant"), "{lines}");
            assert!(!lines.contains("\u{1b}[31mred"), "{lines:?}");
        }
        assert_eq!(logged("debug", LogFormat::Pretty, false, || tracing::debug!("important")).len(), 1);
    }

    #[test]
    fn a_panic_is_an_error_event_with_its_place() {
        let lines = logged("info", LogFormat::Json, false, || {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let outcome = std::panic::catch_unwind(|| panic!("on purpose"));
            std::panic::set_hook(before);
            assert!(outcome.is_err());
        });
        let event: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&event["level"], &event["panic"]), (&"ERROR".into(), &"on purpose".into()));
        assert!(event["place"].as_str().unwrap().contains("telemetry.rs:"), "{event}");
    }
}
