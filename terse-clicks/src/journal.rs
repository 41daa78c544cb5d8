//! Blocks of clicks on disk.
