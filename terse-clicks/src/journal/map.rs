//! A block's file in memory: all the unsafe code of the journal.
//!
//! A stored byte is in the kernel's page cache the moment that it is stored, so it survives the end of the process,
//! whatever ends it. What keeps the map sound is said at [`Map::of`]; what keeps stores in order at [`Map::publish`].
#![allow(unsafe_code, reason = "files can't be mapped, nor their words stored atomically, without")]

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Advice, MmapMut, MmapOptions};
use rustix::io::Errno;

/// Bytes that the kernel brings in at once, at least.
const PAGE_BYTES: usize = 4_096;

/// A whole block file, mapped for writing, of which this process is the only user.
pub(super) struct Map {
    bytes: MmapMut,
}

impl Map {
    /// Maps the first `len` bytes of `file`, all of which are allocated on disk. `file` lies in a journal whose lock
    /// this process holds, under a name that only the lock's holder touches, and isn't made shorter while it is mapped.
    pub(super) fn of(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: the lock of the journal keeps other processes of terse from writing to the file, and within this one
        // a block has one owner, who has this map. Whoever ignores the lock could tear records, which checksums tell.
        // The file is as long as the map and wholly allocated, so no access finds the disk full.
        let bytes = unsafe { MmapOptions::new().len(len).map_mut(file)? };
        Ok(Self { bytes })
    }

    /// Brings all pages in for writing, so that the stores to come don't wait for the disk. The kernel takes that back for
    /// pages that it has written to disk. Nothing in them changes.
    ///
    /// # Errors
    /// Where a store would end the process: what the file system has to allocate for it can't be had.
    pub(super) fn prefault(&mut self) -> io::Result<()> {
        match self.bytes.advise(Advice::PopulateWrite) {
            // Kernels before 5.14 don't know this advice; a store to each page does the same one page at a time.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                for page in self.bytes.chunks_mut(PAGE_BYTES) {
                    page[0] = std::hint::black_box(page[0]);
                }
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The bytes, to be read and written.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Stores `value` at the offset `at`, a multiple of 8, after all that was stored before: whoever finds it there
    /// finds those as well, also when this thread is killed right behind it.
    pub(super) fn publish(&mut self, at: usize, value: u64) {
        let word = &mut self.bytes[at..at + 8];
        let word = word.as_mut_ptr().cast::<u64>();
        assert!(word.is_aligned(), "a published word lies at a multiple of 8");
        // SAFETY: the slice above has 8 bytes, exclusively borrowed and aligned as the assertion says; maps begin at a
        // page. Nobody else of this process has the map, and others read the file through the kernel.
        let word = unsafe { AtomicU64::from_ptr(word) };
        word.store(value.to_le(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_in_the_file_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mapped");
        std::fs::write(&path, vec![7; 3 * PAGE_BYTES]).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut map = Map::of(&file, 3 * PAGE_BYTES).unwrap();
        map.prefault().unwrap();
        map.bytes()[5_000] = 9;
        map.publish(64, 0x0102_0304);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes[5_000], 9);
        assert_eq!(bytes[64..72], 0x0102_0304_u64.to_le_bytes());
        drop(map);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    #[should_panic(expected = "a multiple of 8")]
    fn a_word_that_could_be_torn_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        Map::of(&file, 100).unwrap().publish(57, 1);
    }
}
