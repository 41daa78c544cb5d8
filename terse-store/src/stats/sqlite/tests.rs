//! What only a SQLite file can show.
