-- Where the messages of a queue are, as the contract's text: empty for the store that needs no registration.
ALTER TABLE queue ADD COLUMN place TEXT NOT NULL DEFAULT '';

-- The queues that have messages in a store, each store once: its pool's name, or nothing for the one without.
CREATE TABLE segment (
    home    TEXT NOT NULL,
    project TEXT NOT NULL,
    name    TEXT NOT NULL,
    PRIMARY KEY (home, project, name)
) WITHOUT ROWID;
INSERT INTO segment (home, project, name) SELECT '', project, name FROM queue;

-- Registered stores. A flavor's members are the pools that name it.
CREATE TABLE pool (
    name    TEXT PRIMARY KEY,
    uri     TEXT NOT NULL,
    weight  INTEGER NOT NULL,
    flavor  TEXT,
    options TEXT NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX pool_by_flavor ON pool (flavor);

CREATE TABLE flavor (
    name    TEXT PRIMARY KEY,
    project TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX flavor_by_project ON flavor (project, name);

-- Who is told of a queue's messages. `made` is when the life of `ttl` began, `expires` when it ends.
CREATE TABLE subscription (
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    id         BLOB NOT NULL,
    subscriber TEXT NOT NULL,
    ttl        INTEGER NOT NULL,
    made       INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    options    TEXT NOT NULL,
    confirmed  INTEGER NOT NULL,
    PRIMARY KEY (project, name, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX subscription_by_subscriber ON subscription (project, name, subscriber);
CREATE INDEX subscription_by_expiry ON subscription (expires);
