//! The program `terse`. All of it is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    terse_server::run(std::env::args_os().collect(), std::env::vars_os().collect())
}
