//! `drill list [NAME…] [--json]`, `drill page FOLDER`, `drill NAME… [--quick] [--json FILE]`: what
//! `cargo xtask drill` runs.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line's output is its result")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Map, Value, json};
use terse_it::cluster::Cluster;
use terse_it::drills::{self, Chart, Drill, Form, find_all};

/// Exit code of a command line that can't be understood.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Wanted::List { drills, json: false }) => {
            print!("{}", drills::list(&drills));
            ExitCode::SUCCESS
        }
        Ok(Wanted::List { drills, json: true }) => {
            println!("{}", drills.iter().copied().map(entry).collect::<Value>());
            ExitCode::SUCCESS
        }
        Ok(Wanted::Page { charts }) => {
            print!("{}", drills::page(Path::new(&charts)));
            ExitCode::SUCCESS
        }
        Ok(Wanted::Run { drills, form, json }) => run(&drills, form, json.as_deref()),
        Err(fault) => {
            eprintln!(
                "drill: {fault}; usage: drill list [NAME...] [--json] | drill page FOLDER | \
                 drill all|NAME... [--quick] [--json FILE]"
            );
            ExitCode::from(USAGE)
        }
    }
}

enum Wanted {
    List { drills: Vec<&'static Drill>, json: bool },
    Page { charts: String },
    Run { drills: Vec<&'static Drill>, form: Form, json: Option<String> },
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let mut arguments = arguments.peekable();
    match arguments.peek().map(String::as_str) {
        Some("list") => parse_list(arguments.skip(1)),
        Some("page") => {
            let charts = arguments.nth(1).ok_or("page wants the folder of the charts")?;
            Ok(Wanted::Page { charts })
        }
        _ => parse_run(arguments),
    }
}

fn parse_list(arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let (mut drills, mut json) = (Vec::new(), false);
    for argument in arguments {
        match argument.as_str() {
            "--json" => json = true,
            name => drills.extend(named(name)?),
        }
    }
    let drills = if drills.is_empty() { drills::all().collect() } else { drills };
    Ok(Wanted::List { drills, json })
}

fn parse_run(mut arguments: impl Iterator<Item = String>) -> Result<Wanted, String> {
    let (mut drills, mut form, mut json) = (Vec::new(), Form::Full, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => form = Form::Quick,
            "--json" => json = Some(arguments.next().ok_or("--json wants a file")?),
            name => drills.extend(named(name)?),
        }
    }
    if drills.is_empty() {
        return Err("no drill is named".to_owned());
    }
    Ok(Wanted::Run { drills, form, json })
}

fn named(name: &str) -> Result<Vec<&'static Drill>, String> {
    let found = if name == "all" { drills::all().collect() } else { find_all(name) };
    if found.is_empty() { Err(format!("there is no drill '{name}'")) } else { Ok(found) }
}

/// A drill as others read it.
fn entry(drill: &Drill) -> Value {
    let seconds = |form| drill.takes.of(form).as_secs();
    json!({
        "name": drill.name, "breaks": drill.breaks, "hypothesis": drill.hypothesis,
        "needs": { "cluster": drill.needs.cluster, "redis": drill.needs.redis, "broker": drill.needs.broker },
        "quick_s": seconds(Form::Quick), "full_s": seconds(Form::Full), "chart": drill.chart == Chart::Timeline,
    })
}

/// Runs the drills one after another, also after one that did not hold. What they measured is written after each.
fn run(drills: &[&Drill], form: Form, json: Option<&str>) -> ExitCode {
    let cluster = drills.iter().any(|drill| drill.needs.cluster).then(Cluster::from_env);
    let (mut all, mut broken) = (Map::new(), Vec::new());
    for (number, drill) in drills.iter().enumerate() {
        println!("{}: {}\n  hypothesis: {}", drill.name, drill.breaks, drill.hypothesis);
        let run = drill.run(cluster.as_ref().filter(|_| drill.needs.cluster), form);
        println!("{run}");
        all.insert(drill.name.to_owned(), run.json());
        let written = json.map_or(Ok(()), |path| write(path, form, &all).map_err(|error| format!("{path}: {error}")));
        if let Err(error) = written {
            eprintln!("drill: {error}");
            return ExitCode::FAILURE;
        }
        if run.held() {
            continue;
        }
        broken.push(drill.name);
        if !is_whole(cluster.as_ref()) {
            eprintln!("drill: the cluster does not come back; not run: {}", names(&drills[number + 1..]));
            break;
        }
    }
    if broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("drill: broken: {}", broken.join(", "));
    ExitCode::FAILURE
}

/// Whether what a drill that failed may have left is made good. Why not is printed.
fn is_whole(cluster: Option<&Cluster>) -> bool {
    catch_unwind(AssertUnwindSafe(|| cluster.into_iter().for_each(Cluster::make_whole))).is_ok()
}

fn names(drills: &[&Drill]) -> String {
    if drills.is_empty() { "none".into() } else { drills.iter().map(|drill| drill.name).collect::<Vec<_>>().join(", ") }
}

/// Writes all or nothing: whoever reads it finds it whole, also when this is ended.
fn write(path: &str, form: Form, drills: &Map<String, Value>) -> std::io::Result<()> {
    let beside = format!("{path}.new");
    std::fs::write(&beside, json!({ "form": form.pick("quick", "full"), "drills": drills }).to_string())?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Wanted, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn drills_are_run_by_their_names_or_all_of_them() {
        let Ok(Wanted::Run { drills, form, json }) = parsed("scan clicks --quick --json /t/x.json") else { panic!() };
        assert!(drills[0].name == "scan" && drills.len() > 20, "{}", names(&drills));
        assert_eq!((form, json.as_deref()), (Form::Quick, Some("/t/x.json")));
        let Ok(Wanted::Run { drills, form, .. }) = parsed("all") else { panic!() };
        assert_eq!((drills.len(), form), (drills::all().count(), Form::Full));
    }

    #[test]
    fn the_list_is_of_all_drills_or_of_those_that_are_named() {
        let Ok(Wanted::List { drills, json }) = parsed("list") else { panic!() };
        assert_eq!((drills.len(), json), (drills::all().count(), false));
        let Ok(Wanted::List { drills, json }) = parsed("list scan --json") else { panic!() };
        assert_eq!((names(&drills).as_str(), json), ("scan", true));
        let told = entry(drills[0]);
        assert_eq!(
            (&told["name"], &told["needs"]["cluster"], &told["chart"]),
            (&json!("scan"), &json!(false), &json!(true))
        );
        assert!(told["hypothesis"].as_str().unwrap().len() > 20 && told["quick_s"].as_u64() > Some(0), "{told}");
    }

    #[test]
    fn what_nobody_knows_is_refused() {
        for line in ["", "--quick", "nothing", "list nothing", "scan --json", "page"] {
            assert!(parsed(line).is_err(), "{line}");
        }
        assert!(matches!(parsed("page docs"), Ok(Wanted::Page { charts }) if charts == "docs"));
    }

    #[test]
    fn what_was_measured_is_replaced_as_a_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("measured.json").to_string_lossy().into_owned();
        for verdict in ["held", "broken"] {
            let drills = Map::from_iter([("scan".to_owned(), json!({ "verdict": verdict }))]);
            write(&path, Form::Quick, &drills).unwrap();
            let told: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!((&told["form"], &told["drills"]["scan"]["verdict"]), (&json!("quick"), &json!(verdict)));
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
