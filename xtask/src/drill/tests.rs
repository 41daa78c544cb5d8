//! Which drills are run how, and what is kept of them.

use super::catalogue::tests::entry;
use super::*;

fn options(quick: bool, json: Option<&str>) -> Options {
    Options { drills: vec!["kill-node".into(), "all-down".into()], quick, seed: None, json: json.map(PathBuf::from) }
}

#[test]
fn what_was_asked_for_is_passed_on() {
    let lane = Lane { name: "alone", drills: vec!["scan".into(), "celebrity".into()] };
    let command = |options: Options| {
        options.command(Path::new("/t/drill"), &lane, Path::new("/t/xtask"), Path::new("/t/measured.json"))
    };
    let asked = command(options(true, Some("/t/out.json")));
    let arguments: Vec<_> = asked.get_args().collect();
    assert_eq!(arguments, ["scan", "celebrity", "--quick", "--json", "/t/measured.json"]);
    let plain = command(options(false, None));
    assert_eq!(plain.get_args().count(), 4, "what is measured is kept in any case");
    assert!(plain.get_envs().any(|(name, value)| name == "TERSE_XTASK" && value.is_some()));
    assert!(!plain.get_envs().any(|(name, _)| name == SEED));
    let again = command(Options { seed: Some(7), ..options(true, None) });
    assert!(again.get_envs().any(|(name, value)| name == SEED && value == Some("7".as_ref())));
}

#[test]
fn the_full_form_measures_the_release_build() {
    assert!(options(false, None).server().contains(&"--release"));
    assert!(!options(true, None).server().contains(&"--release"));
}

#[test]
fn the_guards_are_compared_with_the_drill_that_cuts_a_shard_in_full() {
    let entries = [entry("shard-cut", true, 1), entry("scan", false, 1)];
    assert!(options(false, None).compares_guards(&entries));
    assert!(!options(false, None).compares_guards(&entries[1..]) && !options(true, None).compares_guards(&entries));
}

#[test]
fn what_was_measured_is_kept_with_its_charts_machine_date_and_commit() {
    let workspace = Workspace::find().unwrap();
    let place = tempfile::tempdir().unwrap();
    let (folder, file) = (place.path().join("target"), place.path().join("kept.json"));
    let measured: Vec<PathBuf> = ["cluster", "alone"].map(|name| place.path().join(name)).into();
    let told = json!({ "form": "quick", "drills": { "kill-node": draw::tests::run("broken") } });
    fs::write(&measured[0], told.to_string()).unwrap();
    // The other lane was ended before its first drill was.
    let options = options(true, file.to_str());
    let kept = keep(&workspace, &options, &measured, &folder).unwrap();
    assert!(kept.charts == 1 && !kept.in_the_book);
    assert!(folder.join("kill-node.svg").exists() && place.path().join("drills/kill-node.svg").exists());
    let filed = evidence::read(&file).unwrap();
    let drill = &filed["drills"]["kill-node"];
    assert_eq!((&drill["verdict"], &drill["form"]), (&json!("broken"), &json!("quick")));
    assert!(drill["about"]["machine"]["cores"].as_u64() > Some(0) && drill["about"]["date"].as_str() > Some("2026"));
    let commit = drill["about"]["versions"]["commit"].as_str();
    assert!(commit.is_some_and(|commit| commit.len() >= 7), "{filed}");
}

#[test]
fn what_is_not_there_can_be_removed() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("old.svg");
    fs::write(&path, "").unwrap();
    remove(&path).unwrap();
    remove(&path).unwrap();
    assert!(!path.exists() && remove(place.path()).is_err());
}
