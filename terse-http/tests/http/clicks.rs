//! The newest clicks of a link.
