//! The program `consort`.

use std::process::ExitCode;

/// Most of what this process allocates is small and lives for one request; glibc's allocator spends more on merging the
/// pieces again than requests do on their content (docs/performance.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    consort_cli::run()
}
