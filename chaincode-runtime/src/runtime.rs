//! Executing chaincode.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store, UpdateDeadline};

use super::bounds::{self, BoundsError};
use super::compiled::CompiledCache;
use super::compiler::{COMPILE_MAX, CompileError, Compiler};
use super::engine::{THREAD_STACK_BYTES, engine};
use super::failure::{Broken, Expired, Failure, Judged, judge, of_instance};
use super::host::Host;
use super::imports::link;
use super::limits::{Allowance, Limits, STACK_BYTES_DEFAULT};
use super::package::{Package, PackageError, PackageId};
use super::sandbox::bindings::{ChaincodePre, Invocation as GuestInvocation};
use super::sandbox::{Budget, Frame, Sandbox};
use super::store::{PackageStore, StoreError};
use super::threads::Threads;
use super::with_causes;

/// Package whose interfaces a chaincode may import.
const ALLOWED_IMPORTS: &str = "consort:chaincode/";
/// Status of a response that the chaincode did not give itself.
const STATUS_FAILED: i32 = 500;
/// Longest function name that a message repeats.
const FUNCTION_SHOWN_CHARACTERS: usize = 64;

/// Invocations that may wait for each that is executed. Those further behind would rather find another peer than wait, and hold
/// their proposals meanwhile.
const WAITING_PER_INSTANCE: usize = 4;

/// Packages that are prepared at one time besides executions. More would only slow each other down.
const PREPARING_MAX: u32 = 4;

/// What is to be executed.
#[derive(Clone)]
pub struct Invocation {
    /// The chaincode's name: the namespace of its keys.
    pub chaincode: String,
    /// The package that holds it.
    pub package: PackageId,
    /// Function and arguments.
    pub arguments: Vec<Bytes>,
    /// Whether the client marked it as the initialisation.
    pub is_init: bool,
    /// What the chaincode's definition grants.
    pub allowance: Allowance,
    /// The books.
    pub host: Arc<dyn Host>,
}

impl fmt::Debug for Invocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Invocation")
            .field("chaincode", &self.chaincode)
            .field("package", &self.package)
            .field("arguments", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

/// The event that a chaincode set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its name, not empty.
    pub name: String,
    /// What the chaincode gave along.
    pub payload: Bytes,
}

/// What an execution gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The response: the chaincode's own, or status 500 with the reason why it did not give one.
    pub response: Response,
    /// The event.
    pub event: Option<Event>,
    /// What it took.
    pub usage: Usage,
}

/// What an execution took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Fuel, that of called chaincodes included.
    pub fuel: u64,
    /// The most linear memory at one time, that of called chaincodes included, in bytes.
    pub memory_bytes: usize,
}

/// A chaincode's response, with the meaning of `protos.Response`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Below 400 is a success.
    pub status: i32,
    /// Why it failed.
    pub message: String,
    /// The result.
    pub payload: Bytes,
}

/// This peer could not execute; another one may.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The wall-clock limit has passed.
    #[error("timeout expired while executing transaction")]
    Expired,
    /// The package is not here or cannot be read.
    #[error("chaincode package {package} cannot be loaded")]
    Package {
        /// The package.
        package: PackageId,
        /// The cause.
        #[source]
        source: Arc<StoreError>,
    },
    /// The package does not compile any more (it did when it was installed).
    #[error("chaincode package {package} cannot be prepared: {reason}")]
    Unprepared {
        /// The package.
        package: PackageId,
        /// The engine's words.
        reason: String,
    },
    /// As many invocations wait as may.
    #[error("too many chaincode executions are waiting on this peer")]
    Overloaded,
    /// The books or the engine failed.
    #[error("{0}")]
    Broken(String),
}

/// Why a package was not installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The package does not read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The code is no valid component.
    #[error("the package holds no valid WebAssembly component: {0}")]
    Invalid(String),
    /// The code has more of something than may be compiled.
    #[error("the component is too large to be compiled: {0}")]
    TooLarge(BoundsError),
    /// The compilation takes too long.
    #[error("the component was not compiled within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// The code wants more than the sandbox offers.
    #[error(
        "the chaincode imports what the sandbox does not offer: {}. A chaincode has no files, network, clock, randomness or environment; \
         it may import {ALLOWED_IMPORTS}* only",
        .0.join(", ")
    )]
    Imports(Vec<String>),
    /// The code is not a chaincode.
    #[error("the component does not fit the interface consort:chaincode: {0}")]
    Interface(String),
}

/// Something that executes chaincode.
///
/// Duties: equal invocations over equal books give equal executions; a chaincode's misbehaviour is its response, and an error
/// means that this peer could not execute.
#[async_trait]
pub trait ChaincodeRuntime: Send + Sync {
    /// Executes one invocation.
    async fn invoke(&self, invocation: Invocation) -> Result<Execution, RuntimeError>;
}

/// Executes WebAssembly components in wasmtime. Shared as `Arc`.
pub struct WasmRuntime {
    runner: Runner,
    threads: Threads,
    /// Keeps executions within the pool; a waiting invocation costs nothing but its proposal.
    slots: Arc<Semaphore>,
    /// Places to wait for a slot.
    queue: Semaphore,
    /// Turns of preparing packages; who waits for one holds no slot.
    preparing: Arc<Semaphore>,
}

impl fmt::Debug for WasmRuntime {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WasmRuntime")
            .field("limits", &self.runner.inner.limits)
            .finish_non_exhaustive()
    }
}

impl WasmRuntime {
    /// Makes a runtime over installed packages that keeps compiled code in `cache_dir`.
    ///
    /// # Errors
    /// The system does not give the address space for the instances, or the folder cannot be made.
    pub fn new(packages: Arc<PackageStore>, cache_dir: &Path, limits: Limits) -> Result<Self, RuntimeError> {
        Self::with_compiler(packages, cache_dir, limits, Compiler::of_this_program())
    }

    /// Makes a runtime as [`new`](Self::new) does, which compiles where it is told to.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_compiler(
        packages: Arc<PackageStore>,
        cache_dir: &Path,
        limits: Limits,
        compiler: Compiler,
    ) -> Result<Self, RuntimeError> {
        let broken = |error: wasmtime::Error| {
            RuntimeError::Broken(format!(
                "the WebAssembly engine cannot start with {} instances of {} bytes: {error:#}",
                limits.instances_max, limits.memory_bytes_max
            ))
        };
        let engine = engine(&limits).map_err(broken)?;
        let cache = CompiledCache::open(cache_dir, &engine).map_err(|error| {
            RuntimeError::Broken(format!("the folder {} cannot be made: {error}", cache_dir.display()))
        })?;
        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(broken)?;
        let inner = Inner {
            engine,
            linker,
            cache,
            packages,
            limits,
            compiler,
            prepared: Mutex::default(),
            compiling: Turn::default(),
        };
        let slots = Arc::new(Semaphore::new(limits.instances_max as usize));
        let queue = Semaphore::new((limits.instances_max as usize).saturating_mul(WAITING_PER_INSTANCE));
        let threads = limits.instances_max.saturating_add(PREPARING_MAX);
        let threads = Threads::new(threads as usize, THREAD_STACK_BYTES);
        let preparing = Arc::new(Semaphore::new(PREPARING_MAX as usize));
        Ok(Self { runner: Runner { inner: Arc::new(inner) }, threads, slots, queue, preparing })
    }

    /// The installed packages.
    #[must_use]
    pub fn packages(&self) -> &Arc<PackageStore> {
        &self.runner.inner.packages
    }

    /// Checks and compiles a package and keeps it. Blocks the thread for the compilation (tens of milliseconds).
    ///
    /// # Errors
    /// [`InstallError`]; nothing is kept then.
    pub fn install(&self, package: Bytes) -> Result<PackageId, InstallError> {
        let inner = &self.runner.inner;
        let package = Package::open(package, inner.packages.package_bytes_max())?;
        if inner.packages.contains(&package.id) {
            return Err(StoreError::AlreadyInstalled(package.id).into());
        }
        inner.compile(package.component.clone())?;
        inner.packages.save(&package)?;
        tracing::info!(package = %package.id, "chaincode installed");
        Ok(package.id)
    }

    /// Executes one invocation in the calling thread, without a wall-clock limit: for a caller that has a thread to give, with
    /// [`THREAD_STACK_BYTES`] of stack.
    ///
    /// # Errors
    /// This machine cannot execute it now; a failure of the chaincode is a response.
    pub fn execute(&self, invocation: Invocation) -> Result<Execution, RuntimeError> {
        let _slot = self.slots.try_acquire().map_err(|_| RuntimeError::Overloaded)?;
        let frame = self.outermost(&invocation);
        self.runner.run(invocation, &Arc::default(), frame).map(|(execution, _)| execution)
    }

    /// Where the first chaincode of a transaction stands.
    fn outermost(&self, invocation: &Invocation) -> Frame {
        let limits = &self.runner.inner.limits;
        Frame {
            allowance: invocation.allowance,
            memory_ceiling: limits.memory_bytes_max,
            depth: 0,
            fuel: invocation.allowance.fuel.min(limits.fuel_max),
        }
    }

    /// Prepares a package for definitions with a ceiling of the stack, soon and in the background: the first execution then need not wait for
    /// the compiler. A package that cannot be prepared says so when it is executed.
    pub fn prepare_soon(&self, package: &PackageId, stack_bytes: u32) {
        let inner = Arc::clone(&self.runner.inner);
        if inner.entry(package, stack_bytes).made.get().is_some() || !inner.packages.contains(package) {
            return;
        }
        let Ok(turn) = Arc::clone(&self.preparing).try_acquire_owned() else { return };
        let package = package.clone();
        self.threads.begin(move || {
            let _turn = turn;
            if let Err(error) = inner.prepared(&package, stack_bytes) {
                tracing::warn!(%package, stack_bytes, error = %with_causes(&error), "chaincode cannot be prepared");
            }
        });
    }

    /// Waits until a package is prepared, without a slot or a thread for each who waits: other chaincodes go on meanwhile.
    async fn ready(&self, package: &PackageId, stack_bytes: u32) -> Result<(), RuntimeError> {
        let entry = self.runner.inner.entry(package, stack_bytes);
        if entry.made.get().is_some() {
            return Ok(());
        }
        let _first = entry.turn.lock().await;
        if entry.made.get().is_some() {
            return Ok(());
        }
        let turn = Arc::clone(&self.preparing).acquire_owned().await;
        let turn = turn.map_err(|_| RuntimeError::Broken("the runtime is closed".to_owned()))?;
        let (inner, package) = (Arc::clone(&self.runner.inner), package.clone());
        let prepared = self.threads.run(move || {
            let _turn = turn;
            inner.prepared(&package, stack_bytes).map(drop)
        });
        prepared
            .await
            .map_err(|error| RuntimeError::Broken(format!("the preparation ended unexpectedly: {error}")))?
    }

    /// A slot for an execution: one that is free, or the next one if there is a place to wait for it.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, RuntimeError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let _place = self.queue.try_acquire().map_err(|_| RuntimeError::Overloaded)?;
        let slot = Arc::clone(&self.slots).acquire_owned().await;
        slot.map_err(|_| RuntimeError::Broken("the runtime is closed".to_owned()))
    }
}

#[async_trait]
impl ChaincodeRuntime for WasmRuntime {
    async fn invoke(&self, invocation: Invocation) -> Result<Execution, RuntimeError> {
        let limits = &self.runner.inner.limits;
        let budget = Arc::new(Budget::default());
        // Dropping this before the end (the client gave up, or the time is over) ends the execution at its next step.
        let mut end =
            EndOnDrop { engine: &self.runner.inner.engine, budget: Arc::clone(&budget), ended: false };
        let execution = async {
            self.ready(&invocation.package, invocation.allowance.stack_bytes).await?;
            let slot = self.slot().await?;
            let runner = self.runner.clone();
            let frame = self.outermost(&invocation);
            let run = move || {
                // Held by the execution itself: its instance is in use until it really ends.
                let _slot = slot;
                runner.run(invocation, &budget, frame).map(|(execution, _)| execution)
            };
            self.threads
                .run(run)
                .await
                .map_err(|error| RuntimeError::Broken(format!("the execution ended unexpectedly: {error}")))?
        };
        let outcome = tokio::time::timeout(limits.timeout, execution).await;
        end.ended = outcome.is_ok();
        outcome.unwrap_or(Err(RuntimeError::Expired))
    }
}

/// Makes running code stop: the epoch makes every execution look at its own flag.
struct EndOnDrop<'a> {
    engine: &'a Engine,
    budget: Arc<Budget>,
    ended: bool,
}

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.budget.expired.store(true, Ordering::Release);
        self.engine.increment_epoch();
    }
}

/// A package that is ready to be executed, made once for each ceiling of the stack.
#[derive(Default)]
struct Prepared {
    made: OnceLock<Result<ChaincodePre<Sandbox>, PrepareError>>,
    /// Whose turn it is to make it.
    turn: tokio::sync::Mutex<()>,
}

struct Inner {
    engine: Engine,
    linker: Linker<Sandbox>,
    cache: CompiledCache,
    packages: Arc<PackageStore>,
    limits: Limits,
    compiler: Compiler,
    /// By package and ceiling of the stack.
    prepared: Mutex<HashMap<(PackageId, u32), Arc<Prepared>>>,
    compiling: Turn,
}

/// One at a time: a compilation uses all processors already.
#[derive(Default)]
struct Turn {
    taken: Mutex<bool>,
    free: Condvar,
}

impl Turn {
    fn take(&self, longest: Duration) -> bool {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.free.wait_timeout_while(taken, longest, |taken| *taken);
        let (mut taken, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        if outcome.timed_out() {
            return false;
        }
        *taken = true;
        true
    }

    fn give_back(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.free.notify_one();
    }
}

#[derive(Debug, Clone)]
enum PrepareError {
    Unreadable(Arc<StoreError>),
    Invalid(String),
}

impl Inner {
    /// Compiles what is to be installed, within a bound of time. A compilation in this process that takes longer runs to its end, which
    /// [`bounds`] keeps near, and the next one waits for it; one in a process of its own is ended.
    fn compile(self: &Arc<Self>, component: Vec<u8>) -> Result<(), InstallError> {
        bounds::check(&component).map_err(|error| match error {
            BoundsError::Invalid(reason) => InstallError::Invalid(reason),
            other @ BoundsError::TooMuch { .. } => InstallError::TooLarge(other),
        })?;
        if !self.compiling.take(COMPILE_MAX) {
            return Err(InstallError::Slow(COMPILE_MAX));
        }
        let (done, outcome) = mpsc::sync_channel(1);
        let inner = Arc::clone(self);
        let thread = std::thread::Builder::new().name("chaincode-compile".to_owned()).spawn(move || {
            let prepared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                inner.prepare(&component, STACK_BYTES_DEFAULT).map(drop)
            }));
            inner.compiling.give_back();
            let prepared = prepared
                .unwrap_or_else(|_| Err(InstallError::Invalid("the compiler cannot compile it".to_owned())));
            // Nobody may be waiting any more.
            let _ = done.send(prepared);
        });
        if let Err(error) = thread {
            self.compiling.give_back();
            return Err(InstallError::Invalid(format!("no thread can be started: {error}")));
        }
        outcome.recv_timeout(COMPILE_MAX).unwrap_or(Err(InstallError::Slow(COMPILE_MAX)))
    }

    /// Compiles a component and checks that it asks for nothing but the ledger.
    fn prepare(&self, component: &[u8], stack_bytes: u32) -> Result<ChaincodePre<Sandbox>, InstallError> {
        let compiled = self.cache.component(&self.engine, component, stack_bytes, &self.compiler);
        let component = compiled.map_err(|error| match error {
            CompileError::Slow(patience) => InstallError::Slow(patience),
            CompileError::Invalid(reason) => InstallError::Invalid(reason),
        })?;
        let foreign = self.foreign_imports(&component);
        if !foreign.is_empty() {
            return Err(InstallError::Imports(foreign));
        }
        let interface = |error: wasmtime::Error| InstallError::Interface(format!("{error:#}"));
        let instance = self.linker.instantiate_pre(&component).map_err(interface)?;
        ChaincodePre::new(instance).map_err(interface)
    }

    fn foreign_imports(&self, component: &Component) -> Vec<String> {
        let kind = component.component_type();
        let mut foreign: Vec<String> = kind
            .imports(&self.engine)
            .map(|(name, _)| name.to_owned())
            .filter(|name| !name.starts_with(ALLOWED_IMPORTS))
            .collect();
        foreign.sort();
        foreign
    }

    fn entry(&self, package: &PackageId, stack_bytes: u32) -> Arc<Prepared> {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(prepared.entry((package.clone(), stack_bytes)).or_default())
    }

    fn prepared(&self, package: &PackageId, stack_bytes: u32) -> Result<ChaincodePre<Sandbox>, RuntimeError> {
        let entry = self.entry(package, stack_bytes);
        let made = entry.made.get_or_init(|| {
            let component = self
                .packages
                .component(package)
                .map_err(|error| PrepareError::Unreadable(Arc::new(error)))?;
            self.prepare(&component, stack_bytes).map_err(|error| PrepareError::Invalid(error.to_string()))
        });
        made.clone().map_err(|error| {
            // Not remembered: the operator may repair what is wrong without a restart.
            self.prepared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&(package.clone(), stack_bytes));
            match error {
                PrepareError::Unreadable(source) => {
                    RuntimeError::Package { package: package.clone(), source }
                }
                PrepareError::Invalid(reason) => {
                    RuntimeError::Unprepared { package: package.clone(), reason }
                }
            }
        })
    }
}

/// Runs executions, and the calls within them.
#[derive(Clone)]
pub(super) struct Runner {
    inner: Arc<Inner>,
}

impl Runner {
    /// Executes a call from a running chaincode; the second value is the fuel that is left. A failure of this peer ends the caller, too.
    pub(super) fn call(
        &self,
        chaincode: &str,
        package: &PackageId,
        arguments: Vec<Bytes>,
        host: Arc<dyn Host>,
        budget: &Arc<Budget>,
        frame: Frame,
    ) -> wasmtime::Result<(Execution, u64)> {
        let invocation = Invocation {
            chaincode: chaincode.to_owned(),
            package: package.clone(),
            arguments,
            is_init: false,
            allowance: frame.allowance,
            host,
        };
        self.run(invocation, budget, frame).map_err(|error| match error {
            RuntimeError::Expired => Expired.into(),
            other => Broken(with_causes(&other)).into(),
        })
    }

    /// Executes with at most the frame's fuel, and tells what was not burnt.
    fn run(
        &self,
        invocation: Invocation,
        budget: &Arc<Budget>,
        frame: Frame,
    ) -> Result<(Execution, u64), RuntimeError> {
        let Invocation { chaincode, package, arguments, is_init, host, .. } = invocation;
        let prepared = self.inner.prepared(&package, frame.allowance.stack_bytes)?;
        let guest = GuestInvocation {
            arguments: arguments.iter().map(|argument| argument.to_vec()).collect(),
            is_init,
        };
        let arguments = Arc::new(arguments);
        let sandbox =
            Sandbox::new(&chaincode, Arc::clone(&arguments), host, self.clone(), Arc::clone(budget), frame);
        let mut store = self.store(sandbox, budget, frame.fuel)?;
        let result = prepared
            .instantiate(&mut store)
            .map_err(of_instance)
            .and_then(|instance| instance.call_invoke(&mut store, &guest));
        let burnt_to = store.get_fuel().map_err(|error| RuntimeError::Broken(error.to_string()))?;
        let mut sandbox = store.into_data();
        let settled = sandbox.settle(burnt_to.min(frame.fuel));
        let left = settled.as_ref().copied().unwrap_or(0);
        let usage = Usage { fuel: frame.fuel - left, memory_bytes: sandbox.memory_bytes_max };
        let result = result.and_then(|response| match settled {
            Ok(_) => Ok(response),
            Err(bound) => Err(bound.into()),
        });
        let execution = match result {
            Ok(response) => Execution {
                response: Response {
                    status: i32::try_from(response.status).unwrap_or(STATUS_FAILED),
                    message: response.message,
                    payload: response.payload.into(),
                },
                event: sandbox.event,
                usage,
            },
            Err(error) => {
                let response =
                    self.failed(&error, &chaincode, &arguments, sandbox.panic.as_deref(), &frame.allowance)?;
                Execution { response, event: None, usage }
            }
        };
        Ok((execution, left))
    }

    fn store(
        &self,
        sandbox: Sandbox,
        budget: &Arc<Budget>,
        fuel: u64,
    ) -> Result<Store<Sandbox>, RuntimeError> {
        let mut store = Store::new(&self.inner.engine, sandbox);
        store.limiter(|sandbox| sandbox);
        store.set_fuel(fuel).map_err(|error| RuntimeError::Broken(error.to_string()))?;
        let watched = Arc::clone(budget);
        store.epoch_deadline_callback(move |_| {
            if watched.expired.load(Ordering::Acquire) {
                return Err(Expired.into());
            }
            Ok(UpdateDeadline::Continue(1))
        });
        store.set_epoch_deadline(1);
        if budget.expired.load(Ordering::Acquire) {
            return Err(RuntimeError::Expired);
        }
        Ok(store)
    }

    fn failed(
        &self,
        error: &wasmtime::Error,
        chaincode: &str,
        arguments: &[Bytes],
        panic: Option<&str>,
        allowance: &Allowance,
    ) -> Result<Response, RuntimeError> {
        let function = arguments.first().map(|name| String::from_utf8_lossy(name)).unwrap_or_default();
        let function: String = function.chars().take(FUNCTION_SHOWN_CHARACTERS).collect();
        let judged = Judged {
            chaincode,
            function: &function,
            panic,
            fuel: allowance.fuel,
            fuel_ceiling: self.inner.limits.fuel_max,
            stack_bytes: allowance.stack_bytes,
        };
        match judge(error, &judged) {
            Failure::Chaincode(message) => {
                tracing::warn!(%chaincode, %message, "chaincode did not finish");
                Ok(Response { status: STATUS_FAILED, message, payload: Bytes::new() })
            }
            Failure::Peer(text) => Err(RuntimeError::Broken(text)),
            Failure::Expired => Err(RuntimeError::Expired),
        }
    }
}
