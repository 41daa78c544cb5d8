use super::*;

fn options(words: &[&str]) -> Result<Options, clap::Error> {
    use clap::{Args as _, FromArgMatches as _};
    let command = Options::augment_args(clap::Command::new("load"));
    let matches = command.try_get_matches_from(std::iter::once("load").chain(words.iter().copied()))?;
    Options::from_arg_matches(&matches)
}

#[test]
fn every_script_is_a_scenario_and_the_library_is_none() {
    let names = scenarios(&Workspace::find().unwrap()).unwrap();
    let wanted = ["campaign", "cold-scan", "create-burst", "hot-link", "limit", "smoke", "soak", "steady"];
    assert_eq!(names, wanted);
}

#[test]
fn what_is_asked_for_is_understood() {
    let asked = options(&["steady", "--tool", "k6", "--rate", "5", "--store", "cassandra"]).unwrap();
    assert_eq!((asked.tool, asked.rate, asked.store.as_deref()), (Some(Tool::K6), Some(5), Some("cassandra")));
    let compared = options(&["--compare", "a.json", "b.json"]).unwrap();
    assert_eq!(compared.compare.map(|paths| paths.len()), Some(2));
    assert!(options(&[]).is_err(), "neither scenario nor comparison");
    assert!(options(&["smoke", "--url", "http://a", "--server", "/b"]).is_err());
    assert!(options(&["smoke", "--pid", "1"]).is_err(), "a process without a server");
    assert!(options(&["--compare", "a.json"]).is_err());
    assert!(options(&["smoke", "--seconds", "0"]).is_err());
}

#[test]
fn all_are_run_one_after_the_other_and_the_soak_last() {
    let names = || scenarios(&Workspace::find().unwrap()).unwrap();
    let all = chosen(names(), "all").unwrap();
    assert_eq!((all.len(), all.last().map(String::as_str)), (names().len(), Some("soak")));
    assert_eq!(chosen(names(), "limit").unwrap(), ["limit"]);
    let asked = options(&["all", "--report", "a.html"]).unwrap();
    let error = run(&Workspace::find().unwrap(), &Supervisor::unwatched(), &asked).unwrap_err().to_string();
    assert!(error.starts_with("--report is for one scenario"), "{error}");
}

#[test]
fn only_the_soak_is_shortened_where_only_that_is_asked_for() {
    let (workspace, supervisor) = (Workspace::find().unwrap(), Supervisor::unwatched());
    let seconds = |words: &[&str], scenario: &str| {
        let (options, cores) = (options(words).unwrap(), Cores { server: 0, generator: 1 });
        let (workspace, supervisor) = (&workspace, &supervisor);
        Run { workspace, supervisor, options: &options, cores, folder: PathBuf::new() }.job(scenario).seconds
    };
    let words = ["all", "--soak-seconds", "120"];
    assert_eq!((seconds(&words, "soak"), seconds(&words, "steady")), (Some(120), None));
    assert_eq!((seconds(&["all", "--seconds", "5"], "soak"), seconds(&["soak"], "soak")), (Some(5), None));
    assert!(options(&["all", "--seconds", "5", "--soak-seconds", "5"]).is_err());
}

#[test]
fn the_address_of_a_server_is_found() {
    assert_eq!(address_of("http://127.0.0.1:8080").unwrap(), "127.0.0.1:8080".parse().unwrap());
    assert_eq!(address_of("http://127.0.0.1/x").unwrap(), "127.0.0.1:80".parse().unwrap());
    assert_eq!(address_of("http://[::1]:81").unwrap(), "[::1]:81".parse().unwrap());
    assert!(address_of("https://127.0.0.1").unwrap_err().to_string().contains("only http://"));
}

#[test]
fn what_cannot_be_run_is_told_before_anything_is_built() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = |words: &[&str]| {
        let (workspace, supervisor) = (Workspace::find().unwrap(), Supervisor::unwatched());
        run(&workspace, &supervisor, &options(words).unwrap()).unwrap_err().to_string()
    };
    let url = format!("http://{nobody}/");
    assert_eq!(refused(&["smoke", "--url", &url]), format!("{url}: no server there"));
    assert!(refused(&["smoke", "--url", "127.0.0.1:8080"]).contains("only http://"));
    assert!(refused(&["smoke", "--report", "a.json"]).starts_with("--report names the page"));
}

#[test]
fn an_unknown_scenario_is_refused_with_the_known_ones() {
    let asked = options(&["smok"]).unwrap();
    let error = run(&Workspace::find().unwrap(), &Supervisor::unwatched(), &asked).unwrap_err().to_string();
    assert!(error.starts_with("no scenario \"smok\"; there are campaign, "), "{error}");
}
