//! OpenSSL 3 (the system's) and OpenSSL 4 (inside the Python package `cryptography`) as outside judges.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What OpenSSL 4 comes in: the Python package `cryptography` bundles it, and pyOpenSSL lets it build chains.
const PYTHON_PACKAGES: [&str; 2] = ["cryptography==50.0.2", "pyOpenSSL==26.4.0"];

/// A folder of files to be judged.
pub(crate) struct Judged(tempfile::TempDir);

impl Judged {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        self.write_bytes(file, text.as_bytes());
    }

    pub(crate) fn write_bytes(&self, file: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(file), bytes).unwrap();
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.0.path().join(file)).unwrap()
    }

    /// Runs `openssl` in the folder and returns what it said.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let (succeeded, said) = run_openssl(self.0.path(), arguments);
        assert!(succeeded, "openssl {arguments}: {said}");
        said
    }

    /// Runs `openssl` in the folder, which must refuse, and returns why.
    pub(crate) fn openssl_refuses(&self, arguments: &str) -> String {
        let (succeeded, said) = run_openssl(self.0.path(), arguments);
        assert!(!succeeded, "openssl {arguments} accepts: {said}");
        said
    }
}

/// Runs `openssl` and returns what it said.
pub(crate) fn openssl(arguments: &str) -> String {
    Judged::new().openssl(arguments)
}

fn run_openssl(folder: &Path, arguments: &str) -> (bool, String) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.expect("openssl runs (missing? `.ci/setup test` installs it)");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// Lets OpenSSL 4 judge a chain at the beginning of 2026: files of root, intermediate and leaf.
pub(crate) fn openssl_four(judged: &Judged, files: &str, expected: &str) {
    const PROGRAM: &str = r#"
import datetime, sys
from cryptography.hazmat.backends.openssl import backend
from OpenSSL import crypto
if not backend.openssl_version_text().startswith("OpenSSL 4."):
    sys.exit("this is " + backend.openssl_version_text() + ", not OpenSSL 4")
root, intermediate, leaf = (crypto.load_certificate(crypto.FILETYPE_PEM, open(name, "rb").read()) for name in sys.argv[1:])
store = crypto.X509Store()
store.add_cert(root)
store.set_flags(crypto.X509StoreFlags.X509_STRICT | crypto.X509StoreFlags.CHECK_SS_SIGNATURE)
store.set_time(datetime.datetime(2026, 2, 2))
try:
    crypto.X509StoreContext(store, leaf, [intermediate]).verify_certificate()
    print("valid")
except crypto.X509StoreContextError as refused:
    print(refused)
"#;
    let output = Command::new(python())
        .args(["-c", PROGRAM])
        .args(files.split(' '))
        .current_dir(judged.0.path())
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains(expected), "OpenSSL 4 says: {said}");
}

/// The interpreter of the environment that `.ci/setup test` makes below the target folder (or that an earlier run made).
fn python() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openssl4");
    let python = environment.join("bin/python");
    let ready = environment.join("ready");
    if std::fs::read_to_string(&ready).is_ok_and(|packages| packages == PYTHON_PACKAGES.join(" ")) {
        return python;
    }
    let run = |command: &mut Command, remedy: &str| {
        let output = command.output().unwrap_or_else(|cause| panic!("{remedy}: {cause}"));
        assert!(output.status.success(), "{remedy}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment),
        "python3 with its module venv is missing: `.ci/setup test` installs both",
    );
    run(
        Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES),
        "OpenSSL 4 comes inside the package cryptography of pypi.org, which cannot be fetched",
    );
    std::fs::write(ready, PYTHON_PACKAGES.join(" ")).unwrap();
    python
}
