-- The ledger: who holds a message of a broker that can only lease. A scope is a pool.

-- A queue of a scope: its number, the next arrival, its counters, and the era, which every purge renews. Rows up to
-- `purged` are from before the last purge.
CREATE TABLE ledger_queue (
    no      INTEGER PRIMARY KEY,
    scope   TEXT NOT NULL,
    project TEXT NOT NULL,
    name    TEXT NOT NULL,
    next    INTEGER NOT NULL,
    total   INTEGER NOT NULL,
    held    INTEGER NOT NULL,
    purged  INTEGER NOT NULL,
    era     INTEGER NOT NULL,
    UNIQUE (scope, project, name)
);

-- The last era that was begun.
CREATE TABLE ledger_era (last INTEGER NOT NULL);
INSERT INTO ledger_era (last) VALUES (0);

-- `at` is the queue's number (high bits) and the arrival in it (low 40 bits). `hold` is 0 for a free message, -1 for one
-- that waits until `due`, -2 for one that was deleted, -3 for one that ended or was purged, else the number of the claim
-- that holds it. `kept` is how long the broker was told to keep the message, `ends` when no copy can be alive any more.
-- A row with -2 or -3 has no body, and `expires` is `ends`.
CREATE TABLE ledger_row (
    at       INTEGER PRIMARY KEY,
    id       BLOB NOT NULL,
    hold     INTEGER NOT NULL,
    expires  INTEGER NOT NULL,
    ends     INTEGER NOT NULL,
    kept     INTEGER NOT NULL,
    posted   INTEGER NOT NULL,
    ttl      INTEGER NOT NULL,
    due      INTEGER NOT NULL,
    claims   INTEGER NOT NULL,
    client   NOT NULL,
    sealed   INTEGER NOT NULL,
    checksum BLOB,
    receipt  BLOB,
    body     BLOB NOT NULL
);
CREATE UNIQUE INDEX ledger_by_id ON ledger_row (at >> 40, id);
CREATE INDEX ledger_by_hold ON ledger_row (hold);
CREATE INDEX ledger_by_expiry ON ledger_row (expires);
-- Listings and statistics pass by what is gone.
CREATE INDEX ledger_live ON ledger_row (at) WHERE hold >= -1;

-- When delayed messages become due. A row may outlive its message.
CREATE TABLE ledger_delay (
    due INTEGER NOT NULL,
    at  INTEGER NOT NULL,
    PRIMARY KEY (due, at)
) WITHOUT ROWID;

-- A claim without an id holds what is on its way to a dead-letter queue. One of an era that is over holds nothing.
CREATE TABLE ledger_claim (
    no      INTEGER PRIMARY KEY,
    id      BLOB,
    queue   INTEGER NOT NULL,
    era     INTEGER NOT NULL,
    ttl     INTEGER NOT NULL,
    renewed INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    UNIQUE (queue, id)
);
CREATE INDEX ledger_claim_by_expiry ON ledger_claim (expires);

-- Queues with purged rows whose bodies wait to be swept.
CREATE TABLE ledger_purged (
    no   INTEGER PRIMARY KEY,
    upto INTEGER NOT NULL
);
