//! From a chaincode's crate to a WebAssembly component.
//!
//! Cargo compiles the crate for `wasm32-unknown-unknown`, and the core module becomes a component with the interface that
//! the module itself describes. The bytes depend on sources and compiler only: the paths of the machine are mapped away.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use wit_component::DecodedWasm;

/// The target that chaincode is compiled for.
const TARGET: &str = "wasm32-unknown-unknown";
/// The function that every chaincode exports.
const ENTRY: &str = "invoke";
/// Memory that a chaincode is born with, besides its stack and constants. It costs nothing until it is used, and what an invocation needs
/// beyond it costs the peer changes of memory protection.
const INITIAL_HEAP_BYTES: u32 = 1 << 20;
/// Where Debian installs its compiler.
const DEBIAN_BIN: &str = "/usr/bin";
/// Names of the WebAssembly linker in Debian's lld packages, the preferred one first.
const DEBIAN_LINKERS: [&str; 4] = ["wasm-ld-19", "wasm-ld", "wasm-ld-18", "wasm-ld-20"];
/// Beginnings of variables with which an enclosing cargo, or its user, steers another build: they would leak its compiler, flags and
/// features into this one.
const LEAKING_VARIABLES: [&str; 5] = ["CARGO_", "__CARGO_", "RUST", "CLIPPY_", "LD_LIBRARY_PATH"];
/// Beginnings of those that say where things are and how the registry is reached; they stay.
const KEPT_VARIABLES: [&str; 6] =
    ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "RUSTUP_"];

/// A compiler that can build chaincode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toolchain {
    /// The `cargo` of the path, whose compiler has the standard library of the target.
    Target {
        /// Root of the compiler's installation.
        sysroot: PathBuf,
    },
    /// Debian's compiler, which builds the target's standard library from its sources.
    Debian {
        /// Root of the compiler's installation.
        sysroot: PathBuf,
        /// The WebAssembly linker.
        linker: PathBuf,
    },
}

impl Toolchain {
    /// Finds a compiler for a crate: the one of the path if it knows the target, else Debian's.
    ///
    /// # Errors
    /// No compiler is complete; the text says what is missing and how to install it.
    pub fn detect(crate_dir: &Path) -> Result<Self> {
        let of_path = sysroot("rustc", crate_dir);
        if let Some(sysroot) = &of_path
            && sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()
        {
            return Ok(Self::Target { sysroot: sysroot.clone() });
        }
        let mut missing = Vec::new();
        let debian = sysroot(&format!("{DEBIAN_BIN}/rustc"), crate_dir);
        if debian.is_none() || !Path::new(DEBIAN_BIN).join("cargo").is_file() {
            missing.push("rustc-web cargo-web");
        }
        let sources = debian.as_ref().map(|root| root.join("lib/rustlib/src/rust/library/std"));
        if !sources.is_some_and(|folder| folder.is_dir()) {
            missing.push("rust-web-src");
        }
        let linker =
            DEBIAN_LINKERS.iter().map(|name| Path::new(DEBIAN_BIN).join(name)).find(|path| path.is_file());
        if linker.is_none() {
            missing.push("lld-19");
        }
        match (debian, linker) {
            (Some(sysroot), Some(linker)) if missing.is_empty() => Ok(Self::Debian { sysroot, linker }),
            _ => bail!(
                "no Rust compiler here can build for {TARGET}. Either add the target to the compiler in use\n  \
                 rustup target add {TARGET}\nor, on Debian, install what is missing of its own compiler\n  \
                 apt-get install -y --no-install-recommends {}",
                missing.join(" ")
            ),
        }
    }

    fn cargo(&self) -> OsString {
        match self {
            Self::Target { .. } => OsString::from("cargo"),
            Self::Debian { .. } => Path::new(DEBIAN_BIN).join("cargo").into_os_string(),
        }
    }

    fn command(&self, crate_dir: &Path) -> Command {
        let program = self.cargo();
        let mut command = clean_command(&program, crate_dir);
        command.args([
            "build",
            "--target",
            TARGET,
            "--profile",
            "wasm",
            "--message-format=json-render-diagnostics",
        ]);
        // Fast, in one piece, and a panic is a trap. Given here so that any crate has the profile.
        for setting in [
            "inherits=\"release\"",
            "opt-level=3",
            "lto=true",
            "codegen-units=1",
            "panic=\"abort\"",
            "strip=\"debuginfo\"",
        ] {
            command.arg("--config").arg(format!("profile.wasm.{setting}"));
        }
        if let Self::Debian { linker, .. } = self {
            command
                .args(["-Zbuild-std=std,panic_abort"])
                .env("RUSTC", Path::new(DEBIAN_BIN).join("rustc"))
                // The packaged compiler is a stable one; building the standard library is behind this switch.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        command
    }

    fn sysroot(&self) -> &Path {
        match self {
            Self::Target { sysroot } | Self::Debian { sysroot, .. } => sysroot,
        }
    }
}

/// A command in a crate's folder that an enclosing cargo does not steer.
pub fn clean_command(program: &OsStr, crate_dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(crate_dir);
    for (variable, _) in std::env::vars_os() {
        let begins = |prefix: &str| variable.as_encoded_bytes().starts_with(prefix.as_bytes());
        if LEAKING_VARIABLES.iter().any(|prefix| begins(prefix))
            && !KEPT_VARIABLES.iter().any(|prefix| begins(prefix))
        {
            command.env_remove(&variable);
        }
    }
    command
}

/// Where chaincode is compiled when `CARGO_TARGET_DIR` says where everything is: a folder of its own, so that no build waits for one that
/// runs this.
#[must_use]
pub fn shared_target_dir() -> Option<PathBuf> {
    std::env::var_os("CARGO_TARGET_DIR").map(|folder| PathBuf::from(folder).join("chaincode"))
}

/// Compiles the chaincode in a folder and returns the bytes of its component.
///
/// `target_dir` is where cargo keeps its files; without one, `chaincode` below `CARGO_TARGET_DIR`, or cargo's own choice.
///
/// # Errors
/// There is no compiler, the crate does not compile (the compiler's words are on stderr), it is not a `cdylib`, or it does not export
/// a chaincode.
pub fn build(crate_dir: &Path, target_dir: Option<&Path>) -> Result<Vec<u8>> {
    let manifest = crate_dir.join("Cargo.toml");
    if !manifest.is_file() {
        bail!("{} is not a chaincode: it has no Cargo.toml", crate_dir.display());
    }
    let manifest =
        manifest.canonicalize().with_context(|| format!("cannot resolve {}", manifest.display()))?;
    let toolchain = Toolchain::detect(crate_dir)?;
    let mut command = toolchain.command(crate_dir);
    command.arg("--config").arg(path_mapping(&toolchain, &manifest)?);
    if let Some(folder) = target_dir.map(Path::to_path_buf).or_else(shared_target_dir) {
        command.arg("--target-dir").arg(folder);
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("the chaincode in {} does not build; the compiler's messages are above", crate_dir.display());
    }
    let module = built_module(&output.stdout, &manifest).ok_or_else(|| {
        anyhow!(
            "the crate in {} makes no WebAssembly module: its Cargo.toml needs\n  [lib]\n  crate-type = [\"cdylib\", \"rlib\"]",
            crate_dir.display()
        )
    })?;
    let core = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
    componentize(&core).with_context(|| {
        format!(
            "the chaincode in {} exports nothing that a peer can run: name its contract with consort_chaincode_sdk::export!",
            crate_dir.display()
        )
    })
}

/// Makes a component of a core module that describes its interface (as `wit-bindgen` guests do).
///
/// # Errors
/// The module has no description, does not keep to it, or exports no [`ENTRY`].
pub fn componentize(core: &[u8]) -> Result<Vec<u8>> {
    let component = encode(core)?;
    let exports_entry = match wit_component::decode(&component)? {
        DecodedWasm::Component(resolve, world) => {
            resolve.worlds[world].exports.keys().any(|key| resolve.name_world_key(key) == ENTRY)
        }
        DecodedWasm::WitPackage(..) => false,
    };
    if !exports_entry {
        bail!("it has no function {ENTRY}");
    }
    Ok(component)
}

fn encode(core: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(core)
        .context("the module's description of its interface cannot be read")?
        .encode()
        .context("the module does not match its interface")
}

/// Root of a compiler's installation, if there is such a compiler.
fn sysroot(rustc: &str, crate_dir: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .current_dir(crate_dir)
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim_end()))
}

/// The setting that replaces the machine's paths, which panic messages would otherwise carry into the component.
///
/// Cargo compiles the members of a workspace (a single crate is one, too) from its root with relative paths; what is left are the
/// compiler's own sources, the registry's, and packages that are found by path. The setting is the same for every chaincode of one
/// clone, so that what was compiled for one is there for the next.
fn path_mapping(toolchain: &Toolchain, manifest: &Path) -> Result<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| home.map(|home| home.join(".cargo")));
    // A later mapping wins, so the most specific one comes last.
    let mut mappings = vec![(toolchain.sysroot().to_path_buf(), "/rust".to_owned())];
    mappings.extend(cargo_home.map(|folder| (folder, "/cargo".to_owned())));
    mappings.extend(packages_by_path(toolchain, manifest)?);
    let flags: Vec<Value> = mappings
        .into_iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .chain([format!("-Clink-arg=--initial-heap={INITIAL_HEAP_BYTES}")])
        .map(Value::String)
        .collect();
    // A JSON array of strings is also a TOML array of strings.
    Ok(format!("target.{TARGET}.rustflags={}", Value::Array(flags)))
}

/// The folders of the packages that a crate uses by path, each with a name in its place.
fn packages_by_path(toolchain: &Toolchain, manifest: &Path) -> Result<Vec<(PathBuf, String)>> {
    let folder = manifest.parent().context("the manifest has no folder")?;
    let output = clean_command(&toolchain.cargo(), folder)
        .args(["metadata", "--format-version", "1", "--filter-platform", TARGET])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "cargo cannot read the chaincode's manifest:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo's metadata is no JSON")?;
    Ok(used_by_path(&metadata, manifest))
}

fn used_by_path(metadata: &Value, manifest: &Path) -> Vec<(PathBuf, String)> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages = list(&metadata["packages"]);
    let path = |package: &Value| package["manifest_path"].as_str().map(PathBuf::from);
    let own = packages.iter().find(|package| path(package).as_deref() == Some(manifest));
    let nodes = list(&metadata["resolve"]["nodes"]);
    let mut used: Vec<Value> = own.map(|package| package["id"].clone()).into_iter().collect();
    let mut next = 0;
    while let Some(id) = used.get(next).cloned() {
        next += 1;
        let found = nodes.iter().find(|node| node["id"] == id);
        for dependency in found.map(|node| list(&node["dependencies"])).unwrap_or_default() {
            if !used.contains(&dependency) {
                used.push(dependency);
            }
        }
    }
    let mut folders: Vec<(PathBuf, String)> = packages
        .iter()
        .filter(|package| package["source"].is_null() && used.iter().skip(1).any(|id| *id == package["id"]))
        .filter_map(|package| {
            let folder = path(package)?.parent()?.to_path_buf();
            Some((folder, format!("/packages/{}", package["name"].as_str()?)))
        })
        .collect();
    folders.sort();
    folders
}

/// The module among cargo's messages: the `.wasm` file of the library with this manifest.
fn built_module(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact")
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(manifest))
        .filter_map(|message| {
            let files = message["filenames"].as_array()?;
            files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
        })
        .next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_found_among_cargos_messages() {
        let messages =
            br#"{"reason":"compiler-artifact","manifest_path":"/a/Cargo.toml","filenames":["/t/liba.rlib"]}
{"reason":"compiler-artifact","manifest_path":"/b/Cargo.toml","filenames":["/t/b.wasm","/t/libb.rlib"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(built_module(messages, Path::new("/b/Cargo.toml")), Some(PathBuf::from("/t/b.wasm")));
        assert_eq!(built_module(messages, Path::new("/a/Cargo.toml")), None);
    }

    #[test]
    fn of_the_packages_those_that_the_chaincode_uses_by_path_are_found() {
        let package = |name: &str, source: Value| serde_json::json!({ "id": name, "name": name, "source": source, "manifest_path": format!("/w/{name}/Cargo.toml") });
        let registry = Value::from("registry");
        let metadata = serde_json::json!({
            "packages": [
                package("own", Value::Null), package("sdk", Value::Null), package("macros", Value::Null),
                package("other", Value::Null), package("serde", registry),
            ],
            "resolve": { "nodes": [
                { "id": "own", "dependencies": ["sdk", "serde"] },
                { "id": "sdk", "dependencies": ["macros"] },
            ] },
        });
        let found = used_by_path(&metadata, Path::new("/w/own/Cargo.toml"));
        let expected =
            ["macros", "sdk"].map(|name| (PathBuf::from(format!("/w/{name}")), format!("/packages/{name}")));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_module_without_an_interface_is_refused() {
        let error = componentize(b"\0asm\x01\0\0\0").unwrap_err();
        assert_eq!(error.to_string(), "it has no function invoke");
    }

    #[test]
    fn a_folder_without_a_crate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = build(folder.path(), None).unwrap_err();
        assert!(error.to_string().contains("has no Cargo.toml"), "{error}");
    }
}
