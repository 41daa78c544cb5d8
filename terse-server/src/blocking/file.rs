//! The operator's file of blocked hosts.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use terse_core::BlockList;

/// Most bytes of the file: 80 for each host that it may have.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Reads the list at `path`, or says with the path and the line why that is none.
pub(super) fn read(path: &Path) -> Result<BlockList, String> {
    let told = path.display();
    // Opening a pipe would wait for somebody to write into it.
    let is_file = std::fs::metadata(path).map_err(|error| format!("cannot read {told}: {error}"))?.is_file();
    if !is_file {
        return Err(format!("{told} is no regular file"));
    }
    let mut bytes = vec![];
    let file = File::open(path).map_err(|error| format!("cannot read {told}: {error}"))?;
    let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read {told}: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{told} is larger than 16 MiB"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{told} line {line}: is not UTF-8")
    })?;
    BlockList::parse(text).map_err(|error| format!("{told} {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<usize, String> {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("list");
        std::fs::write(&path, bytes).unwrap();
        read(&path).map(|list| list.len())
    }

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_told_with_its_line() {
        assert_eq!(read_bytes(b"# mine\na.example\n"), Ok(1));
        assert!(read_bytes(b"a.example\nb c\n").unwrap_err().contains("list line 2: 'b c' is neither"));
        assert!(read_bytes(b"a.example\n\n\xff").unwrap_err().ends_with("list line 3: is not UTF-8"));
        assert!(read(Path::new("/nowhere/list")).unwrap_err().starts_with("cannot read /nowhere/list: "));
        assert!(read(Path::new("/")).unwrap_err().ends_with("is no regular file"));
    }

    #[test]
    fn a_file_beyond_its_bound_is_refused() {
        let mut bytes = vec![b'\n'; 16 * 1024 * 1024];
        assert_eq!(read_bytes(&bytes), Ok(0));
        bytes.push(b'\n');
        assert!(read_bytes(&bytes).unwrap_err().ends_with("is larger than 16 MiB"));
    }
}
