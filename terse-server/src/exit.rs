//! How the program ends: exit codes in the tradition of `sysexits.h` and `diff`, and the
//! one readable line that goes with each.

use std::fmt;
use std::process::ExitCode;

/// Why the program ends without having done its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A comparison found a difference: 1.
    Different = 1,
    /// A flag, an environment variable, the configuration file, or the data
    /// directory contradicts what is known: 64.
    Config = 64,
    /// Something that is needed does not work or is not in this version: 69.
    Unavailable = 69,
    /// A fault of terse itself: 70.
    Internal = 70,
    /// A file or directory can't be created: 73.
    CannotCreate = 73,
    /// A file can't be read or written: 74.
    Io = 74,
    /// It may work later, without any change: 75.
    Temporary = 75,
}

impl Exit {
    /// All of them with their meaning, for `--help`.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Different, "a comparison found a difference"),
        (Self::Config, "wrong usage or configuration"),
        (Self::Unavailable, "a port, a store or this version can't do it"),
        (Self::Internal, "a fault of terse itself"),
        (Self::CannotCreate, "a file or directory can't be created"),
        (Self::Io, "a file can't be read or written"),
        (Self::Temporary, "try again later; the data directory is in use"),
    ];
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the program could not do what it was started for: one line and an exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// The exit code.
    pub exit: Exit,
    /// What happened, in one line, without secrets.
    pub message: String,
}

impl StartError {
    /// A failure with this exit code and text; line breaks in the text become spaces.
    #[must_use]
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self { exit, message: message.split_whitespace().collect::<Vec<_>>().join(" ") }
    }

    /// Wrong usage or configuration.
    #[must_use]
    pub fn config(message: impl fmt::Display) -> Self {
        Self::new(Exit::Config, message)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_it_was_made_from() {
        let failure = StartError::new(Exit::Io, "cannot read\n  the file:\n\ttoo large");
        assert_eq!(failure.to_string(), "cannot read the file: too large");
    }

    #[test]
    fn the_exit_codes_are_those_of_sysexits_and_one_of_diff() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|(exit, _)| *exit as u8).collect();
        assert_eq!(codes, [1, 64, 69, 70, 73, 74, 75]);
    }
}
