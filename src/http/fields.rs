//! The fields of a small request document, each looked at by its own rules.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer};
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json;
use super::problem::Problem;

/// A document's fields by name. Of a name that stands twice the last counts.
#[derive(Debug)]
pub(crate) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> From<BTreeMap<String, &'a RawValue>> for Fields<'a> {
    fn from(fields: BTreeMap<String, &'a RawValue>) -> Self {
        Self(fields)
    }
}

impl<'a> Fields<'a> {
    /// Reads a document that must be an object.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Problem> {
        json::check(body)?;
        match json::parse_as(body) {
            Some(fields) => Ok(Self(fields)),
            // Not JSON, or a scalar, is a fault of the text; an array is a fault of the type.
            None => json::parse(body).and_then(|_| Err(Problem::unsupported_document())),
        }
    }

    /// Reads a document that must be an object; an array counts as one without fields, unless it holds the name of
    /// the field that is wanted.
    pub(crate) fn read_or_array(body: &'a [u8], wanted: &str) -> Result<Self, Problem> {
        if let Some(fields) = json::parse_as(body) {
            return Ok(Self(fields));
        }
        match json::parse(body)? {
            Value::Array(items) if items.iter().any(|item| item == wanted) => {
                Err(Problem::unsupported_document())
            }
            _ => Ok(Self(BTreeMap::new())),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied()
    }

    /// A field that must be an integer if it is there.
    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match json::parse_as::<i64>(value.get().as_bytes()) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::body(format!(
                "The value of the \"{name}\" field must be a int."
            ))),
        }
    }
}

/// Reads a field that is an integer and nothing else: `null` is not an absent field.
pub(crate) fn present_integer<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    i64::deserialize(deserializer).map(Some)
}

/// A structure that is an object in the document: what serde derives would take an array for one, too.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OfMap(PhantomData))
    }
}
