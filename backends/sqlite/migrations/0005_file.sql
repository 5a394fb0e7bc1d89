-- Whether the file is whole without the log beside it: see src/wal.rs. One row.
CREATE TABLE file (is_whole INTEGER NOT NULL);
INSERT INTO file (is_whole) VALUES (1);

-- A checksum of what does not change of a message: see src/damage.rs. Nothing where the row is older, or is the ledger's.
ALTER TABLE message ADD COLUMN sum INTEGER;
ALTER TABLE ledger_row ADD COLUMN sum INTEGER;
