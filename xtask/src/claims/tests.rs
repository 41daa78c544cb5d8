//! What claims may look like, how they are checked and how they are shown.

use serde_json::json;

use super::value::significant;
use super::*;

const ONE: &str = r#"
    [[claim]]
    id = "rate"
    text = "links a second"
    kind = "estimated"
    command = "terse estimate --json"
    at = "results/links_per_second/value"
    unit = "/s"
    check = { equals = 38.6, within = 0.01 }
"#;

fn claim_with(check: &str) -> Claims {
    Claims::parse(&ONE.replace("{ equals = 38.6, within = 0.01 }", check)).unwrap()
}

fn found(check: &str, value: f64) -> Vec<String> {
    let text = format!("{ONE}{}", ONE.replace("\"rate\"", "\"other\""));
    let claims = Claims::parse(&text.replacen("{ equals = 38.6, within = 0.01 }", check, 1)).unwrap();
    problems(claims.get("rate").unwrap(), &Values::known([("rate", value), ("other", 10.0)], BTreeMap::new())).unwrap()
}

#[test]
fn each_check_holds_or_says_what_is_wrong() {
    for (check, right, wrong) in [
        ("{ equals = 38.6, within = 0.01 }", 38.58, 39.1),
        ("{ equals = 38.6 }", 38.6, 38.9),
        ("{ at_least = 2.0 }", 2.0, 1.9),
        ("{ at_most = 2.0 }", 2.0, 2.1),
        ("{ below = \"other\" }", 9.0, 10.0),
        ("{ above = \"other\" }", 11.0, 10.0),
        ("{ ratio = { of = \"other\", at_least = 2.0, at_most = 3.0 } }", 25.0, 31.0),
        ("{ at_least = 1.0, at_most = 2.0 }", 1.5, 2.5),
    ] {
        assert_eq!(found(check, right), Vec::<String>::new(), "{check}");
        let problems = found(check, wrong);
        assert!(problems.len() == 1 && problems[0].contains(&wrong.to_string()), "{check}: {problems:?}");
    }
}

#[test]
fn a_claim_that_makes_no_sense_is_refused_by_name() {
    for (from, to, told) in [
        ("{ equals = 38.6, within = 0.01 }", "{}", "there is no check"),
        ("{ equals = 38.6, within = 0.01 }", "{ below = \"nobody\" }", "there is no claim 'nobody'"),
        ("\"estimated\"", "\"measured\"", "command, file and at"),
        ("\"estimated\"", "\"cited\"", "source and value"),
        ("at = ", "place = ", "place"),
        ("\"rate\"", "\"The Rate\"", "a name has letters"),
        ("at = \"results/links_per_second/value\"", "", "command and at"),
        ("unit =", "source = \"README.md\"\nunit =", "comes with what it contains"),
    ] {
        let text = ONE.replace(from, to);
        assert_ne!(text, ONE);
        let error = format!("{:#}", Claims::parse(&text).unwrap_err());
        assert!(error.contains(told), "{told}: {error}");
    }
    let twice = format!("{ONE}{ONE}");
    assert!(format!("{:#}", Claims::parse(&twice).unwrap_err()).contains("stands once"));
}

#[test]
fn a_place_goes_through_names_and_lists() {
    let claims = claim_with("{ at_least = 0.0 }");
    let claim = |at: &str| {
        let text = ONE.replace("results/links_per_second/value", at);
        Claims::parse(&text).unwrap()
    };
    let json = json!({"contenders": [{"name": "a, b", "spread": {"p99": 7.5}}, {"name": "c"}], "list": [1, 2],
        "results": {"links_per_second": {"value": 38.58}}});
    let look = |at: &str| claim(at).get("rate").unwrap().look_up(&json);
    assert!((claims.get("rate").unwrap().look_up(&json).unwrap() - 38.58).abs() < 1e-9);
    assert!((look("contenders/a, b/spread/p99").unwrap() - 7.5).abs() < 1e-9);
    assert!((look("list/1").unwrap() - 2.0).abs() < 1e-9);
    for nowhere in ["contenders/d", "list/2", "contenders/c/name", "list", "list/1/x", ""] {
        assert!(look(nowhere).unwrap_err().to_string().contains("claim 'rate'"), "{nowhere}");
    }
}

#[test]
fn numbers_are_shown_with_their_digits_and_unit() {
    for (value, digits, text) in [
        (38.580_2, 3, "38.6"),
        (3_858.02, 4, "3,858"),
        (11_574.0, 3, "11,600"),
        (0.003_407, 2, "0.0034"),
        (-1_234.5, 3, "-1,230"),
        (0.0, 3, "0"),
        (9.999, 3, "10"),
        (12e9, 3, "12,000,000,000"),
        (2.0, 3, "2"),
    ] {
        assert_eq!(significant(value, digits), text);
    }
    assert_eq!(claim_with("{ at_most = 1.0 }").get("rate").unwrap().shown(38.58), "38.6/s");
    let claims = Claims::parse(&ONE.replace("\"/s\"", "\"GB\"")).unwrap();
    assert_eq!(claims.get("rate").unwrap().shown(6.0), "6 GB");
}

#[test]
fn a_command_is_cut_into_words_and_quotes_keep_blanks() {
    assert_eq!(words("terse estimate --json").unwrap(), ["terse", "estimate", "--json"]);
    assert_eq!(words("terse x 'a b' c").unwrap(), ["terse", "x", "a b", "c"]);
    assert!(words("terse 'x").is_err() && words("  ").is_err());
}

#[test]
fn the_books_own_claims_make_sense_and_are_many() {
    let workspace = Workspace::find().unwrap();
    let claims = Claims::read(&workspace).unwrap();
    assert!(claims.all().count() >= 80, "{}", claims.all().count());
    assert!(cited_texts_stand_in_their_sources(&workspace, &claims).is_ok());
    let kinds: BTreeSet<char> = claims.all().map(|claim| claim.kind.letter()).collect();
    assert_eq!(kinds.into_iter().collect::<String>(), "CEMS");
}

#[test]
fn every_measured_claim_finds_its_value() {
    let workspace = Workspace::find().unwrap();
    let claims = Claims::read(&workspace).unwrap();
    for claim in claims.all().filter(|claim| claim.kind == Kind::Measured) {
        let json = read_json(&workspace, claim.file.as_deref().unwrap()).unwrap();
        claim.look_up(&json).unwrap();
    }
}
