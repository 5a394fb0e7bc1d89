//! Pools and flavors that are declared in a file, for those who deploy by files.

use std::collections::BTreeMap;
use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Toml};
use isimud_contract::{FlavorName, Metadata, PoolName, ProjectId};
use serde::Deserialize;

use super::ConfigError;
use super::secrets::{self, one_line};
use crate::catalogue::DEFAULT;
use crate::messaging::PoolDraft;

/// What a file declares. It is registered, or updated, when the server starts; what it does not name is left alone.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    /// Pools by name.
    pub pools: BTreeMap<String, PoolDraft>,
    /// Flavors by name: their project, and exactly the pools that they have.
    pub flavors: BTreeMap<String, (ProjectId, Vec<String>)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDeclarations {
    #[serde(default)]
    pools: BTreeMap<String, RawPool>,
    #[serde(default)]
    flavors: BTreeMap<String, RawFlavor>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPool {
    #[serde(default)]
    uri: String,
    #[serde(default)]
    uri_file: String,
    weight: u32,
    #[serde(default)]
    options: Metadata,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFlavor {
    project: String,
    pools: Vec<String>,
}

impl Declared {
    /// Reads a file.
    pub(super) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConfigError::new(format!("cannot read the file {}: {error}", path.display()))
        })?;
        Self::parse(&text)
            .map_err(|why| ConfigError::new(format!("pooling.file {}: {why}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let written: RawDeclarations = Figment::from(Toml::string(text))
            .extract()
            .map_err(|error| one_line(&error))?;
        let mut declared = Self::default();
        for (name, pool) in written.pools {
            let key = format!("pools.{name}.uri");
            let uri = secrets::resolve(&key, pool.uri, "", &pool.uri_file);
            let uri = uri.map_err(|error| error.to_string())?;
            if uri.is_empty() {
                return Err(format!("pool '{name}' has neither uri nor uri_file"));
            }
            if PoolName::parse(&name).is_err() || name == DEFAULT {
                return Err(format!("'{name}' cannot be the name of a pool"));
            }
            let draft = PoolDraft {
                uri: Some(uri),
                weight: Some(pool.weight),
                flavor: None,
                options: Some(pool.options),
            };
            declared.pools.insert(name, draft);
        }
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for (name, flavor) in written.flavors {
            FlavorName::parse(&name)
                .map_err(|_| format!("'{name}' cannot be the name of a flavor"))?;
            let project = ProjectId::parse(&flavor.project)
                .map_err(|_| format!("flavor '{name}' names no project"))?;
            if flavor.pools.is_empty() {
                return Err(format!("flavor '{name}' has no pools"));
            }
            for pool in &flavor.pools {
                if let Some(other) = taken.insert(pool.clone(), name.clone()) {
                    return Err(format!(
                        "pool '{pool}' is in the flavors '{other}' and '{name}'; it can be in one only"
                    ));
                }
            }
            declared.flavors.insert(name, (project, flavor.pools));
        }
        Ok(declared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_and_flavors_are_read() {
        let example = include_str!("../../config/pools.toml");
        let declared = Declared::parse(example).expect("the example");
        let pool = &declared.pools["fast"];
        assert_eq!(pool.weight, Some(100));
        assert_eq!(pool.options.as_ref().expect("options")["timeout_ms"], 500);
        let (project, pools) = &declared.flavors["gold"];
        assert_eq!(project.as_str(), "480924");
        assert_eq!(pools, &["fast", "faster"]);
        assert!(Declared::parse("").expect("nothing").pools.is_empty());
    }

    #[test]
    fn errors_in_declarations_name_the_entry() {
        let flavor = |name| format!("[flavors.{name}]\nproject = \"p\"\npools = [\"a\"]\n");
        let two = format!("{}{}", flavor("f"), flavor("g"));
        for (text, named) in [
            ("[pools.a]\nuri = \"x\"", "weight"),
            ("[pools.a]\nweight = 1", "uri"),
            (
                "[pools.a]\nuri = \"x\"\nuri_file = \"y\"\nweight = 1",
                "both",
            ),
            (
                "[pools.a]\nuri_file = \"no/such/file\"\nweight = 1",
                "no/such/file",
            ),
            ("[pools.a]\nuri = \"x\"\nweight = -1", "weight"),
            ("[pools.a]\nuri = \"x\"\nweight = 1\nwait = 2", "wait"),
            ("[pools.default]\nuri = \"x\"\nweight = 1", "'default'"),
            ("[flavors.f]\nproject = \"p\"\npools = []", "'f'"),
            ("[flavors.f]\nproject = \"\"\npools = [\"a\"]", "project"),
            (two.as_str(), "'a'"),
        ] {
            let error = Declared::parse(text).expect_err(text);
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
