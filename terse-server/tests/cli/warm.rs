//! How the hottest codes outlive a server.

use std::time::Duration;

use crate::program::{Place, Server};

const END: Duration = Duration::from_secs(5);
const FILE: &str = "data/warm.codes";

/// The sum of all samples of `name` whose labels hold all of `labels`.
fn metric(server: &Server, name: &str, labels: &[&str]) -> u64 {
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let samples = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
    let wanted = samples.filter(|line| labels.iter().all(|label| line.contains(label)));
    wanted.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// Redirects by the tier that answered, and look-ups of the store.
fn answered(server: &Server) -> (u64, u64, u64) {
    let by = |tier| metric(server, "terse_redirects_total", &[tier]);
    let reads = metric(server, "terse_store_request_seconds_count", &["operation=\"resolve\""]);
    (by("tier=\"l1\""), by("tier=\"store\""), reads)
}

fn ended(server: Server) {
    server.signal("TERM");
    assert_eq!(server.end(END).0.code(), Some(0));
}

/// Waits for the end of loading; asserts how many links were loaded.
#[track_caller]
fn assert_loaded(server: &Server, count: usize) {
    let line = server.logged("warm start ended");
    assert!(line.contains(&format!(r#""loaded":{count},"gone":0,"left":0,"#)), "{line}");
}

/// A place in which a server has run with these links, and another one in which `hot` were asked for.
fn heated(links: &[&str], hot: &[&str]) -> Place {
    let place = Place::new();
    let server = place.serve(&["--drain-delay", "0s"]);
    assert!(links.iter().all(|link| server.create(link, None) == 201));
    ended(server);
    std::fs::remove_file(place.path().join(FILE)).unwrap();
    let server = place.serve(&["--drain-delay", "0s"]);
    for code in hot.iter().cycle().take(20 * hot.len()) {
        assert_eq!(server.get(&format!("/{code}")).0, 302);
    }
    ended(server);
    place
}

#[test]
fn hot_links_are_answered_from_memory_at_the_first_request_after_a_restart() {
    let place = heated(&["hot", "hotter", "cold"], &["hot", "hotter"]);
    let server = place.serve(&["--drain-delay", "0s"]);
    assert_loaded(&server, 2);
    let (l1, store, reads) = answered(&server);
    assert_eq!((l1, store, reads), (0, 0, 2), "what is loaded is no redirect");
    assert_eq!((server.get("/hot").0, server.get("/hotter").0), (302, 302));
    assert_eq!(answered(&server), (2, 0, 2));
    assert_eq!(server.get("/cold").0, 302);
    assert_eq!(answered(&server), (2, 1, 3));
}

#[test]
fn a_server_that_is_killed_leaves_the_list_of_before() {
    let place = heated(&["hot"], &["hot"]);
    for _ in 0..2 {
        let server = place.serve(&[]);
        assert_loaded(&server, 1);
        server.signal("KILL");
        assert_eq!(server.end(END).0.code(), None);
    }
}

#[test]
fn nothing_outdated_is_loaded() {
    let place = heated(&["hot"], &["hot"]);
    let file = place.path().join(FILE);
    let list = std::fs::read(&file).unwrap();
    let server = place.serve(&["--drain-delay", "0s"]);
    assert_eq!(server.request("DELETE", "/api/v1/links/hot", &[], "").0, 204);
    ended(server);
    std::fs::write(&file, list).unwrap();
    let server = place.serve(&[]);
    assert_loaded(&server, 1);
    assert_eq!(server.get("/hot").0, 410);
}

#[test]
fn a_damaged_list_is_one_line_in_the_log_and_never_a_failed_start() {
    let place = heated(&["hot"], &["hot"]);
    let file = place.path().join(FILE);
    let mut list = std::fs::read(&file).unwrap();
    *list.last_mut().unwrap() = b'!';
    std::fs::write(&file, list).unwrap();
    let server = place.serve(&["--drain-delay", "0s"]);
    let line = server.logged("warm.codes");
    assert!(line.contains("WARN") && line.contains("damaged"), "{line}");
    assert_eq!(server.get("/hot").0, 302);
    server.signal("TERM");
    let (status, log) = server.end(END);
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().all(|line| !line.contains("warm")), "{log:?}");
    let server = place.serve(&[]);
    assert_loaded(&server, 1);
}
