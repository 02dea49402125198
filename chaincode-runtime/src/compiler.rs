//! Compiling components, where it can be ended.
//!
//! Compiling takes time and memory that [`bounds`](super::bounds) keeps near and cannot foretell, and a thread that compiles cannot be
//! stopped. A program whose `main` begins with [`serve`] therefore compiles in a process of its own: the same program, started again
//! with a hidden argument. It gets the component on its standard input and leaves the compiled code on its standard output. It has a
//! bound of memory, goes behind the program's other work, and is killed when its time is over or its parent is gone.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, nice, set_parent_process_death_signal, setrlimit};
use wasmtime::Engine;

use super::{ceiling, engine};

/// The hidden argument; the bound of memory and the ceiling of the stack follow.
const COMPILE_ARGUMENT: &str = "compile-chaincode";
/// The running program, also when its file was replaced meanwhile (proc(5)).
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Longest compilation. Clients wait 30 s for the answer of an installation.
pub(super) const COMPILE_MAX: Duration = Duration::from_secs(25);
/// Memory of a compilation: several times what the largest component within the bounds takes on eight processors.
const DATA_BYTES_MAX: u64 = 4 << 30;
/// Largest compiled code: far above what the largest component within the bounds becomes.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// How far behind other work a compilation goes (nice(2)).
const NICENESS: i32 = 10;

/// Whether this program's `main` began with [`serve`].
static SERVES: OnceLock<()> = OnceLock::new();

/// Where components are compiled.
#[derive(Debug, Clone)]
pub enum Compiler {
    /// In this process: a compilation that takes too long runs on to its end.
    InPlace,
    /// In a process of its own.
    Process {
        /// A program whose `main` begins with [`serve`].
        program: PathBuf,
        /// Time after which it is killed.
        patience: Duration,
        /// Writable memory that it may have, in bytes.
        data_bytes_max: u64,
    },
}

/// Why there is no compiled code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// It takes too long.
    #[error("the component was not compiled within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// The component is invalid, or takes too much.
    #[error("{0}")]
    Invalid(String),
}

impl Compiler {
    /// A process of its own if this program can be one, and this process otherwise.
    #[must_use]
    pub fn of_this_program() -> Self {
        if SERVES.get().is_none() {
            return Self::InPlace;
        }
        Self::Process {
            program: PathBuf::from(THIS_PROGRAM),
            patience: COMPILE_MAX,
            data_bytes_max: DATA_BYTES_MAX,
        }
    }

    /// Compiles a component for an engine, with a ceiling of its stack.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        component: &[u8],
        stack_bytes: u32,
    ) -> Result<Vec<u8>, CompileError> {
        match self {
            Self::InPlace => compiled(engine, component, stack_bytes).map_err(CompileError::Invalid),
            Self::Process { program, patience, data_bytes_max } => {
                let mut command = Command::new(program);
                command.arg(COMPILE_ARGUMENT).arg(data_bytes_max.to_string()).arg(stack_bytes.to_string());
                run(&mut command, *patience, component)
            }
        }
    }
}

fn compiled(engine: &Engine, component: &[u8], stack_bytes: u32) -> Result<Vec<u8>, String> {
    let counting = ceiling::with_ceiling(component, stack_bytes).map_err(|error| error.to_string())?;
    engine.precompile_component(&counting).map_err(|error| format!("{error:#}"))
}

/// Runs the compiling process, and ends it.
fn run(command: &mut Command, patience: Duration, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let failed = |error: std::io::Error| {
        CompileError::Invalid(format!("this machine cannot start a process that compiles: {error}"))
    };
    let mut child = command.spawn().map_err(failed)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (answer, status) = std::thread::scope(|scope| {
        let (done, answer) = mpsc::sync_channel(1);
        scope.spawn(move || {
            if let Some(mut stdin) = stdin {
                // A process that ended without reading says why on its output.
                let _ = stdin.write_all(component);
            }
            let mut code = Vec::new();
            let read = stdout.map(|stdout| stdout.take(CODE_BYTES_MAX).read_to_end(&mut code));
            let _ = done.send(read.is_some_and(|read| read.is_ok()).then_some(code));
        });
        let answer = answer.recv_timeout(patience);
        // Whatever it answered, nothing of it stays behind; the thread above ends with the pipes.
        let killed = answer.is_err() && child.kill().is_ok();
        let status = child.wait();
        (if killed { Err(RecvTimeoutError::Timeout) } else { answer }, status)
    });
    let code = match answer {
        Err(_) => return Err(CompileError::Slow(patience)),
        Ok(code) => code.unwrap_or_default(),
    };
    match status.map_err(failed)?.code() {
        Some(0) => Ok(code),
        Some(1) => Err(CompileError::Invalid(String::from_utf8_lossy(&code).into_owned())),
        _ => Err(CompileError::Invalid(
            "the compiler cannot compile it within the memory that it may have".to_owned(),
        )),
    }
}

/// Compiles and tells how it ended, if this process was started to compile; otherwise notes that this program can be. The first thing
/// that `main` does.
#[must_use]
pub fn serve() -> Option<ExitCode> {
    let _ = SERVES.set(());
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != COMPILE_ARGUMENT {
        return None;
    }
    let (answer, code) = match compile_standard_input(arguments.next(), arguments.next()) {
        Ok(compiled) => (compiled, ExitCode::SUCCESS),
        Err(reason) => (reason.into_bytes(), ExitCode::FAILURE),
    };
    // Without a reader there is nobody to tell.
    let _ = std::io::stdout().write_all(&answer);
    Some(code)
}

fn compile_standard_input(
    data_bytes_max: Option<OsString>,
    stack_bytes: Option<OsString>,
) -> Result<Vec<u8>, String> {
    fn number<N: std::str::FromStr>(argument: Option<OsString>, what: &str) -> Result<N, String> {
        let number = argument.and_then(|text| text.to_str()?.parse().ok());
        number.ok_or_else(|| format!("{COMPILE_ARGUMENT} needs the bytes of {what} that it may have"))
    }
    let limit = number(data_bytes_max, "memory")?;
    let stack_bytes = number(stack_bytes, "stack")?;
    let bounded = |error: rustix::io::Errno| format!("the compiler cannot be bounded: {error}");
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(bounded)?;
    setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum: Some(limit) }).map_err(bounded)?;
    let _refused_at_worst = nice(NICENESS);
    let mut component = Vec::new();
    std::io::stdin().read_to_end(&mut component).map_err(|error| error.to_string())?;
    let engine = engine::for_compiling().map_err(|error| format!("{error:#}"))?;
    compiled(&engine, &component, stack_bytes)
}
