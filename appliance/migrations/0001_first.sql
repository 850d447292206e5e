-- The appliance's state. Records are JSON of the types in src/repository/mod.rs, which name every field; what is searched
-- or ordered by stands beside it. Ids of disks are 16 bytes.

CREATE TABLE disks (
    disk   BLOB NOT NULL PRIMARY KEY CHECK (length(disk) = 16),
    record TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE cycles (
    disk   BLOB    NOT NULL REFERENCES disks (disk),
    cycle  INTEGER NOT NULL CHECK (cycle >= 0),
    -- 1 once the cycle is verified or failed.
    ended  INTEGER NOT NULL CHECK (ended IN (0, 1)),
    record TEXT    NOT NULL,
    PRIMARY KEY (disk, cycle)
) STRICT, WITHOUT ROWID;

-- Segments that are safely in the cache store, of cycles whose manifest is not yet all there is to know.
CREATE TABLE segments (
    disk        BLOB    NOT NULL,
    cycle       INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    -- In blocks of the cycle's stream.
    first_block INTEGER NOT NULL CHECK (first_block >= 0),
    blocks      INTEGER NOT NULL CHECK (blocks >= 0),
    -- In bytes.
    len         INTEGER NOT NULL CHECK (len >= 0),
    -- BLAKE3 of the object.
    hash        BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (disk, cycle, name),
    FOREIGN KEY (disk, cycle) REFERENCES cycles (disk, cycle) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE policy (
    id     INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    record TEXT    NOT NULL
) STRICT;

-- Only ever added to.
CREATE TABLE log (
    seq    INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    -- Milliseconds since 1970 UTC.
    at_ms  INTEGER NOT NULL,
    who    TEXT    NOT NULL,
    disk   BLOB,
    what   TEXT    NOT NULL,
    detail TEXT    NOT NULL
) STRICT;

CREATE INDEX log_by_disk ON log (disk, seq) WHERE disk IS NOT NULL;
