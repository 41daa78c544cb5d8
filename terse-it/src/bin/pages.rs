//! `pages BOOK PICTURES`: what `cargo xtask book look` runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line's output is its result")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use terse_it::pages::look;

/// Exit code of a command line that can't be understood.
const USAGE: u8 = 64;
/// How long the diagrams of a page may take to be drawn.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [book, pictures] = &arguments[..] else {
        eprintln!("usage: pages BOOK PICTURES");
        return ExitCode::from(USAGE);
    };
    let began = Instant::now();
    let (pages, slips) = look(book, pictures, PATIENCE);
    for slip in &slips {
        println!("FAIL  {slip}");
    }
    let seconds = began.elapsed().as_secs();
    println!("{pages} pages at two widths, light and dark, {} slips, {seconds} s", slips.len());
    println!("pictures are in {}", pictures.display());
    if slips.is_empty() && pages > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
