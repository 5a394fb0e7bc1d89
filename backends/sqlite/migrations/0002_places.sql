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
