//! Secrets: they may stand in files of their own, and no error shows one.

use figment::error::{Actual, Kind};

use super::ConfigError;

/// What the name of a key has whose value is not for showing. URIs have passwords in them.
const SECRET: [&str; 6] = [
    "encryption_keys",
    "options",
    "password",
    "secret",
    "token",
    "uri",
];

fn is_secret(path: &[String]) -> bool {
    path.iter().any(|key| {
        let key = key.to_ascii_lowercase();
        SECRET.iter().any(|word| key.contains(word))
    })
}

/// An error of figment in one line, without the drawing of where it is, and without what nobody may read.
pub(super) fn one_line(error: &figment::Error) -> String {
    let each = error.clone().into_iter().map(|mut error| {
        if is_secret(&error.path) {
            hide(&mut error.kind);
        }
        without_drawing(&error.to_string())
    });
    each.collect::<Vec<_>>().join("; ")
}

fn hide(kind: &mut Kind) {
    let hidden = || Actual::Other("a value that is not shown".into());
    match kind {
        Kind::InvalidType(actual, _)
        | Kind::InvalidValue(actual, _)
        | Kind::Unsupported(actual) => {
            *actual = hidden();
        }
        Kind::Message(_) | Kind::UnknownVariant(..) => {
            *kind = Kind::Message("its value cannot be used, and is not shown".into());
        }
        _ => {}
    }
}

fn without_drawing(text: &str) -> String {
    let is_drawn = |line: &&str| {
        line.trim_start_matches([' ', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            .starts_with('|')
    };
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !is_drawn(line) && !line.is_empty())
        .collect();
    lines.join(": ")
}

/// The value of a secret that stands at `key`, or in the file that `key` with `_file` behind it names. `usual` is what the
/// value is where nobody has set it.
pub(super) fn resolve(
    key: &str,
    value: String,
    usual: &str,
    file: &str,
) -> Result<String, ConfigError> {
    if file.is_empty() {
        return Ok(value);
    }
    if value != usual {
        return Err(both(key));
    }
    let text = read(key, file)?;
    let secret = text.trim_end_matches(['\r', '\n']);
    match secret.is_empty() {
        true => Err(ConfigError::new(format!("{key}_file is empty: {file}"))),
        false => Ok(secret.to_owned()),
    }
}

/// The same for several secrets, a line each.
pub(super) fn resolve_lines(
    key: &str,
    values: Vec<String>,
    usual: &[&str],
    file: &str,
) -> Result<Vec<String>, ConfigError> {
    if file.is_empty() {
        return Ok(values);
    }
    if values != usual {
        return Err(both(key));
    }
    let text = read(key, file)?;
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

fn both(key: &str) -> ConfigError {
    ConfigError::new(format!("{key} and {key}_file cannot both be set"))
}

fn read(key: &str, file: &str) -> Result<String, ConfigError> {
    std::fs::read_to_string(file)
        .map_err(|error| ConfigError::new(format!("{key}_file cannot be read: {file}: {error}")))
}
