-- Links, and what a shard keeps beside them.
--
-- Times are milliseconds since 1970, states are 0 active, 1 disabled,
-- 2 blocked, 3 deleted; NULL stands for "none". The target comes last, so that
-- a long one overflows onto pages which reading the other columns never touches.

-- A rowid table: codes are random, and a table ordered by them would scatter
-- whole rows over the file where now only index entries are.
CREATE TABLE links (
    id         INTEGER PRIMARY KEY,
    version    INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    expires_at INTEGER,
    valid_from INTEGER,
    attempt    BLOB NOT NULL,
    code       TEXT NOT NULL,
    owner      TEXT NOT NULL,
    title      TEXT,
    tags       TEXT, -- separated by U+001F, which no tag can hold
    target     TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX links_by_code ON links (code);

CREATE INDEX links_by_owner ON links (owner, created_at, code) WHERE state <> 3;

CREATE TABLE idempotency (
    id         INTEGER PRIMARY KEY,
    owner      TEXT NOT NULL,
    key        TEXT NOT NULL,
    body_hash  BLOB NOT NULL,
    code       TEXT NOT NULL,
    attempt    BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX idempotency_by_key ON idempotency (owner, key);

CREATE INDEX idempotency_by_age ON idempotency (created_at);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    counter TEXT PRIMARY KEY,
    next_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    owner       TEXT NOT NULL,
    role        TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;

-- One row: raised in the transaction that adds or revokes a key.
CREATE TABLE api_keys_revision (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    value INTEGER NOT NULL
) STRICT;

INSERT INTO api_keys_revision (id, value) VALUES (1, 0);
