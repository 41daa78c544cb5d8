//! The newest clicks of a link.

use serde_json::{Value, json};
use terse_testkit::links::link;

use crate::server::Server;
use crate::server::counts::Seen;

const CLICKS: &str = "/api/v1/links/abc/clicks";

fn server() -> Server {
    let server = Server::start();
    server.put(&link("abc"));
    server
}

fn click<'a>(at: &'a str, values: [&'a str; 6]) -> Seen<'a> {
    Seen { at, visitor: 1, bot: false, values }
}

#[test]
fn the_newest_clicks_come_first_and_tell_what_is_known() {
    let server = server();
    assert_eq!(server.get(CLICKS).value(), json!({"items": []}));
    let values = ["news.example", "DE", "Firefox", "Linux", "desktop", "de"];
    server.counted.count("abc", click("2026-01-02T03:00:00.25Z", values));
    server.counted.count("abc", Seen { bot: true, ..click("2026-01-02T04:00:00Z", ["", "", "Googlebot", "", "", ""]) });
    server.counted.count("abc", click("2026-01-02T02:00:00Z", [""; 6]));
    server.counted.count("other", click("2026-01-02T05:00:00Z", values));
    let nothing = json!({"at": "2026-01-02T02:00:00Z", "referrer": null, "country": null, "browser": null,
        "system": null, "device": null, "language": null, "bot": false});
    let bot = json!({"at": "2026-01-02T04:00:00Z", "referrer": null, "country": null, "browser": "Googlebot",
        "system": null, "device": null, "language": null, "bot": true});
    let known = json!({"at": "2026-01-02T03:00:00.25Z", "referrer": "news.example", "country": "DE",
        "browser": "Firefox", "system": "Linux", "device": "desktop", "language": "de", "bot": false});
    let answer = server.get(CLICKS);
    assert_eq!(answer.value(), json!({"items": [bot, known, nothing]}));
    assert_eq!((answer.header("cache-control"), answer.header("vary")), (Some("no-store"), Some("Accept")));
}

#[test]
fn as_many_clicks_are_told_as_are_asked_for() {
    let server = server();
    for second in 0..120 {
        let at = format!("2026-01-02T03:{:02}:{:02}Z", second / 60, second % 60);
        server.counted.count("abc", click(&at, [""; 6]));
    }
    let told = |query: &str| -> Vec<Value> {
        server.get(&format!("{CLICKS}{query}")).value()["items"].as_array().unwrap().clone()
    };
    assert_eq!((told("").len(), told("?limit=1").len(), told("?limit=100").len()), (50, 1, 100));
    assert_eq!(told("?limit=1")[0]["at"], "2026-01-02T03:01:59Z");
}

#[test]
fn a_limit_out_of_bounds_is_refused() {
    let server = server();
    for limit in ["0", "101", "-1", "", "x", "1e1", "0000001", "%2B5"] {
        server.get(&format!("{CLICKS}?limit={limit}")).assert_faults(&["limit: out_of_bounds"]);
    }
    let faults = ["cursor: unknown_field", "limit: duplicate_field", "limit: out_of_bounds"];
    server.get(&format!("{CLICKS}?cursor=1&limit=1&limit=x")).assert_faults(&faults);
    server.get(&format!("{CLICKS}?limit=%ff")).assert_faults(&["query: malformed"]);
    assert_eq!(server.counted.asked(), 0);
}

#[test]
fn what_clients_sent_does_no_harm_in_a_spreadsheet_or_browser() {
    let server = server();
    let hostile =
        ["=HYPERLINK(\"http://evil.example\",\"x\")", "@SUM(1)", "<script>alert(1)</script>", "a,b", "-1", "\tx"];
    server.counted.count("abc", click("2026-01-02T03:00:00Z", hostile));
    let answer = server.ask("GET", CLICKS).header("Accept", "text/csv").send();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/csv; charset=utf-8")));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"abc-clicks.csv\""));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let expected = "at,referrer,country,browser,system,device,language,bot\r\n2026-01-02T03:00:00Z,\
                    \"'=HYPERLINK(\"\"http://evil.example\"\",\"\"x\"\")\",'@SUM(1),<script>alert(1)</script>,\
                    \"a,b\",'-1,'\tx,false\r\n";
    assert_eq!(answer.body, expected);
    let json = server.get(CLICKS);
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(json.value()["items"][0]["browser"], "<script>alert(1)</script>", "JSON is told as it is");
}
