-- A number of arrival is the stream's `base` and the low bits of a row number: numbers are the queue's, and go on through
-- a purge.
ALTER TABLE stream ADD COLUMN base INTEGER NOT NULL DEFAULT 0;

-- Above every number of arrival of a queue that was deleted.
CREATE TABLE arrival (least INTEGER NOT NULL);
INSERT INTO arrival (least) VALUES (0);

ALTER TABLE ledger_queue ADD COLUMN base INTEGER NOT NULL DEFAULT 0;

-- Rows that were written before their messages were noted: they are in no listing, and stand behind all that has a number,
-- until they are noted, or that moment.
CREATE TABLE ledger_unnoted (
    until INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    PRIMARY KEY (at)
) WITHOUT ROWID;
CREATE INDEX ledger_unnoted_by_end ON ledger_unnoted (until);
-- A row that is given its number takes its delay along.
CREATE INDEX ledger_delay_by_row ON ledger_delay (at);
