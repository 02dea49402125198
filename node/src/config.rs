//! One typed configuration per process: defaults, then the YAML file, then the environment.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// A configuration file is text written by people; more than this is the wrong file.
const CONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Why a process could not read its configuration. The text names file, key and line, as far as they are known.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is missing or unreadable.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// The file is larger than any configuration.
    #[error("the configuration {} is larger than {CONFIG_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Not YAML, an unknown key, a missing key or a value of the wrong type.
    #[error("in the configuration {}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Key, line and what is expected there.
        reason: String,
    },
    /// A value that came with the environment does not fit.
    #[error("in the environment ({variables}) over the configuration {}: {reason}", path.display())]
    Environment {
        /// The file that was overlaid.
        path: PathBuf,
        /// The variables that were applied.
        variables: String,
        /// What does not fit.
        reason: String,
    },
}

/// Reads a configuration.
///
/// Keys of `T` that the file does not name take their serde default. A variable
/// `<env_prefix>__<KEY>__<KEY>` (upper case, levels joined by two underscores) replaces one value: with the prefix
/// `CONSORT_PEER`, `CONSORT_PEER__LOG__FILTER=debug` replaces `log.filter`. Its text is read as a YAML value.
/// `T` and its parts should carry `deny_unknown_fields`, so that a misspelt key is refused.
///
/// # Errors
/// [`ConfigError`], whose text can be shown to an operator as it is.
pub fn load<T: DeserializeOwned>(path: &Path, env_prefix: &str) -> Result<T, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    parse(&text, path, env_prefix, std::env::vars())
}

/// Like [`load`], from a text and a given environment; `path` only names the source in errors.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    env_prefix: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let invalid = |reason: String| ConfigError::Invalid { path: path.to_owned(), reason };
    let prefix = format!("{env_prefix}__");
    let overlay: BTreeMap<String, String> =
        environment.into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
    if overlay.is_empty() {
        return serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()));
    }
    let mut tree: Value = if text.trim().is_empty() {
        Value::Object(Map::new())
    } else {
        serde_saphyr::from_str(text).map_err(|error| invalid(error.to_string()))?
    };
    for (name, value) in &overlay {
        let keys = name[prefix.len()..].to_lowercase();
        let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
        place(&mut tree, keys.split("__"), value);
    }
    serde_json::from_value(tree).map_err(|error| {
        // The file alone tells the line, if the fault is the file's.
        match serde_saphyr::from_str::<T>(text) {
            Err(in_file) if in_file.to_string().contains(&error.to_string()) => invalid(in_file.to_string()),
            _ => ConfigError::Environment {
                path: path.to_owned(),
                variables: overlay.keys().cloned().collect::<Vec<_>>().join(", "),
                reason: error.to_string(),
            },
        }
    })
}

/// Sets the value at a path of keys, making the objects on the way.
fn place<'a>(tree: &mut Value, mut keys: impl Iterator<Item = &'a str>, value: Value) {
    let Some(key) = keys.next() else {
        *tree = value;
        return;
    };
    if !tree.is_object() {
        *tree = Value::Object(Map::new());
    }
    if let Value::Object(object) = tree {
        place(object.entry(key).or_insert(Value::Null), keys, value);
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Address and port, for example `127.0.0.1:7051`; port 0 takes a free one.
    pub address: String,
}

impl ListenConfig {
    /// Listens at `address`.
    #[must_use]
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }
}

/// A server's TLS identity and what it asks of its clients. Paths are relative to the process's working folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the server's certificate, its issuers behind it.
    pub cert: PathBuf,
    /// PEM file with the certificate's private key.
    pub key: PathBuf,
    /// PEM files with the roots of client certificates. A peer adds the TLS roots of its channels to them.
    #[serde(default)]
    pub client_roots: Vec<PathBuf>,
    /// Whether clients must show a certificate. Default: `optional`.
    #[serde(default)]
    pub client_auth: ClientAuth,
}

/// What a server asks of its clients' certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// No certificate is asked for.
    None,
    /// A certificate is asked for; one that is shown is proven to be the client's own, but its issuer is not
    /// judged: services that give rights to a certificate compare it with a configured one.
    #[default]
    Optional,
    /// A certificate that chains to the client roots is demanded.
    Required,
}

/// Host names that are reached at another address than the resolver would give: `host` or `host:port` to
/// `address` or `address:port`. Names in certificates are checked as if there were no override.
pub type HostOverrides = BTreeMap<String, String>;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Example {
        listen: ListenConfig,
        #[serde(default)]
        limits: Limits,
        #[serde(default)]
        host_overrides: HostOverrides,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        streams: u32,
        name: String,
    }

    impl Default for Limits {
        fn default() -> Self {
            Self { streams: 7, name: "seven".into() }
        }
    }

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Example, ConfigError> {
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(text, Path::new("node.yaml"), "TEST", environment)
    }

    #[test]
    fn the_file_wins_over_defaults_and_the_environment_over_the_file() {
        let text = "listen:\n  address: 127.0.0.1:1\nlimits:\n  streams: 8\n";
        let from_file = read(text, &[("OTHER__LIMITS__STREAMS", "1")]).unwrap();
        assert_eq!(from_file.limits, Limits { streams: 8, name: "seven".into() });
        let overlaid =
            read(text, &[("TEST__LIMITS__STREAMS", "9"), ("TEST__LISTEN__ADDRESS", "127.0.0.1:2")]).unwrap();
        assert_eq!(overlaid.limits.streams, 9);
        assert_eq!(overlaid.listen.address, "127.0.0.1:2");
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_name_and_line() {
        let error = read("listen:\n  address: a\n  adress: b\n", &[]).unwrap_err().to_string();
        assert!(error.contains("node.yaml") && error.contains("adress"), "{error}");
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_from_the_environment_names_the_variable() {
        let error = read("listen:\n  address: a\n", &[("TEST__LIMITS__STREAMS", "many")]);
        let error = error.unwrap_err().to_string();
        assert!(error.contains("TEST__LIMITS__STREAMS"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = load::<Example>(Path::new("/nowhere/node.yaml"), "TEST").unwrap_err();
        assert!(error.to_string().contains("/nowhere/node.yaml"));
    }
}
