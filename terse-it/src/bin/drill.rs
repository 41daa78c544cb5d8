//! `drill list`, `drill NAME… [--quick] [--json FILE]`: what `cargo xtask drill` runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line's output is its result")]

use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Map, Value, json};
use terse_it::cluster::Cluster;
use terse_it::drills::{self, Drill, Form, find_all};

/// Exit code of a command line that can't be understood.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Wanted::List) => {
            drills::all().for_each(|drill| println!("{:<22}{}", drill.name, drill.about));
            ExitCode::SUCCESS
        }
        Ok(Wanted::Run { drills, form, json }) => run(&drills, form, json.as_deref()),
        Err(fault) => {
            eprintln!("drill: {fault}; usage: drill list | drill all|NAME... [--quick] [--json FILE]");
            ExitCode::from(USAGE)
        }
    }
}

enum Wanted {
    List,
    Run { drills: Vec<&'static Drill>, form: Form, json: Option<String> },
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let (mut drills, mut form, mut json) = (Vec::new(), Form::Full, None);
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "list" => return Ok(Wanted::List),
            "all" => drills.extend(drills::all()),
            "--quick" => form = Form::Quick,
            "--json" => json = Some(arguments.next().ok_or("--json wants a file")?),
            name => {
                let found = find_all(name);
                if found.is_empty() {
                    return Err(format!("there is no drill '{name}'"));
                }
                drills.extend(found);
            }
        }
    }
    if drills.is_empty() {
        return Err("no drill is named".to_owned());
    }
    Ok(Wanted::Run { drills, form, json })
}

/// Runs the drills one after another; the first that fails ends it, by its panic. What the others measured is written
/// by then.
fn run(drills: &[&Drill], form: Form, json: Option<&str>) -> ExitCode {
    let cluster = drills.iter().any(|drill| drill.needs_cluster).then(Cluster::from_env);
    let mut all = Map::new();
    for drill in drills {
        println!("{}: {}", drill.name, drill.about);
        let began = Instant::now();
        let report = drill.run(cluster.as_ref(), form);
        print!("{report}");
        println!("{}: held, {:.1} s\n", drill.name, began.elapsed().as_secs_f64());
        all.insert(drill.name.to_owned(), report.json());
        let written = json.map_or(Ok(()), |path| write(path, form, &all).map_err(|error| format!("{path}: {error}")));
        if let Err(error) = written {
            eprintln!("drill: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(path: &str, form: Form, drills: &Map<String, Value>) -> std::io::Result<()> {
    std::fs::write(path, json!({ "form": form.pick("quick", "full"), "drills": drills }).to_string())
}
