//! Links on memory and SQLite, sharding by slot, migrations, and the conformance suite of every backend.
