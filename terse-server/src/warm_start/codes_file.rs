//! The file of the hottest codes: text, one code a line, hottest first.
//!
//! ```text
//! terse-warm-codes 1 CRC32-OF-THE-REST
//! DEPLOYMENT SAVED-AT-MS
//! HEAT CODE
//! ```
//!
//! It holds no targets, so whoever finds it learns nothing of where links lead,
//! and nothing outdated can come from it. Bound: [`MAX_CODES`]; a longer file is
//! none of ours.

use std::fmt::Write as _;
use std::path::Path;

use terse_cache::HotCode;
use terse_core::{ShortCode, Timestamp};

use crate::kept_file::{KeptFile, Unfit};

/// Most codes that are saved.
pub(super) const MAX_CODES: usize = 50_000;
/// The file of the codes. Its longest line is heat, blank, code, end of line.
pub(super) const FILE: KeptFile = KeptFile {
    name: "warm.codes",
    format: "terse-warm-codes",
    most_lines: MAX_CODES,
    line_bytes: 10 + 1 + ShortCode::MAX_LEN + 1,
};

/// What was saved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// When, by the wall clock.
    pub(super) at: Timestamp,
    /// Hottest first, at most [`MAX_CODES`].
    pub(super) codes: Vec<HotCode>,
}

/// Replaces the file: whole or not at all.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(data_dir: &Path, deployment: &str, saved: &Saved) -> std::io::Result<()> {
    FILE.replace(data_dir, &encode(deployment, saved))
}

/// What was saved for `deployment`; `None` = there is no file.
///
/// # Errors
/// [`Unfit`] for every file that is not whole, ours and within its bounds.
pub(super) fn read(data_dir: &Path, deployment: &str) -> Result<Option<Saved>, Unfit> {
    FILE.read(data_dir, deployment, |at, lines| {
        let at = Timestamp::from_millis(at.parse().ok()?);
        Some(Saved { at, codes: lines.map(hot_code).collect::<Option<Vec<_>>>()? })
    })
}

fn encode(deployment: &str, saved: &Saved) -> String {
    let mut lines = String::new();
    for HotCode { heat, code } in saved.codes.iter().take(MAX_CODES) {
        // Writing to a text can't fail.
        let _ = writeln!(lines, "{heat} {code}");
    }
    FILE.text(deployment, &saved.at.as_millis().to_string(), &lines)
}

fn hot_code(line: &str) -> Option<HotCode> {
    let (heat, code) = line.split_once(' ')?;
    Some(HotCode { heat: heat.parse().ok()?, code: ShortCode::parse(code).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";

    fn saved(codes: &[(&str, u32)]) -> Saved {
        let codes = codes.iter().map(|(code, heat)| HotCode { heat: *heat, code: ShortCode::parse(code).unwrap() });
        Saved { at: Timestamp::from_millis(1_767_323_045_000), codes: codes.collect() }
    }

    /// Why a file is not loaded that says this of its time and has these lines.
    #[track_caller]
    fn refusal(at: &str, lines: &str) -> Unfit {
        let place = tempfile::tempdir().unwrap();
        FILE.replace(place.path(), &FILE.text(DEPLOYMENT, at, lines)).unwrap();
        read(place.path(), DEPLOYMENT).unwrap_err()
    }

    #[test]
    fn what_is_saved_is_read_back_in_its_order() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(read(place.path(), DEPLOYMENT).unwrap(), None);
        let long = "x".repeat(ShortCode::MAX_LEN);
        for list in [saved(&[("hot", u32::MAX), (&long, 7), ("A-b_9", 7), ("cold", 0)]), saved(&[])] {
            write(place.path(), DEPLOYMENT, &list).unwrap();
            assert_eq!(read(place.path(), DEPLOYMENT).unwrap(), Some(list));
        }
    }

    #[test]
    fn the_file_tells_no_targets() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), DEPLOYMENT, &saved(&[("abc", 3)])).unwrap();
        let text = std::fs::read_to_string(place.path().join(FILE.name)).unwrap();
        assert!(text.starts_with("terse-warm-codes 1 ") && text.ends_with("\n3 abc\n"), "{text}");
    }

    #[test]
    fn what_is_no_code_with_its_heat_is_refused_with_the_whole_file() {
        for line in ["abc", "x abc", "-1 abc", "4294967296 abc", "1 a/b", "1 ", "1 abc def"] {
            assert!(matches!(refusal("1000", &format!("1 abc\n{line}\n")), Unfit::Damaged), "{line}");
        }
        assert!(matches!(refusal("soon", ""), Unfit::Damaged));
    }

    #[test]
    fn a_list_is_bounded_when_it_is_written_and_when_it_is_read() {
        let codes: Vec<String> = (0..=MAX_CODES).map(|n| format!("{n:064}")).collect();
        let codes: Vec<(&str, u32)> = codes.iter().map(|code| (code.as_str(), u32::MAX)).collect();
        let place = tempfile::tempdir().unwrap();
        write(place.path(), DEPLOYMENT, &saved(&codes)).unwrap();
        assert_eq!(read(place.path(), DEPLOYMENT).unwrap(), Some(saved(&codes[..MAX_CODES])));
        assert!(matches!(refusal("1000", &"1 a\n".repeat(MAX_CODES + 1)), Unfit::TooLong));
    }
}
