//! The checks of the book with samples that violate them, and the book itself.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::charts::Charts;
use super::pages::{Page, anchors, code_spans, links, names, replaced, without_code};
use super::slips::{bare_numbers, problems};
use super::*;

const CHARTS: &str = r#"
    [[chart]]
    id = "rates"
    title = "Rates"
    alt = "One bar."
    bar = [{ name = "links", claim = "rate" }]
"#;

const CLAIMS: &str = r#"
    [[claim]]
    id = "rate"
    text = "links a second"
    kind = "cited"
    source = "https://example.com/"
    value = 38.6
    unit = "/s"

    [[output]]
    id = "table"
    command = "terse estimate"
"#;

fn no_charts() -> Charts {
    Charts::parse("chart = []", &|file| anyhow::bail!("there is no {file}")).unwrap()
}

fn found(text: &str) -> Vec<String> {
    bare_numbers(text).into_iter().map(|(_, text)| text).collect()
}

fn slips_of(text: &str) -> Vec<String> {
    let workspace = Workspace::find().unwrap();
    let page = Page { path: "page.md".to_owned(), text: format!("{text}\n{{{{claim rate}}}} {{{{output table}}}}") };
    problems(&workspace, &[page], &Claims::parse(CLAIMS).unwrap(), &no_charts())
}

#[test]
fn a_number_with_a_unit_is_found_wherever_it_stands() {
    for (text, number) in [
        ("it takes 40 ms.", "40 ms"),
        ("| 36.5 TB |", "36.5 TB"),
        ("(99.9 %)", "99.9 %"),
        ("99.9%, they say", "99.9 %"),
        ("3,858/s at the peak", "3,858 /s"),
        ("**12 billion** rows", "12 billion"),
        ("40 a second", "40 a"),
        ("40 per second", "40 per"),
        ("about ~5s", "5 s"),
        ("a [link](x.md) of 3 MB", "3 MB"),
    ] {
        assert_eq!(found(text), [number], "{text}");
    }
}

#[test]
fn numbers_without_a_unit_and_code_are_left_alone() {
    for text in [
        "a 302, not a 301",
        "`40 ms`",
        "```\n40 ms\n```",
        "5 minutes",
        "7 characters",
        "{{claim rate}} a second",
        "step 2 a reader takes",
        "see [this](page-40.md) s",
        "chapter 8: 48 questions",
        "RFC 3339",
    ] {
        assert_eq!(found(text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(bare_numbers("one\n\n40 ms")[0].0, 3, "the line is told");
}

#[test]
fn names_that_nobody_knows_and_links_to_nowhere_are_problems() {
    assert_eq!(slips_of("fine, see [the list](SUMMARY.md) and `terse-core/src/ports.rs`"), Vec::<String>::new());
    for (text, told) in [
        ("{{claim nothing}}", "there is nothing for 'claim nothing'"),
        ("{{price rate}}", "there is nothing for 'price rate'"),
        ("[x](nowhere.md)", "the link nowhere.md leads nowhere"),
        ("[x](#nowhere)", "no heading for #nowhere"),
        ("`terse-core/src/nothing.rs`", "there is no terse-core/src/nothing.rs"),
        ("40 ms", "page.md:1: '40 ms' is no claim"),
    ] {
        let slips = slips_of(text);
        assert!(slips.len() == 1 && slips[0].contains(told), "{told}: {slips:?}");
    }
}

#[test]
fn a_claim_that_no_page_needs_is_a_problem() {
    let workspace = Workspace::find().unwrap();
    let slips = problems(&workspace, &[], &Claims::parse(CLAIMS).unwrap(), &no_charts());
    assert_eq!(slips, ["no page needs 'rate'", "no page needs 'table'"]);
}

#[test]
fn pages_with_measurements_of_their_own_may_have_numbers() {
    let page = |path: &str| Page { path: path.to_owned(), text: String::new() };
    assert!(page("adr/0001.md").is_exempt() && page("threat-model.md").is_exempt());
    assert!(!page("estimate.md").is_exempt());
}

#[test]
fn code_is_told_from_text() {
    assert_eq!(without_code("a `b` c\n```\nd\n```\ne"), "a   c\n\n\n\ne");
    assert_eq!(code_spans("a `b` c `d/e`\n```\n`x`\n```"), ["b", "d/e"]);
    assert_eq!(links("[a](b.md), `[c](d)`, [e](https://f)"), ["b.md", "https://f"]);
    assert_eq!(
        names("x {{claim a}} {{ output b }} {{claims}}"),
        [
            ("claim".to_owned(), "a".to_owned()),
            ("output".to_owned(), "b".to_owned()),
            ("claims".to_owned(), String::new()),
        ]
    );
}

#[test]
fn headings_have_the_anchors_of_mdbook() {
    let text = "# 301 or 302?\n## Why, and how\n```\n# no\n```\n## Why, and how";
    assert_eq!(anchors(text), ["301-or-302", "why-and-how", "why-and-how-1"]);
}

#[test]
fn what_stands_in_braces_is_replaced_and_nothing_else() {
    let put = |word: &str, name: &str| Ok(format!("<{word} {name}>"));
    assert_eq!(replaced("a {{claim x}}, {{ claims }} b", &put).unwrap(), "a <claim x>, <claims > b");
    assert_eq!(replaced("{{open", &put).unwrap(), "{{open");
    assert!(replaced("{{x}}", &|_, _| anyhow::bail!("no")).is_err());
}

#[test]
fn mdbooks_message_comes_back_with_values_and_decisions() {
    let workspace = Workspace::find().unwrap();
    let chapter = |path: &str, text: &str, beneath: Value| {
        json!({"Chapter": {"name": "N", "path": path, "source_path": path, "content": text, "number": [3],
            "sub_items": beneath, "parent_names": []}})
    };
    let text = "x {{claim rate}}\n\n{{chart rates}}\n```mermaid\na --> b\n```";
    let inner = chapter("deep/page.md", text, json!([]));
    let items =
        json!(["Separator", chapter("a.md", "{{claims}}", json!([inner])), chapter("adr/README.md", "", json!([]))]);
    let message = json!([{"root": "/"}, {"items": items}]).to_string();
    let claims = Claims::parse(CLAIMS).unwrap();
    let values = Values::known([("rate", 38.6)], BTreeMap::new());
    let charts = Charts::parse(CHARTS, &|file| anyhow::bail!("there is no {file}")).unwrap();
    let sources = preprocess::Sources { claims: &claims, values: &values, charts: &charts };
    let preprocess = |message: &str| preprocess::preprocess(&workspace, message, &sources);
    let book: Value = serde_json::from_str(&preprocess(&message).unwrap()).unwrap();
    let first = &book["items"][1]["Chapter"];
    let row =
        "| <a id=\"rate\"></a>*rate*<br>links a second | 38.6/s | cited<br>[example.com](https://example.com/) |\n";
    assert!(first["content"].as_str().unwrap().contains(row), "{first}");
    let deep = first["sub_items"][0]["Chapter"]["content"].as_str().unwrap();
    assert!(deep.starts_with("x 38.6/s<sup><a href=\"../claims.html#rate\" title=\"cited\">C</a></sup>\n"), "{deep}");
    assert!(deep.contains(">38.6/s</text>") && deep.contains("<pre class=\"mermaid\">a --&gt; b</pre>"), "{deep}");
    let decisions = book["items"][2]["Chapter"]["sub_items"].as_array().unwrap();
    assert!(decisions.len() >= 14);
    assert_eq!(decisions[0]["Chapter"]["number"], json!([3, 1]));
    assert_eq!(decisions[0]["Chapter"]["name"], "Redirects are answered in front of the router");
    let unknown = message.replace("claim rate", "claim nothing");
    let error = preprocess(&unknown).unwrap_err();
    assert!(format!("{error:#}").contains("deep/page.md: there is no claim 'nothing'"), "{error:#}");
    assert!(preprocess("{}").is_err());
}

#[test]
fn the_books_own_pages_have_no_slips() {
    let workspace = Workspace::find().unwrap();
    let claims = Claims::read(&workspace).unwrap();
    let charts = Charts::read(&workspace).unwrap();
    let slips = problems(&workspace, &pages::read(&workspace).unwrap(), &claims, &charts);
    assert!(slips.is_empty(), "{slips:#?}");
}

#[test]
fn another_program_is_not_taken_for_mdbook() {
    assert!(!is_wanted(&"/bin/true".into()));
    assert!(!is_wanted(&"/no/such/program".into()));
}
