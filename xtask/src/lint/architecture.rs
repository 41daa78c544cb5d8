//! The invariants of the architecture that the sources and the dependency
//! graph show. `docs/` and `ARCHITECTURE.md` state them; this keeps them true.

use super::Problems;
use super::source::SourceFile;
use crate::workspace::Graph;

/// A check of the dependency graph.
pub type GraphCheck = (&'static str, fn(&Graph) -> Problems);
/// A check of the sources.
pub type SourceCheck = (&'static str, fn(&[SourceFile]) -> Problems);

/// The checks of the dependency graph, with their names.
pub const GRAPH_CHECKS: &[GraphCheck] = &[
    ("core without i/o", core_does_no_io),
    ("one crate a driver", drivers_have_one_crate),
    ("adapters apart", adapters_know_no_other),
];

/// The checks of the sources, with their names.
pub const SOURCE_CHECKS: &[SourceCheck] = &[
    ("environment read by the server only", only_the_server_reads_the_environment),
    ("metric names in one file", metrics_are_named_in_one_file),
];

/// What `terse-core` must do without, directly and through others. A name that ends in `-` is a prefix.
const NOT_IN_CORE: &[&str] =
    &["actix-", "hyper", "lapin", "libsqlite3-sys", "mio", "redis", "reqwest", "rusqlite", "scylla", "tokio"];

/// Drivers and who may depend on them, in tests too. A name that ends in `-` is a prefix.
const DRIVERS: &[(&str, &[&str])] = &[
    ("rusqlite", &["terse-store"]),
    ("libsqlite3-sys", &["terse-store"]),
    ("scylla", &["terse-store"]),
    ("redis", &["terse-cache"]),
    ("lapin", &["terse-clicks"]),
    ("actix-", &["terse-http"]),
];

/// The adapters: each knows `terse-core` and `terse-resilience`, and none of the others, tests excepted.
const ADAPTERS: &[&str] = &["terse-http", "terse-cache", "terse-store", "terse-clicks"];

/// Who may read the environment: the server, and what only ever runs beside it.
const READ_ENVIRONMENT: &[&str] = &["terse-server", "terse-it", "terse-testkit", "loadtests", "xtask"];

/// Who may use files: those, and the packages that keep data in them.
const USE_FILES: &[&str] = &["terse-server", "terse-it", "terse-testkit", "xtask", "terse-store", "terse-clicks"];

/// The one file of terse-http that reads files: it serves those of the book.
const SERVES_FILES: &str = "terse-http/src/book.rs";

/// The one file that has the metrics' names.
const METRICS_FILE: &str = "terse-core/src/metrics.rs";

fn matches(pattern: &str, name: &str) -> bool {
    if pattern.ends_with('-') { name.starts_with(pattern) } else { name == pattern }
}

fn core_does_no_io(graph: &Graph) -> Problems {
    let cores = graph.ours().filter(|package| package.name == "terse-core");
    let needed = cores.flat_map(|core| graph.needs(core));
    let bad = needed.filter(|package| NOT_IN_CORE.iter().any(|pattern| matches(pattern, &package.name)));
    bad.map(|package| format!("terse-core needs {} {}", package.name, package.version)).collect()
}

fn drivers_have_one_crate(graph: &Graph) -> Problems {
    let mut problems = Problems::new();
    for package in graph.ours() {
        let direct = package.dependencies.iter().filter_map(|arrow| graph.package(&arrow.id));
        for (driver, owners) in direct.flat_map(|needed| {
            DRIVERS
                .iter()
                .filter(|(pattern, _)| matches(pattern, &needed.name))
                .map(move |(_, owners)| (needed, owners))
        }) {
            if !owners.contains(&package.name.as_str()) {
                problems.push(format!(
                    "{} depends on {}, which is for {}",
                    package.name,
                    driver.name,
                    owners.join(", ")
                ));
            }
        }
    }
    problems
}

fn adapters_know_no_other(graph: &Graph) -> Problems {
    let adapters = graph.ours().filter(|package| ADAPTERS.contains(&package.name.as_str()));
    let arrows = adapters.flat_map(|adapter| {
        let built_in = adapter.dependencies.iter().filter(|arrow| arrow.normal);
        built_in.filter_map(|arrow| graph.package(&arrow.id)).map(move |needed| (adapter, needed))
    });
    let bad = arrows.filter(|(_, needed)| ADAPTERS.contains(&needed.name.as_str()));
    bad.map(|(adapter, needed)| format!("{} depends on {}, another adapter", adapter.name, needed.name)).collect()
}

fn only_the_server_reads_the_environment(files: &[SourceFile]) -> Problems {
    let mut problems = Problems::new();
    for (module, allowed) in [("env", READ_ENVIRONMENT), ("fs", USE_FILES)] {
        let is_allowed = |file: &SourceFile| {
            allowed.contains(&file.package.as_str()) || (module == "fs" && file.path.ends_with(SERVES_FILES))
        };
        for file in files.iter().filter(|file| !is_allowed(file)) {
            let places = file.uses_of_std(module);
            problems
                .extend(places.iter().map(|place| format!("{place}: std::{module} outside {}", allowed.join(", "))));
        }
    }
    problems
}

fn metrics_are_named_in_one_file(files: &[SourceFile]) -> Problems {
    let crates: Vec<String> = files.iter().map(|file| file.package.replace('-', "_")).collect();
    // A crate's name as a log target is no metric.
    let is_metric =
        |text: &str| text.starts_with("terse_") && !crates.iter().any(|name| text.starts_with(name.as_str()));
    let others = files.iter().filter(|file| !file.path.ends_with(METRICS_FILE) && file.package != "xtask");
    let places = others.flat_map(|file| file.strings(&is_metric));
    places.map(|place| format!("{place}: a metric's name outside {METRICS_FILE}")).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::workspace::tests::graph;

    fn file(package: &str, path: &str, text: &str) -> SourceFile {
        SourceFile::parse(package, Path::new(path), text, false).unwrap()
    }

    #[test]
    fn a_runtime_that_core_needs_through_others_is_found() {
        let clean = graph(&["terse-core"], &[("terse-core", "url", ""), ("terse-core", "tokio", "dev")]);
        assert!(core_does_no_io(&clean).is_empty());
        let bad = graph(&["terse-core"], &[("terse-core", "x", ""), ("x", "tokio", ""), ("x", "actix-rt", "")]);
        let mut problems = core_does_no_io(&bad);
        problems.sort();
        assert_eq!(problems, ["terse-core needs actix-rt 1.2.3", "terse-core needs tokio 1.2.3"]);
    }

    #[test]
    fn a_driver_outside_its_crate_is_found_even_in_tests() {
        let clean = graph(
            &["terse-store", "terse-http", "terse-server"],
            &[("terse-store", "rusqlite", ""), ("terse-http", "actix-web", ""), ("terse-server", "terse-http", "")],
        );
        assert!(drivers_have_one_crate(&clean).is_empty());
        let bad =
            graph(&["terse-it", "terse-core"], &[("terse-it", "rusqlite", "dev"), ("terse-core", "actix-web", "")]);
        let mut problems = drivers_have_one_crate(&bad);
        problems.sort();
        assert_eq!(
            problems,
            [
                "terse-core depends on actix-web, which is for terse-http",
                "terse-it depends on rusqlite, which is for terse-store"
            ]
        );
    }

    #[test]
    fn a_driver_that_another_package_brings_along_is_no_problem() {
        let graph = graph(&["terse-server"], &[("terse-server", "terse-store", ""), ("terse-store", "rusqlite", "")]);
        assert!(drivers_have_one_crate(&graph).is_empty());
    }

    #[test]
    fn an_adapter_that_another_one_is_built_into_is_found() {
        let clean = graph(
            &["terse-http", "terse-store", "terse-server"],
            &[
                ("terse-http", "terse-core", ""),
                ("terse-http", "terse-store", "dev"),
                ("terse-server", "terse-store", ""),
            ],
        );
        assert!(adapters_know_no_other(&clean).is_empty());
        let bad = graph(&["terse-http", "terse-cache"], &[("terse-http", "terse-cache", "")]);
        assert_eq!(adapters_know_no_other(&bad), ["terse-http depends on terse-cache, another adapter"]);
    }

    #[test]
    fn reading_the_environment_or_files_outside_the_server_is_found() {
        let code = "fn a() { std::env::var(\"X\"); }\nuse std::fs::File;\n";
        let problems = only_the_server_reads_the_environment(&[file("terse-http", "terse-http/src/a.rs", code)]);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("terse-http/src/a.rs:1: std::env outside terse-server"), "{problems:?}");
        assert!(problems[1].starts_with("terse-http/src/a.rs:2: std::fs outside terse-server"), "{problems:?}");
        assert!(only_the_server_reads_the_environment(&[file("terse-server", "a.rs", code)]).is_empty());
    }

    #[test]
    fn of_the_http_adapter_one_file_may_use_files_and_none_the_environment() {
        let found = |path, code| only_the_server_reads_the_environment(&[file("terse-http", path, code)]).len();
        assert_eq!(found(SERVES_FILES, "use std::fs;"), 0);
        assert_eq!(found(SERVES_FILES, "use std::env;"), 1);
        assert_eq!(found("terse-http/src/api/book.rs", "use std::fs;"), 1);
    }

    #[test]
    fn the_store_may_use_files_but_not_the_environment() {
        let store = |code| only_the_server_reads_the_environment(&[file("terse-store", "a.rs", code)]).len();
        assert_eq!(store("use std::fs;"), 0);
        assert_eq!(store("use std::env;"), 1);
    }

    #[test]
    fn a_metric_named_elsewhere_is_found_and_a_log_target_is_not() {
        let metric = "const A: &str = \"terse_redirects_total\";";
        let problems = metrics_are_named_in_one_file(&[
            file("terse-core", METRICS_FILE, metric),
            file("terse-http", "terse-http/src/a.rs", metric),
            file("terse-http", "terse-http/src/b.rs", "const A: &str = \"terse_http=debug\";"),
        ]);
        assert_eq!(problems, ["terse-http/src/a.rs:1: a metric's name outside terse-core/src/metrics.rs"]);
    }
}
