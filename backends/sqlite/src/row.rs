//! A message as a row.

use std::time::Duration;

use bytes::Bytes;
use isimud_contract::{Checksum, ClaimId, ClientId, Headers, Message, MessageId, Timestamp};
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use uuid::Uuid;

use crate::numbering::Numbering;

/// The columns that [`read_free`] needs, in its order; with the expression of a live claim's id, those of [`read`].
macro_rules! columns {
    () => {
        "m.at, m.id, m.expires, m.posted, m.ttl, m.claims, m.client, m.sealed, m.checksum, m.body, m.transfers, m.headers, m.sum"
    };
    ($claim:literal) => {
        concat!(columns!(), ", m.due, ", $claim)
    };
}
pub(crate) use columns;

/// The column behind those of [`read_free`].
pub(crate) const NEXT_COLUMN: usize = 13;

/// The column of the checksum.
const SUM_COLUMN: usize = NEXT_COLUMN - 1;

/// A row as a message that nothing holds, at a moment. Every column costs, and most messages that are read are free.
pub(crate) fn read_free(
    row: &Row<'_>,
    numbering: &Numbering,
    now: Timestamp,
) -> rusqlite::Result<Message> {
    Ok(Message {
        arrival: numbering.arrival(row.get(0)?),
        id: MessageId(Uuid::from_bytes(row.get(1)?)),
        remaining_ttl: Timestamp(row.get(2)?).since(now),
        age: now.since(Timestamp(row.get(3)?)),
        ttl: Duration::from_millis(row.get::<_, i64>(4)?.unsigned_abs()),
        claim_count: row.get(5)?,
        client: row.get::<_, Column<ClientId>>(6)?.0,
        sealed: row.get(7)?,
        checksum: row.get::<_, Option<[u8; 16]>>(8)?.map(Checksum),
        body: Bytes::copy_from_slice(row.get_ref(9)?.as_blob()?),
        transfers: row.get(10)?,
        headers: read_headers(row.get_ref(11)?)?,
        delay: Duration::ZERO,
        claim: None,
    })
}

fn read_headers(column: ValueRef<'_>) -> rusqlite::Result<Option<Headers>> {
    let Some(bytes) = column.as_blob_or_null()? else {
        return Ok(None);
    };
    match Headers::from_bytes(Bytes::copy_from_slice(bytes)) {
        Some(headers) => Ok(Some(headers)),
        None => Err(FromSqlError::InvalidType.into()),
    }
}

/// Whether a row's bytes are those that were written, as far as that can be told.
pub(crate) fn is_whole(row: &Row<'_>, message: &Message) -> rusqlite::Result<bool> {
    let sum: Option<i64> = row.get(SUM_COLUMN)?;
    Ok(sum.is_none_or(|sum| sum == crate::damage::sum(message)))
}

/// A row as a message, at a moment.
pub(crate) fn read(
    row: &Row<'_>,
    numbering: &Numbering,
    now: Timestamp,
) -> rusqlite::Result<Message> {
    let claim: Option<[u8; 16]> = row.get(NEXT_COLUMN + 1)?;
    Ok(Message {
        delay: Timestamp(row.get(NEXT_COLUMN)?).since(now),
        claim: claim.map(|id| ClaimId(Uuid::from_bytes(id))),
        ..read_free(row, numbering, now)?
    })
}

/// A type of the contract as a column.
pub(crate) struct Column<T>(pub(crate) T);

impl FromSql for Column<ClientId> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => Uuid::from_slice(bytes)
                .map(ClientId::Uuid)
                .map_err(FromSqlError::other),
            value => value.as_str().map(|text| ClientId::Text(text.into())),
        }
        .map(Self)
    }
}

impl ToSql for Column<&ClientId> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self.0 {
            ClientId::Uuid(id) => Ok(ToSqlOutput::from(id.as_bytes().as_slice())),
            ClientId::Text(text) => Ok(ToSqlOutput::from(&**text)),
        }
    }
}
