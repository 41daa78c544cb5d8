-- What is known of clicks, and how far the log of clicks is included.
--
-- Times are milliseconds since 1970. A position is epoch × 2^40 + offset. A
-- partition is named "stream/NUMBER" or "journal/ID".

-- One row per code and span. A span is 0 (all time), 2^32 + the day's number, or
-- 2^33 + the hour's number, so that a link's days are one range of the table,
-- and its hours the next. The cell comes last: comparing keys and positions
-- never touches the pages that a large one overflows onto.
CREATE TABLE clicks (
    code TEXT NOT NULL,
    span INTEGER NOT NULL,
    at   INTEGER NOT NULL, -- the last position that is included
    cell BLOB NOT NULL,
    PRIMARY KEY (code, span)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    partition TEXT PRIMARY KEY,
    at        INTEGER NOT NULL,
    until     INTEGER NOT NULL,
    journal   BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    passed    BLOB NOT NULL
) STRICT;

-- The checkpoint that each epoch of a partition began with.
CREATE TABLE epochs (
    partition TEXT NOT NULL,
    epoch     INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    until     INTEGER NOT NULL,
    journal   BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    passed    BLOB NOT NULL,
    PRIMARY KEY (partition, epoch)
) STRICT;

CREATE TABLE retired (
    partition TEXT NOT NULL,
    journal   BLOB NOT NULL,
    at        INTEGER NOT NULL,
    until     INTEGER NOT NULL,
    passed    BLOB NOT NULL,
    PRIMARY KEY (partition, journal)
) STRICT;

-- One row. The bus is NULL = not settled, 0 = local, else the number of streams;
-- until is the latest of all checkpoints that ever stood, 0 = none did.
CREATE TABLE head (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL,
    until      INTEGER NOT NULL,
    bus        INTEGER
) STRICT;

INSERT INTO head (id, generation, until, bus) VALUES (1, 0, 0, NULL);

-- At most one row: whoever projects, for the whole file.
CREATE TABLE lease (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    holder TEXT NOT NULL,
    until  INTEGER NOT NULL
) STRICT;
