use std::path::Path;

use serde_json::{Value, json};
use terse_it::{Browser, Tab, heavy_turn};

use super::Run;
use super::wrong::{Fault, serve};

/// A phone's width in CSS pixels.
const PHONE: u32 = 360;
/// The charts that any run has data for.
const CHARTS: [&str; 3] = ["Rate", "Latency", "Redirects by tier"];

fn open<'a>(tab: &mut Tab, page: &Path, charts: impl IntoIterator<Item = &'a &'a str>) {
    tab.go(&format!("file://{}", page.display()));
    for chart in charts {
        let points = format!(
            "[...document.querySelectorAll('svg[aria-label=\"{chart}\"] path.line')]\
             .map(line => line.getTotalLength()).reduce((a, b) => a + b, 0)"
        );
        assert!(tab.value(&points).as_f64() > Some(10.0), "{chart} shows nothing");
    }
    assert_eq!(tab.errors(), [] as [String; 0], "the console has errors");
    let fetched = "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))";
    assert_eq!(tab.value(fetched), json!([]), "it needs nothing from elsewhere");
}

#[test]
fn a_report_can_be_read_anywhere() {
    let _turn = heavy_turn();
    let kept = tempfile::tempdir().unwrap();
    let mut run = Run::on_own_server("smoke", "goose", &["--seconds", "3", "--p99-ms", "5000"]);
    run.command.arg("--file").arg(kept.path());
    run.finish(true);
    let browser = Browser::start();
    let mut tab = browser.open_tab();
    let mut papers = Vec::new();
    for (width, phone, scheme) in [(1_280, false, "light"), (PHONE, true, "dark")] {
        tab.resize(width, 800, phone);
        tab.prefer(scheme);
        open(&mut tab, &run.page(), &CHARTS);
        let overflow = tab.value("document.scrollingElement.scrollWidth - innerWidth");
        assert!(overflow.as_f64() <= Some(0.0), "{overflow} pixels too wide for {width}");
        papers.push(tab.value("getComputedStyle(document.body).backgroundColor"));
        let letters = tab.value(
            "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))",
        );
        assert!(letters.as_f64() >= Some(8.0), "{letters} pixels are too small");
    }
    assert_ne!(papers[0], papers[1], "the dark is dark");
    let verdict = tab.value("document.querySelector('.verdict').textContent");
    assert_eq!(verdict, "passed");
    let data = tab.value("JSON.parse(document.getElementById('data').textContent).result.requests");
    assert_eq!(data, run.report()["result"]["requests"], "the raw numbers are in it");
    open(&mut tab, &kept.path().join("smoke-goose.svg"), &CHARTS);
    assert_eq!(tab.value("document.documentElement.nodeName"), "svg", "the charts that are kept are a picture");
    let numbers: Value = serde_json::from_slice(&std::fs::read(kept.path().join("smoke-goose.json")).unwrap()).unwrap();
    assert_eq!(numbers["result"]["requests"], run.report()["result"]["requests"]);
}

#[test]
fn what_a_hostile_server_says_is_shown_and_not_run() {
    let _turn = heavy_turn();
    let url = format!("http://{}", serve(Fault::Fine));
    let mut run = Run::new("smoke", "goose", &["--seconds", "2", "--url", &url]);
    let output = run.finish(false);
    assert!(super::said(&output).contains("failed"), "{}", super::said(&output));
    let browser = Browser::start();
    let mut tab = browser.open_tab();
    open(&mut tab, &run.page(), &["Rate", "Refused, wrong, late"]);
    assert_eq!(tab.value("document.title"), "terse under load: smoke");
    assert_eq!(tab.value("document.querySelectorAll('img').length"), 0);
    assert!(tab.value("document.body.innerText").as_str().unwrap().contains("</script><script>document.title"));
    assert_eq!(tab.value("document.querySelector('.verdict').textContent"), "failed");
}
