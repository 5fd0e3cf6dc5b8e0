//! The binary: everything is in the library.

/// A request's memory comes and goes on one thread; this allocator is made for that (benches/RESULTS.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir::cli::main()
}
