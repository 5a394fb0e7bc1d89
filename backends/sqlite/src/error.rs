//! SQLite's result codes as kinds (SQLite documentation, "Result and Error Codes").

use isimud_contract::{Error, ErrorKind, REASON};
use rusqlite::ErrorCode;

/// What a caller can do about an error of SQLite.
pub(crate) fn from_sqlite(error: &rusqlite::Error) -> Error {
    let (kind, sentence) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => return full().caused_by(error.to_string()),
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => (
            ErrorKind::Unavailable,
            "the embedded store is locked by another process",
        ),
        Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::OutOfMemory) => (
            ErrorKind::Unavailable,
            "the embedded store cannot read or write its file",
        ),
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::PermissionDenied
            | ErrorCode::AuthorizationForStatementDenied,
        ) => (
            ErrorKind::Unavailable,
            "the file of the embedded store is not writable",
        ),
        Some(ErrorCode::NotADatabase) => {
            (ErrorKind::Internal, "the file is not an SQLite database")
        }
        Some(ErrorCode::DatabaseCorrupt) => (
            ErrorKind::Internal,
            "the file of the embedded store is damaged",
        ),
        _ => (ErrorKind::Internal, "the embedded store failed"),
    };
    Error::new(kind, sentence).caused_by(error.to_string())
}

/// The answer to what would add to a store whose disk is full.
pub(crate) fn full() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the disk of the embedded store is full",
    )
    .with(
        REASON,
        "The store is full: nothing is taken until messages are deleted or expire.",
    )
}

/// The answer when the store's threads have ended.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Unavailable, "the embedded store is closed")
}
