//! The peer's program as the process that compiles chaincode: it answers, is bounded, and is ended.

#![expect(clippy::unwrap_used, reason = "a test stops where something is wrong")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use consort_chaincode_runtime::package::pack;
use consort_chaincode_runtime::{Compiler, InstallError, Limits, PackageStore, WasmRuntime};

fn process(patience: Duration, data_bytes_max: u64) -> Compiler {
    Compiler::Process { program: PathBuf::from(env!("CARGO_BIN_EXE_consort-peer")), patience, data_bytes_max }
}

fn runtime(folder: &Path, compiler: Compiler) -> WasmRuntime {
    let packages = Arc::new(PackageStore::open(&folder.join("packages"), 16 << 20).unwrap());
    let limits = Limits { instances_max: 1, memory_bytes_max: 8 << 20, ..Limits::default() };
    WasmRuntime::with_compiler(packages, &folder.join("compiled"), limits, compiler).unwrap()
}

/// Installs a component and tells why it was not; none of these is a chaincode, which is found out after compiling it.
fn refusal(runtime: &WasmRuntime, wat: &str) -> InstallError {
    runtime.install(pack("test", &wat::parse_str(wat).unwrap()).unwrap().into()).unwrap_err()
}

/// A component that takes a while: many functions with many branches.
fn large() -> String {
    let step =
        "(local.set 0 (i32.add (local.get 1) (i32.mul (local.get 2) (local.get 3)))) (br_if 0 (local.get 0))";
    let function = format!("(func (local i32 i32 i32 i32) (block {}))", step.repeat(2_000));
    format!("(component (core module {}))", function.repeat(60))
}

/// Processes that compile for this one.
fn compiling() -> usize {
    let own = std::process::id().to_string();
    let is_child = |status: &str| {
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        parent.is_some_and(|parent| parent.trim() == own)
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    processes
        .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("status")).ok())
        .filter(|status| is_child(status))
        .count()
}

/// Tests that count processes do not run beside others that start some.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const SMALL: &str = "(component (core module (func)))";

#[test]
fn a_component_is_compiled_in_a_process_of_its_own_and_its_code_kept() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), process(Duration::from_secs(60), 4 << 30));
    let error = refusal(&runtime, SMALL);
    assert!(matches!(error, InstallError::Interface(_)), "{error}");
    let kept = std::fs::read_dir(folder.path().join("compiled")).unwrap();
    let kept =
        kept.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "cwasm"));
    assert_eq!(kept.count(), 1);

    let error = refusal(&runtime, "(component (core module (memory i64 1)))");
    assert!(matches!(error, InstallError::Invalid(_)), "{error}");
    assert!(error.to_string().contains("memory64"), "{error}");
    assert_eq!(compiling(), 0);
}

#[test]
fn a_compilation_that_takes_too_long_is_ended_and_the_next_one_does_not_wait_for_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(1);
    let error = refusal(&runtime(folder.path(), process(patience, 4 << 30)), &large());
    assert!(matches!(error, InstallError::Slow(after) if after == patience), "{error}");
    assert_eq!(compiling(), 0);

    let runtime = runtime(folder.path(), process(Duration::from_secs(60), 4 << 30));
    let error = refusal(&runtime, SMALL);
    assert!(matches!(error, InstallError::Interface(_)), "{error}");
}

#[test]
fn a_compilation_has_a_bound_of_memory() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let runtime = runtime(folder.path(), process(Duration::from_secs(60), 24 << 20));
    let error = refusal(&runtime, &large());
    let expected = "the compiler cannot compile it within the memory that it may have";
    assert!(matches!(&error, InstallError::Invalid(reason) if reason == expected), "{error}");
    assert_eq!(compiling(), 0);
}

#[test]
fn the_program_does_not_compile_without_a_bound() {
    let _alone = alone();
    let peer = Command::new(env!("CARGO_BIN_EXE_consort-peer"))
        .arg("compile-chaincode")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(peer.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&peer.stdout),
        "compile-chaincode needs the bytes of memory that it may have"
    );
}
