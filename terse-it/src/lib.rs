//! Integration tests: the binary itself, driven over HTTP and killed.
