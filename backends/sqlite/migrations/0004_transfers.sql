-- How many times a message was transferred from one queue to another, and its headers (the contract's stored form).
ALTER TABLE message ADD COLUMN transfers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN headers BLOB;
ALTER TABLE ledger_row ADD COLUMN transfers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger_row ADD COLUMN headers BLOB;
