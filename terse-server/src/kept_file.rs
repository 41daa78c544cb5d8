//! Lists that a data directory keeps from one run to the next, each in a file of its own:
//!
//! ```text
//! FORMAT 1 CRC32-OF-THE-REST
//! DEPLOYMENT [ABOUT]
//! LINE
//! ```
//!
//! Each only ever stands in for what is known better elsewhere, or can be lost without harm. So a file that is not
//! whole, another deployment's or of another version is refused with its reason, and whoever wanted it does without.
//! It is written whole or not at all, for the owner alone.
//!
//! Bounds: so many lines of so many bytes each; a longer file is none of ours. Nothing that is no file is opened, since
//! opening a pipe would wait for its writer.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::str::Lines;

use crate::data_dir;

/// The version of all formats.
const VERSION: &str = "1";
/// Most bytes of the first two lines.
const HEAD_BYTES: usize = 256;

/// A kind of list.
pub(crate) struct KeptFile {
    /// The file in the data directory.
    pub(crate) name: &'static str,
    /// The first word in it.
    pub(crate) format: &'static str,
    /// Most lines behind the first two.
    pub(crate) most_lines: usize,
    /// Most bytes of one of them, its end included.
    pub(crate) line_bytes: usize,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("it can't be read: {0}")]
    Unreadable(#[from] io::Error),
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

impl KeptFile {
    const fn max_bytes(&self) -> u64 {
        (self.most_lines * self.line_bytes + HEAD_BYTES) as u64
    }

    /// The text of a file of `deployment`, its id, with `about` behind that, and `lines`, each with its end.
    pub(crate) fn text(&self, deployment: &str, about: &str, lines: &str) -> String {
        let gap = if about.is_empty() { "" } else { " " };
        let rest = format!("{deployment}{gap}{about}\n{lines}");
        format!("{} {VERSION} {:08x}\n{rest}", self.format, crc32fast::hash(rest.as_bytes()))
    }

    /// Replaces the file in `data_dir` by `text`: whole or not at all.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn replace(&self, data_dir: &Path, text: &str) -> io::Result<()> {
        data_dir::replace_private_file(data_dir, self.name, text.as_bytes())
    }

    /// What `decode` makes of the file of `deployment` in `data_dir`: of what stands behind the id, and of the lines.
    /// `None` = there is no file.
    ///
    /// # Errors
    /// [`Unfit`] for every file that is not whole, ours and within its bounds.
    pub(crate) fn read<T>(
        &self,
        data_dir: &Path,
        deployment: &str,
        decode: impl FnOnce(&str, Lines<'_>) -> Option<T>,
    ) -> Result<Option<T>, Unfit> {
        let Some(bytes) = self.bytes(&data_dir.join(self.name))? else { return Ok(None) };
        let text = std::str::from_utf8(&bytes).map_err(|_| Unfit::Damaged)?;
        let (about, lines) = self.opened(deployment, text)?;
        if lines.lines().nth(self.most_lines).is_some() {
            return Err(Unfit::TooLong);
        }
        decode(about, lines.lines()).map(Some).ok_or(Unfit::Damaged)
    }

    fn bytes(&self, path: &Path) -> Result<Option<Vec<u8>>, Unfit> {
        match std::fs::metadata(path) {
            Ok(about) if !about.is_file() => return Err(Unfit::NoFile),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            about => about?,
        };
        let mut bytes = vec![];
        File::open(path)?.take(self.max_bytes() + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.max_bytes() { Err(Unfit::TooLong) } else { Ok(Some(bytes)) }
    }

    /// What stands behind the id of `deployment`, and the lines.
    fn opened<'t>(&self, deployment: &str, text: &'t str) -> Result<(&'t str, &'t str), Unfit> {
        let (first, rest) = text.split_once('\n').ok_or(Unfit::Damaged)?;
        let first = first.strip_prefix(self.format).and_then(|first| first.strip_prefix(' ')).ok_or(Unfit::Damaged)?;
        let (version, checksum) = first.split_once(' ').ok_or(Unfit::Damaged)?;
        if version != VERSION {
            return Err(Unfit::OtherVersion);
        }
        if checksum != format!("{:08x}", crc32fast::hash(rest.as_bytes())) {
            return Err(Unfit::Damaged);
        }
        let (head, lines) = rest.split_once('\n').ok_or(Unfit::Damaged)?;
        let (owner, about) = head.split_once(' ').unwrap_or((head, ""));
        if owner == deployment { Ok((about, lines)) } else { Err(Unfit::OtherDeployment) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DEPLOYMENT: &str = "00112233445566778899aabbccddeeff";
    const LIST: KeptFile = KeptFile { name: "list", format: "terse-list", most_lines: 3, line_bytes: 8 };

    type Read = Result<Option<(String, Vec<String>)>, Unfit>;

    fn read_in(place: &Path) -> Read {
        LIST.read(place, DEPLOYMENT, |about, lines| Some((about.to_owned(), lines.map(str::to_owned).collect())))
    }

    /// What is read of a file of these bytes.
    fn read(bytes: &[u8]) -> Read {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join(LIST.name), bytes).unwrap();
        read_in(place.path())
    }

    #[test]
    fn what_is_kept_is_read_back_and_private() {
        let place = tempfile::tempdir().unwrap();
        for (about, lines) in [("", vec![]), ("7", vec!["a"]), ("two words", vec!["a", "", "b c"])] {
            let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
            LIST.replace(place.path(), &LIST.text(DEPLOYMENT, about, &text)).unwrap();
            let (read_about, read_lines) = read_in(place.path()).unwrap().unwrap();
            assert_eq!((read_about.as_str(), read_lines), (about, lines.iter().map(ToString::to_string).collect()));
        }
        let mode = std::fs::metadata(place.path().join(LIST.name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_with_any_byte_flipped_or_cut_off_or_added_is_refused() {
        let whole = LIST.text(DEPLOYMENT, "7", "a\nb\n").into_bytes();
        assert!(matches!(read(&whole), Ok(Some(_))));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            read(&flipped).unwrap_err();
            read(&whole[..at]).unwrap_err();
        }
        read(&[whole.as_slice(), b"c\n"].concat()).unwrap_err();
    }

    #[test]
    fn foreign_files_are_refused_each_with_its_reason() {
        for bytes in [b"".as_slice(), b"\x00\xff\xfe", b"SQLite format 3\n", b"terse-list\n", b"terse-listing 1 0\n"] {
            assert!(matches!(read(bytes), Err(Unfit::Damaged)), "{}", bytes.escape_ascii());
        }
        assert!(matches!(read(b"terse-list 2 00000000\n"), Err(Unfit::OtherVersion)));
        let other = LIST.text(&"f".repeat(32), "", "");
        assert!(matches!(read(other.as_bytes()), Err(Unfit::OtherDeployment)));
        let place = tempfile::tempdir().unwrap();
        LIST.replace(place.path(), &LIST.text(DEPLOYMENT, "", "")).unwrap();
        let refused = LIST.read(place.path(), DEPLOYMENT, |_, _| None::<()>);
        assert!(matches!(refused, Err(Unfit::Damaged)));
    }

    #[test]
    fn a_missing_file_is_none_and_what_is_no_file_is_refused_without_waiting() {
        let place = tempfile::tempdir().unwrap();
        assert!(matches!(read_in(place.path()), Ok(None)));
        let pipe = std::process::Command::new("mkfifo").arg(place.path().join(LIST.name)).status().unwrap();
        assert!(pipe.success());
        assert!(matches!(read_in(place.path()), Err(Unfit::NoFile)));
    }

    #[test]
    fn lines_and_bytes_are_bounded() {
        let of = |lines: usize| LIST.text(DEPLOYMENT, "", &"a\n".repeat(lines));
        assert_eq!(read(of(LIST.most_lines).as_bytes()).unwrap().unwrap().1.len(), LIST.most_lines);
        assert!(matches!(read(of(LIST.most_lines + 1).as_bytes()), Err(Unfit::TooLong)));
        assert!(matches!(read(&vec![b'x'; LIST.max_bytes() as usize + 1]), Err(Unfit::TooLong)));
        assert!(matches!(read(&vec![b'x'; LIST.max_bytes() as usize]), Err(Unfit::Damaged)));
    }

    #[test]
    fn a_file_that_can_not_be_written_leaves_the_one_before() {
        let place = tempfile::tempdir().unwrap();
        LIST.replace(&place.path().join("gone"), "x").unwrap_err();
        std::fs::create_dir(place.path().join(LIST.name)).unwrap();
        LIST.replace(place.path(), "x").unwrap_err();
        assert!(matches!(read_in(place.path()), Err(Unfit::NoFile)));
    }
}
