//! `consort context`: names for "this network, as this user", kept in `consort.toml`.
//!
//! The file is the one that `CONSORT_CONFIG` names, else `consort.toml` here, else `consort/consort.toml` in the folder for
//! configurations (`$XDG_CONFIG_HOME`, or `.config` in the home folder). An option on the command line beats the environment,
//! which beats the context.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::output::Output;
use crate::report::table;

/// Name of the file.
const FILE_NAME: &str = "consort.toml";

/// Names for "this network, as this user"
#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List the contexts and show which is used
    #[command(after_help = "Example:\n  consort context list")]
    List(ListOptions),
    /// Make a context, or replace one
    #[command(
        after_help = "Example:\n  consort context set org1-admin --network .consort/two-org-raft --as Admin@org1.example.com\n  consort context use org1-admin"
    )]
    Set(SetOptions),
    /// Use a context from now on
    #[command(after_help = "Example:\n  consort context use org1-admin")]
    Use(NameOptions),
    /// Forget a context
    #[command(after_help = "Example:\n  consort context remove org1-admin")]
    Remove(NameOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ListOptions {
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct NameOptions {
    /// Name of the context
    name: String,

    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct SetOptions {
    #[command(flatten)]
    name: NameOptions,

    /// Data folder of the network
    #[arg(long, value_name = "FOLDER")]
    network: Option<PathBuf>,

    /// Who calls, such as User1@org1.example.com
    #[arg(long = "as", value_name = "USER@DOMAIN")]
    user: Option<String>,

    /// The peer to call, such as peer0.org1.example.com
    #[arg(long, value_name = "HOST")]
    peer: Option<String>,

    /// The channel
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
}

/// What a context says; what it leaves out is chosen as without a context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// Data folder of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<PathBuf>,
    /// Who calls.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// The peer to call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// The channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) channel: Option<String>,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contexts {
    /// Name of the context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

/// The context in use, or nothing said.
///
/// # Errors
/// The file is not what it should be, or `CONSORT_CONTEXT` names a context that it does not hold.
pub(crate) fn current() -> anyhow::Result<Context> {
    let path = file();
    let contexts = Contexts::read(&path)?;
    let named = std::env::var("CONSORT_CONTEXT").ok().filter(|name| !name.is_empty());
    let Some(name) = named.or_else(|| contexts.current.clone()) else { return Ok(Context::default()) };
    let mut context = contexts.named(&name, &path)?.clone();
    // A relative folder is meant from where the file lies, wherever the command is called.
    if let (Some(network), Some(base)) = (&context.network, path.parent()) {
        context.network = Some(base.join(network));
    }
    Ok(context)
}

/// Runs a `consort context` command.
///
/// # Errors
/// The file cannot be read or written, or the context is unknown.
pub(crate) fn run(command: ContextCommand) -> anyhow::Result<()> {
    let path = file();
    let mut contexts = Contexts::read(&path)?;
    match command {
        ContextCommand::List(options) => {
            let json = json!({ "file": path, "current": contexts.current, "contexts": contexts.contexts });
            options.output.print(&json, || contexts.table())
        }
        ContextCommand::Set(SetOptions {
            name: NameOptions { name, output },
            network,
            user,
            peer,
            channel,
        }) => {
            let network = network.map(std::path::absolute).transpose()?;
            contexts.contexts.insert(name.clone(), Context { network, user, peer, channel });
            contexts.write(&path)?;
            output.print(&json!({ "context": name, "file": path }), || {
                format!("context {name} is in {}; `consort context use {name}` uses it", path.display())
            })
        }
        ContextCommand::Use(NameOptions { name, output }) => {
            contexts.named(&name, &path)?;
            contexts.current = Some(name.clone());
            contexts.write(&path)?;
            output.print(&json!({ "current": name }), || format!("context {name} is used from now on"))
        }
        ContextCommand::Remove(NameOptions { name, output }) => {
            contexts.named(&name, &path)?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.write(&path)?;
            output.print(&json!({ "removed": name }), || format!("context {name} is forgotten"))
        }
    }
}

impl Contexts {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        toml::from_str(&text).with_context(|| format!("{} is no list of contexts", path.display()))
    }

    fn write(&self, path: &Path) -> anyhow::Result<()> {
        crate::files::write_atomically(path, toml::to_string_pretty(self)?.as_bytes(), false)
    }

    fn named(&self, name: &str, path: &Path) -> anyhow::Result<&Context> {
        let Some(found) = self.contexts.get(name) else {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            bail!(
                "{} has no context '{name}' (known are: {known}).\nRemedy: make one with `consort context set {name} --network \
                 <folder> --as <user@domain>`.",
                path.display()
            );
        };
        Ok(found)
    }

    fn table(&self) -> String {
        let head = ["", "name", "network", "as", "peer", "channel"].map(str::to_owned).to_vec();
        let cell = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let row = |(name, context): (&String, &Context)| {
            let mark = if self.current.as_ref() == Some(name) { "*" } else { "" };
            let network = context.network.as_ref().map(|path| path.display().to_string());
            vec![
                mark.to_owned(),
                name.clone(),
                cell(network.as_deref()),
                cell(context.user.as_deref()),
                cell(context.peer.as_deref()),
                cell(context.channel.as_deref()),
            ]
        };
        table(&std::iter::once(head).chain(self.contexts.iter().map(row)).collect::<Vec<_>>())
    }
}

fn file() -> PathBuf {
    if let Some(path) = std::env::var_os("CONSORT_CONFIG").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    let here = PathBuf::from(FILE_NAME);
    if here.is_file() {
        return std::path::absolute(&here).unwrap_or(here);
    }
    let folder = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")));
    folder.map_or(here, |folder| folder.join("consort").join(FILE_NAME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_in_a_readable_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        let mut contexts = Contexts::read(&path).unwrap();
        let context = Context { user: Some("Admin@org1.example.com".to_owned()), ..Context::default() };
        contexts.contexts.insert("org1-admin".to_owned(), context.clone());
        contexts.current = Some("org1-admin".to_owned());
        contexts.write(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("[contexts.org1-admin]\nas = \"Admin@org1.example.com\""), "{text}");
        let again = Contexts::read(&path).unwrap();
        assert_eq!(again.named("org1-admin", &path).unwrap(), &context);
        assert!(again.table().contains("*  org1-admin"), "{}", again.table());
    }

    #[test]
    fn an_unknown_context_is_answered_with_the_remedy() {
        let error = Contexts::default().named("org9", Path::new("consort.toml")).unwrap_err().to_string();
        assert!(error.contains("consort context set org9"), "{error}");
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, "[contexts.x]\nuser = \"a\"\n").unwrap();
        let error = format!("{:#}", Contexts::read(&path).unwrap_err());
        assert!(error.contains("unknown field `user`"), "{error}");
    }
}
