//! What becomes of recorded clicks: how fast they are counted, how late, and the rows of a link that was clicked for a
//! year. The parts are put together as the server does.
//!
//! `cargo bench -p terse-server --bench clicks -- project FOLDER CLICKS`; prints one JSON object. Everything is bounded
//! by the arguments, and what is made in FOLDER is removed; of a cluster the caller drops the keyspace, and `rows` is
//! there to leave a file.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

mod cluster;
mod lag;
mod load;
mod local;
mod rows;

use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use serde_json::Value;

/// The allocator of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "project FOLDER CLICKS | lag FOLDER RATE SECONDS PROJECTOR_CORE OTHER_CORE | \
     cluster HOSTS REPLICATION KEYSPACE CLICKS | rows FILE CODE,... | \
     cluster-rows HOSTS REPLICATION KEYSPACE CODE,...";

fn main() -> ExitCode {
    // `cargo bench` adds its own flag.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match run(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(readings) => {
            println!("{readings}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench clicks: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<Value, String> {
    match words {
        ["project", folder, clicks] => local::project(Path::new(folder), number(clicks)?),
        ["lag", folder, rate, seconds, projector, other] => {
            let cores = lag::Cores { projector: number(projector)?, other: number(other)? };
            lag::measure(Path::new(folder), number(rate)?, number(seconds)?, cores)
        }
        ["cluster", hosts, replication, keyspace, clicks] => {
            cluster::project(hosts, number(replication)?, keyspace, number(clicks)?)
        }
        ["rows", file, codes] => rows::write(Path::new(file), codes),
        ["cluster-rows", hosts, replication, keyspace, codes] => {
            rows::write_to_cluster(hosts, number(replication)?, keyspace, codes)
        }
        _ => Err(format!("usage: {USAGE}")),
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is not a number; usage: {USAGE}"))
}

/// An error as text.
pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
