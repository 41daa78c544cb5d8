//! The data directory: made on first use for this user alone, and locked by
//! the one process that serves HTTP from it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::exit::{Exit, StartError};

/// The file whose lock says that a process serves HTTP from the directory.
const HTTP_LOCK: &str = "http.lock";

/// Proof that no other process serves HTTP from the data directory, for as long as it lives.
#[derive(Debug)]
pub struct HttpLock {
    _file: File,
}

/// Makes the directory, readable by its owner alone, unless it is there.
///
/// # Errors
/// [`StartError`] when it can't be made or is something else.
pub fn create(path: &Path) -> Result<(), StartError> {
    let failed = |error: std::io::Error| {
        StartError::new(
            Exit::CannotCreate,
            format_args!("cannot create the data directory {}: {error}", path.display()),
        )
    };
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // So that the directory itself survives a power cut, not only what is in it.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(failed)
}

/// That the directory is there, for commands about what a server keeps in it: to find nothing where no server ever was
/// would be a wrong answer.
///
/// # Errors
/// [`StartError`] when it is not.
pub fn refuse_absent(path: &Path) -> Result<(), StartError> {
    if path.is_dir() {
        return Ok(());
    }
    let path = path.display();
    Err(StartError::config(format_args!("there is no data directory {path}: name the server's own by --data-dir")))
}

/// Takes the lock of the one process that serves HTTP.
///
/// # Errors
/// [`StartError`]: temporary while another process has it.
pub fn lock_for_http(path: &Path) -> Result<HttpLock, StartError> {
    let file = path.join(HTTP_LOCK);
    let failed = |error| StartError::new(Exit::CannotCreate, format_args!("cannot lock {}: {error}", file.display()));
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(&file).map_err(failed)?;
    match opened.try_lock() {
        Ok(()) => Ok(HttpLock { _file: opened }),
        Err(TryLockError::WouldBlock) => Err(StartError::new(
            Exit::Temporary,
            format_args!("another terse serves from the data directory {}", path.display()),
        )),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Replaces `directory/name` by `bytes`, readable by the owner alone: whole or not at all, whatever happens.
///
/// # Errors
/// When a file can't be written.
pub fn replace_private_file(directory: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let draft = directory.join(format!("{name}.{}.draft", std::process::id()));
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&draft, directory.join(name))?;
    sync_dir(directory)
}

fn sync_dir(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_directory_is_made_for_its_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        create(&path).unwrap();
        create(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn a_file_in_its_place_is_one_readable_error() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        std::fs::write(&path, "").unwrap();
        let error = create(&path).unwrap_err();
        assert_eq!(error.exit, Exit::CannotCreate);
        assert!(error.message.contains("data"), "{error}");
    }

    #[test]
    fn an_absent_directory_is_told_and_not_made() {
        let place = tempfile::tempdir().unwrap();
        refuse_absent(place.path()).unwrap();
        let path = place.path().join("data");
        let refused = refuse_absent(&path).unwrap_err();
        assert_eq!(refused.exit, Exit::Config);
        assert!(refused.message.contains(&path.display().to_string()) && !path.exists(), "{refused}");
    }

    #[test]
    fn one_process_at_a_time_holds_the_lock() {
        let place = tempfile::tempdir().unwrap();
        let held = lock_for_http(place.path()).unwrap();
        let refused = lock_for_http(place.path()).unwrap_err();
        assert_eq!(refused.exit, Exit::Temporary);
        assert!(refused.message.contains(&place.path().display().to_string()));
        drop(held);
        lock_for_http(place.path()).unwrap();
    }

    #[test]
    fn a_replaced_file_is_private_and_leaves_no_draft() {
        let place = tempfile::tempdir().unwrap();
        replace_private_file(place.path(), "x.json", b"1").unwrap();
        replace_private_file(place.path(), "x.json", b"22").unwrap();
        assert_eq!(std::fs::read(place.path().join("x.json")).unwrap(), b"22");
        assert_eq!(mode(&place.path().join("x.json")), 0o600);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
