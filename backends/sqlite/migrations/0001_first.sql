-- Queues as the management contract knows them.
CREATE TABLE queue (
    project  TEXT NOT NULL,
    name     TEXT NOT NULL,
    metadata TEXT NOT NULL,
    version  INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) WITHOUT ROWID;

-- The message side of a queue: its number, the next arrival, and its counters. Every purge gives a new number.
CREATE TABLE stream (
    no      INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    name    TEXT NOT NULL,
    next    INTEGER NOT NULL,
    total   INTEGER NOT NULL,
    held    INTEGER NOT NULL,
    UNIQUE (project, name)
);

-- Numbers whose messages are purged and wait to be swept.
CREATE TABLE doomed (no INTEGER PRIMARY KEY);

-- `at` is the stream's number (high bits) and the arrival in it (low 40 bits), so that the table itself is the order.
-- `hold` is 0 for a free message, -1 for one that waits until `due`, else the number of the claim that holds it.
CREATE TABLE message (
    at       INTEGER PRIMARY KEY,
    id       BLOB NOT NULL,
    hold     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    posted   INTEGER NOT NULL,
    ttl      INTEGER NOT NULL,
    due      INTEGER NOT NULL,
    claims   INTEGER NOT NULL,
    client   NOT NULL,
    sealed   INTEGER NOT NULL,
    checksum BLOB,
    body     BLOB NOT NULL
);
CREATE UNIQUE INDEX message_by_id ON message (at >> 40, id);
CREATE INDEX message_by_hold ON message (hold);
CREATE INDEX message_by_expiry ON message (expires);

-- When delayed messages become due. A row may outlive its message.
CREATE TABLE delay (
    due INTEGER NOT NULL,
    at  INTEGER NOT NULL,
    PRIMARY KEY (due, at)
) WITHOUT ROWID;

CREATE TABLE claim (
    no      INTEGER PRIMARY KEY,
    id      BLOB NOT NULL UNIQUE,
    stream  INTEGER NOT NULL,
    ttl     INTEGER NOT NULL,
    renewed INTEGER NOT NULL,
    expires INTEGER NOT NULL
);
CREATE INDEX claim_by_expiry ON claim (expires);
