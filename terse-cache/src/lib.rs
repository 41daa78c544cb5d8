//! The read-through cache in front of the store.
