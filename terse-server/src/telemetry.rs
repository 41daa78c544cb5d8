//! Logging: to stderr, readable on a terminal and JSON otherwise. A panic is
//! logged like any other error. Nothing secret is handed to a log in the first
//! place: keys, URLs of services and credentials have no printable form.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::keys::nearest;
use crate::config::values::shown;
use crate::exit::{Exit, StartError};

/// The levels that a filter knows.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// What the frameworks below log is news only when it is trouble, unless the filter names them.
const QUIET: [&str; 3] = ["actix_server=warn", "actix_http=warn", "mio=warn"];

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
    let builder = tracing_subscriber::fmt().with_env_filter(filter.build()).with_writer(std::io::stderr);
    let started = if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(terminal).try_init()
    };
    started.map_err(|error| StartError::new(Exit::Internal, format_args!("logging can't be started: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("of unknown kind");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(panic = text, place, thread, "a thread or task panicked");
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
