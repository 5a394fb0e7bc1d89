//! What a `Cargo.toml` says of the crates that its own uses.

use figment::Figment;
use figment::providers::{Format, Toml};
use serde_json::{Map, Value};

/// When a dependency is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Normal,
    Build,
    Dev,
}

/// A crate and what it depends on.
pub(crate) struct Manifest {
    pub(crate) name: String,
    /// Crates by their own names, whatever they are called here.
    pub(crate) dependencies: Vec<(Kind, String)>,
    /// Dependencies that are there only when asked for.
    optional: Vec<String>,
    features: Map<String, Value>,
}

impl Manifest {
    /// Reads a manifest. `shared` is that of the workspace, from which dependencies may take what they are.
    pub(crate) fn parse(text: &str, shared: &str) -> Self {
        let (manifest, shared) = (read(text), read(shared));
        let shared = &shared["workspace"]["dependencies"];
        let name = manifest["package"]["name"]
            .as_str()
            .expect("a crate has a name");
        let mut read = Self {
            name: name.to_owned(),
            dependencies: Vec::new(),
            optional: Vec::new(),
            features: object(&manifest["features"]),
        };
        read.add(&manifest, shared);
        for platform in object(&manifest["target"]).values() {
            read.add(platform, shared);
        }
        read
    }

    fn add(&mut self, tables: &Value, shared: &Value) {
        for (table, kind) in [
            ("dependencies", Kind::Normal),
            ("build-dependencies", Kind::Build),
            ("dev-dependencies", Kind::Dev),
        ] {
            for (called, what) in object(&tables[table]) {
                let named = [&what["package"], &shared[&called]["package"]];
                let renamed = named.into_iter().find_map(Value::as_str);
                let name = renamed.unwrap_or(&called).to_owned();
                if what["optional"] == true {
                    self.optional.push(name.clone());
                }
                self.dependencies.push((kind, name));
            }
        }
    }

    /// Whether a crate is used outside tests.
    pub(crate) fn uses(&self, name: &str) -> bool {
        let mut used = self.dependencies.iter();
        used.any(|(kind, used)| *kind != Kind::Dev && used == name)
    }

    /// Whether a crate is used only when a feature asks for it.
    pub(crate) fn has_optional(&self, name: &str, feature: &str) -> bool {
        let asks = format!("dep:{name}");
        let enables = self.features.get(feature).and_then(Value::as_array);
        self.optional.iter().any(|optional| optional == name)
            && enables.is_some_and(|list| list.iter().any(|one| *one == asks))
    }
}

fn read(text: &str) -> Value {
    let read = Figment::from(Toml::string(text)).extract();
    read.expect("a manifest is TOML")
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
