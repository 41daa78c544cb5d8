-- Whether any row has, or may have, a position of its own: 0 where all are of the local bus, whose rows have none. There
-- a row is replaced without looking at what stands.
ALTER TABLE head ADD COLUMN positions INTEGER NOT NULL DEFAULT 0;

UPDATE head SET positions = coalesce(bus, 0) > 0;
