//! Reads what Redis answers.

use isimud_contract::{Error, ErrorKind, Result};
use redis::Value;

/// The answer to an answer that no Redis gives.
pub(crate) fn strange() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the Redis that is to be imported answers what this version does not understand",
    )
}

pub(crate) fn array(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        _ => Err(strange()),
    }
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        _ => Err(strange()),
    }
}

/// A text, or `None` where there is nothing.
pub(crate) fn optional(value: Value) -> Result<Option<Vec<u8>>> {
    match value {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

pub(crate) fn text(value: Value) -> Result<String> {
    String::from_utf8(bytes(value)?).map_err(|_| strange())
}

pub(crate) fn number(value: &Value) -> Result<i64> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(text) => integer(text).ok_or_else(strange),
        _ => Err(strange()),
    }
}

/// A whole number in decimal. A fraction, which some versions wrote into times, is cut off.
pub(crate) fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    whole.parse().ok()
}

/// A cursor's answer: the next cursor, and what was found.
pub(crate) fn scanned(value: Value) -> Result<(String, Vec<Value>)> {
    let [cursor, found] = array(value)?.try_into().map_err(|_| strange())?;
    Ok((text(cursor)?, array(found)?))
}

/// A hash, as names and values by turns.
#[derive(Debug, Default)]
pub(crate) struct Fields(Vec<(Vec<u8>, Vec<u8>)>);

impl Fields {
    pub(crate) fn read(value: Value) -> Result<Self> {
        let mut values = array(value)?.into_iter();
        let mut fields = Vec::with_capacity(values.len() / 2);
        while let (Some(name), Some(value)) = (values.next(), values.next()) {
            fields.push((bytes(name)?, bytes(value)?));
        }
        Ok(Self(fields))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(found, _)| found == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        integer(self.get(name)?)
    }

    pub(crate) fn into_pairs(self) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.0
    }
}
