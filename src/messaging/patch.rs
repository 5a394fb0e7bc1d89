//! The dialect of JSON Patch in which clients change a queue's metadata (spec: queues.md 5).

use isimud_contract::{Error, ErrorKind, Metadata, Resource, Result};
use serde_json::Value;

/// One change to one top-level key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Add(String, Value),
    Replace(String, Value),
    Remove(String),
}

/// Reads the operations of a patch document.
pub(crate) fn parse(document: Value) -> Result<Vec<Change>> {
    let Value::Array(operations) = document else {
        return Err(Error::invalid(
            "Request body must be a JSON array of operation objects.",
        ));
    };
    operations.into_iter().map(operation).collect()
}

fn operation(operation: Value) -> Result<Change> {
    const OPS: &str = "It must be one of the following: add, remove, replace.";
    let Value::Object(mut members) = operation else {
        return Err(Error::invalid("Operations must be JSON objects."));
    };
    let op = match members.remove("op") {
        None | Some(Value::Null) => {
            return Err(Error::invalid(format!(
                "Unable to find `op` in JSON Schema change. {OPS}"
            )));
        }
        Some(Value::String(op)) => op,
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid operation: `{other}`. {OPS}"
            )));
        }
    };
    if !["add", "remove", "replace"].contains(&op.as_str()) {
        return Err(Error::invalid(format!("Invalid operation: `{op}`. {OPS}")));
    }
    let path = match members.remove("path") {
        None => {
            return Err(Error::invalid(
                "Unable to find 'path' in JSON Schema change",
            ));
        }
        Some(Value::String(path)) => path,
        Some(other) => {
            return Err(Error::invalid(format!(
                "Invalid JSON pointer for this resource: '{other}'"
            )));
        }
    };
    let [root, key] = tokens(&path)?;
    if op == "remove" {
        return below_metadata(&root).map(|()| Change::Remove(key));
    }
    let value = members.remove("value").ok_or_else(|| {
        Error::invalid(format!(
            "Operation \"{op}\" requires a member named \"value\"."
        ))
    })?;
    below_metadata(&root)?;
    Ok(if op == "add" {
        Change::Add(key, value)
    } else {
        Change::Replace(key, value)
    })
}

/// Only metadata can be changed. The reference looks at it when all else is right.
fn below_metadata(root: &str) -> Result<()> {
    if root.eq_ignore_ascii_case("metadata") {
        return Ok(());
    }
    let sentence = "The root of path must be metadata, e.g /metadata/key.";
    Err(Error::invalid(sentence))
}

/// The two tokens of a pointer.
fn tokens(pointer: &str) -> Result<[String; 2]> {
    let wrong = |why: &str| Err(Error::invalid(format!("Pointer `{pointer}` {why}.")));
    if !pointer.starts_with('/') {
        return wrong("does not start with \"/\"");
    }
    let path = pointer.trim_start_matches('/');
    if path.contains("//") {
        return wrong("contains adjacent \"/\"");
    }
    if path.ends_with('/') || path.is_empty() {
        return wrong("end with \"/\"");
    }
    if path
        .split('~')
        .skip(1)
        .any(|escaped| !escaped.starts_with(['0', '1']))
    {
        return wrong("contains \"~\" not part of a recognized escape sequence");
    }
    let tokens: Vec<String> = path
        .split('/')
        .map(|token| token.trim().replace("~1", "/").replace("~0", "~"))
        .collect();
    <[String; 2]>::try_from(tokens).map_err(|tokens| {
        Error::invalid(format!(
            "Invalid JSON pointer for this resource: '/{}, e.g /metadata/key'",
            tokens.join("/")
        ))
    })
}

/// Applies the changes in order. `is_reserved` tells the keys that every queue is shown to have.
pub(crate) fn apply(
    mut metadata: Metadata,
    changes: Vec<Change>,
    is_reserved: impl Fn(&str) -> bool,
) -> Result<Metadata> {
    let missing = |what: &str, key: &str| {
        let sentence = format!("Can't {what} non-existent object {key}.");
        Err(Error::new(
            ErrorKind::NotFound(Resource::MetadataKey),
            sentence,
        ))
    };
    for change in changes {
        match change {
            Change::Replace(key, _) if !metadata.contains_key(&key) && !is_reserved(&key) => {
                return missing("replace", &key);
            }
            Change::Add(key, value) | Change::Replace(key, value) => {
                metadata.insert(key, value);
            }
            Change::Remove(key) => {
                if metadata.shift_remove(&key).is_none() && !is_reserved(&key) {
                    return missing("remove", &key);
                }
            }
        }
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(pointer: &str) -> Result<String, String> {
        let operation = json!([{"op": "remove", "path": pointer}]);
        match parse(operation)
            .map_err(|error| error.sentence().to_owned())?
            .pop()
        {
            Some(Change::Remove(key)) => Ok(key),
            other => panic!("{other:?} is not the operation"),
        }
    }

    #[test]
    fn pointers_name_one_metadata_key() {
        for (pointer, named) in [
            ("/metadata/x", "x"),
            ("//metadata/x", "x"),
            ("/METADATA/ x ", "x"),
            ("/metadata/a~1b~0c", "a/b~c"),
            ("/metadata/~01", "~1"),
        ] {
            assert_eq!(key(pointer).as_deref(), Ok(named), "{pointer}");
        }
    }

    #[test]
    fn faulty_pointers_are_described() {
        for (pointer, sentence) in [
            (
                "metadata/b",
                "Pointer `metadata/b` does not start with \"/\".",
            ),
            (
                "/metadata//b",
                "Pointer `/metadata//b` contains adjacent \"/\".",
            ),
            ("/metadata/", "Pointer `/metadata/` end with \"/\"."),
            (
                "/metadata/a~2b",
                "Pointer `/metadata/a~2b` contains \"~\" not part of a recognized escape sequence.",
            ),
            (
                "/b",
                "Invalid JSON pointer for this resource: '/b, e.g /metadata/key'",
            ),
            (
                "/foo/a",
                "The root of path must be metadata, e.g /metadata/key.",
            ),
        ] {
            assert_eq!(key(pointer), Err(sentence.to_owned()));
        }
    }

    #[test]
    fn changes_apply_in_order_or_not_at_all() {
        let metadata = || json!({"a": 1}).as_object().cloned().expect("an object");
        let patched = |document| {
            apply(metadata(), parse(document).expect("a patch"), |key| {
                key == "_max_claim_count"
            })
        };
        let result = patched(json!([
            {"op": "replace", "path": "/metadata/a", "value": 2},
            {"op": "add", "path": "/metadata/b", "value": null},
            {"op": "remove", "path": "/metadata/a"},
            {"op": "remove", "path": "/metadata/_max_claim_count"},
        ]));
        assert_eq!(Value::Object(result.expect("patched")), json!({"b": null}));
        for op in [
            json!({"op": "replace", "path": "/metadata/no", "value": 1}),
            json!({"op": "remove", "path": "/metadata/no"}),
        ] {
            let error = patched(json!([op])).expect_err("there is no such key");
            assert_eq!(error.kind(), ErrorKind::NotFound(Resource::MetadataKey));
        }
    }
}
