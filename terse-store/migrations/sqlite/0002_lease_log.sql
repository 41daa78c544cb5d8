-- Who leased which ids when. A row is written in the transaction that moves the
-- counter, and never changed: `terse shards leases` audits them. Ids that were
-- leased before this table existed have no row.
CREATE TABLE lease_log (
    counter   TEXT NOT NULL,
    first_id  INTEGER NOT NULL,
    end_id    INTEGER NOT NULL CHECK (end_id > first_id), -- the first id that is not in it
    holder    TEXT NOT NULL,
    leased_at INTEGER NOT NULL,
    PRIMARY KEY (counter, first_id)
) STRICT, WITHOUT ROWID;
