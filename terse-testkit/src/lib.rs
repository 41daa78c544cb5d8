//! Test clock, fault schedule, builders, and invariants as plain functions.
