//! The file of the hottest codes: text, one code a line, hottest first.
//!
//! ```text
//! terse-warm-codes 1 CRC32-OF-THE-REST
//! DEPLOYMENT SAVED-AT-MS
//! HEAT CODE
//! ```
//!
//! It holds no targets, so whoever finds it learns nothing of where links lead,
//! and nothing outdated can come from it. Bounds: [`MAX_CODES`], [`MAX_BYTES`];
//! a file beyond them is none of ours.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use terse_cache::HotCode;
use terse_core::{ShortCode, Timestamp};

use crate::data_dir;

/// The file in the data directory.
pub(super) const FILE: &str = "warm.codes";
/// Most codes in it.
pub(super) const MAX_CODES: usize = 50_000;
/// The longest line of a code: heat, blank, code, end of line.
const LINE_BYTES: usize = 10 + 1 + ShortCode::MAX_LEN + 1;
/// Most bytes that are read, its two first lines included.
const MAX_BYTES: u64 = (MAX_CODES * LINE_BYTES + 256) as u64;
const FORMAT: &str = "terse-warm-codes";
const VERSION: &str = "1";

/// What was saved.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saved {
    /// When, by the wall clock.
    pub(super) at: Timestamp,
    /// Hottest first, at most [`MAX_CODES`].
    pub(super) codes: Vec<HotCode>,
}

/// Why there is nothing to load.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("there is none")]
    Missing,
    #[error("it can't be read: {0}")]
    Unreadable(#[from] std::io::Error),
    #[error("it is no file")]
    NoFile,
    #[error("it is longer than such a file gets")]
    TooLong,
    #[error("it is damaged, or something else")]
    Damaged,
    #[error("it has another version of the format")]
    OtherVersion,
    #[error("it is another deployment's")]
    OtherDeployment,
}

/// Replaces the file: whole or not at all.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(data_dir: &Path, deployment: &str, saved: &Saved) -> std::io::Result<()> {
    data_dir::replace_private_file(data_dir, FILE, encode(deployment, saved).as_bytes())
}

/// What was saved for `deployment`.
///
/// # Errors
/// [`Unfit`] for every file that is not whole, ours and within its bounds.
pub(super) fn read(data_dir: &Path, deployment: &str) -> Result<Saved, Unfit> {
    let path = data_dir.join(FILE);
    // Opening a pipe would wait for its writer.
    match std::fs::metadata(&path) {
        Ok(about) if !about.is_file() => return Err(Unfit::NoFile),
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unfit::Missing),
        about => about?,
    };
    let mut bytes = vec![];
    File::open(&path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Unfit::TooLong);
    }
    decode(deployment, std::str::from_utf8(&bytes).map_err(|_| Unfit::Damaged)?)
}

fn encode(deployment: &str, saved: &Saved) -> String {
    let mut rest = format!("{deployment} {}\n", saved.at.as_millis());
    for HotCode { heat, code } in saved.codes.iter().take(MAX_CODES) {
        // Writing to a text can't fail.
        let _ = writeln!(rest, "{heat} {code}");
    }
    format!("{FORMAT} {VERSION} {:08x}\n{rest}", crc32fast::hash(rest.as_bytes()))
}

fn decode(deployment: &str, text: &str) -> Result<Saved, Unfit> {
    let (first, rest) = text.split_once('\n').ok_or(Unfit::Damaged)?;
    let (format, first) = first.split_once(' ').ok_or(Unfit::Damaged)?;
    let (version, checksum) = first.split_once(' ').ok_or(Unfit::Damaged)?;
    if format != FORMAT {
        return Err(Unfit::Damaged);
    }
    if version != VERSION {
        return Err(Unfit::OtherVersion);
    }
    if checksum != format!("{:08x}", crc32fast::hash(rest.as_bytes())) {
        return Err(Unfit::Damaged);
    }
    let (about, lines) = rest.split_once('\n').ok_or(Unfit::Damaged)?;
    let (owner, at) = about.split_once(' ').ok_or(Unfit::Damaged)?;
    if owner != deployment {
        return Err(Unfit::OtherDeployment);
    }
    let at = Timestamp::from_millis(at.parse().map_err(|_| Unfit::Damaged)?);
    if lines.lines().nth(MAX_CODES).is_some() {
        return Err(Unfit::TooLong);
    }
    let codes = lines.lines().map(hot_code).collect::<Option<Vec<_>>>().ok_or(Unfit::Damaged)?;
    Ok(Saved { at, codes })
}

fn hot_code(line: &str) -> Option<HotCode> {
    let (heat, code) = line.split_once(' ')?;
    Some(HotCode { heat: heat.parse().ok()?, code: ShortCode::parse(code).ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";

    fn saved(codes: &[(&str, u32)]) -> Saved {
        let codes = codes.iter().map(|(code, heat)| HotCode { heat: *heat, code: ShortCode::parse(code).unwrap() });
        Saved { at: Timestamp::from_millis(1_767_323_045_000), codes: codes.collect() }
    }

    fn place(text: &[u8]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(FILE), text).unwrap();
        place
    }

    /// Why `text` is not loaded.
    #[track_caller]
    fn refusal(text: &[u8]) -> Unfit {
        read(place(text).path(), DEPLOYMENT).unwrap_err()
    }

    /// A file as it would be with this second part, its checksum right.
    fn sealed(rest: &str) -> String {
        format!("{FORMAT} {VERSION} {:08x}\n{rest}", crc32fast::hash(rest.as_bytes()))
    }

    #[test]
    fn what_is_saved_is_read_back_in_its_order() {
        let place = tempfile::tempdir().unwrap();
        let long = "x".repeat(ShortCode::MAX_LEN);
        for list in [saved(&[("hot", u32::MAX), (&long, 7), ("A-b_9", 7), ("cold", 0)]), saved(&[])] {
            write(place.path(), DEPLOYMENT, &list).unwrap();
            assert_eq!(read(place.path(), DEPLOYMENT).unwrap(), list);
        }
    }

    #[test]
    fn the_file_is_private_and_tells_no_targets() {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), DEPLOYMENT, &saved(&[("abc", 3)])).unwrap();
        let file = place.path().join(FILE);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("terse-warm-codes 1 ") && text.ends_with("\n3 abc\n"), "{text}");
    }

    #[test]
    fn a_file_with_any_byte_flipped_or_cut_off_is_refused() {
        let whole = encode(DEPLOYMENT, &saved(&[("abc", 31), ("d", 2)])).into_bytes();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            refusal(&flipped);
            refusal(&whole[..at]);
        }
        refusal(&[whole.as_slice(), b"1 more\n"].concat());
    }

    #[test]
    fn foreign_files_are_refused_each_with_its_reason() {
        assert!(matches!(refusal(b""), Unfit::Damaged));
        assert!(matches!(refusal(b"\x00\xff\xfe"), Unfit::Damaged));
        assert!(matches!(refusal(b"SQLite format 3\n"), Unfit::Damaged));
        assert!(matches!(refusal(b"terse-warm-codes 2 00000000\n"), Unfit::OtherVersion));
        let other = encode("ffffffffffffffffffffffffffffffff", &saved(&[]));
        assert!(matches!(refusal(other.as_bytes()), Unfit::OtherDeployment));
        for line in ["abc", "x abc", "-1 abc", "4294967296 abc", "1 a/b", "1 ", "1 abc def"] {
            let text = sealed(&format!("{DEPLOYMENT} 1000\n{line}\n"));
            assert!(matches!(refusal(text.as_bytes()), Unfit::Damaged), "{line}");
        }
        assert!(matches!(refusal(sealed(&format!("{DEPLOYMENT} soon\n")).as_bytes()), Unfit::Damaged));
    }

    #[test]
    fn a_missing_file_and_something_that_is_no_file_are_refused_without_waiting() {
        let place = tempfile::tempdir().unwrap();
        assert!(matches!(read(place.path(), DEPLOYMENT), Err(Unfit::Missing)));
        let pipe = std::process::Command::new("mkfifo").arg(place.path().join(FILE)).status().unwrap();
        assert!(pipe.success());
        assert!(matches!(read(place.path(), DEPLOYMENT), Err(Unfit::NoFile)));
    }

    #[test]
    fn a_list_is_bounded_when_it_is_written_and_when_it_is_read() {
        let codes: Vec<String> = (0..=MAX_CODES).map(|n| format!("{n:064}")).collect();
        let codes: Vec<(&str, u32)> = codes.iter().map(|code| (code.as_str(), u32::MAX)).collect();
        let place = tempfile::tempdir().unwrap();
        write(place.path(), DEPLOYMENT, &saved(&codes)).unwrap();
        assert_eq!(read(place.path(), DEPLOYMENT).unwrap().codes, saved(&codes[..MAX_CODES]).codes);
        let many = sealed(&format!("{DEPLOYMENT} 1000\n{}", "1 a\n".repeat(MAX_CODES + 1)));
        assert!(matches!(refusal(many.as_bytes()), Unfit::TooLong));
        assert!(matches!(refusal(&vec![b'x'; MAX_BYTES as usize + 1]), Unfit::TooLong));
    }
}
