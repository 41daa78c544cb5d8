//! What is wrong with settings.

use std::fmt;

/// A setting outside its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The field.
    pub setting: &'static str,
    /// What it has to be; lower case, no full stop.
    pub must: &'static str,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must {}", self.setting, self.must)
    }
}

impl std::error::Error for SettingsError {}

/// Refuses settings unless `holds`.
pub(crate) fn require(holds: bool, setting: &'static str, must: &'static str) -> Result<(), SettingsError> {
    if holds { Ok(()) } else { Err(SettingsError { setting, must }) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_settings_error_reads_as_a_sentence_without_its_stop() {
        let error = require(false, "open_ms", "be at least 1").unwrap_err();
        assert_eq!(error.to_string(), "open_ms must be at least 1");
        assert!(require(true, "open_ms", "be at least 1").is_ok());
    }
}
