//! The book that `terse serve` shows, and what looks at its pages: each kind of slip is found.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use terse_it::pages::look;
use terse_it::{Request, Setup};

/// How long a diagram that is never drawn is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

fn book(pages: &[(&str, &str)]) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    for (name, body) in pages {
        let path = place.path().join("book").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let head = "<!doctype html><meta name=viewport content='width=device-width'><link rel=icon href='data:,'>";
        fs::write(path, format!("{head}<body style='margin:0'><main>{body}</main>")).unwrap();
    }
    place
}

fn slips(place: &Path) -> (usize, Vec<String>) {
    look(&place.join("book"), &place.join("pictures"), PATIENCE)
}

#[test]
fn pages_that_are_as_they_should_be_have_no_slips() {
    let wide = "<pre style='overflow-x:auto'><span style='padding-left:3000px'>wide</span></pre>";
    let scripted = "<p id=p></p><script>document.getElementById('p').textContent = 'ran'</script>";
    let place = book(&[("index.html", wide), ("deep/page.html", scripted), ("toc.html", "<img src=none.png>")]);
    assert_eq!(slips(place.path()), (2, vec![]));
    let mut pictures: Vec<_> =
        fs::read_dir(place.path().join("pictures")).unwrap().map(|e| e.unwrap().file_name()).collect();
    pictures.sort();
    assert_eq!(pictures, ["deep-page-desktop.jpg", "deep-page-phone.jpg", "index-desktop.jpg", "index-phone.jpg"]);
}

#[test]
fn what_is_unfit_for_paper_is_found() {
    let fit = "<p>dark</p><pre class=mermaid><svg width=90 height=90></svg></pre><script>\
               document.documentElement.dataset.diagrams = 'light'; window.print()</script>";
    assert_eq!(slips(book(&[("print.html", fit)]).path()), (1, vec![]));
    let unfit = "<p style='color:#ccc'>pale</p><pre style='width:90px;overflow-x:auto'>this-is-cut-off-on-paper</pre>";
    let (_, told) = slips(book(&[("print.html", unfit)]).path());
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].ends_with("are to be light when it prints itself: \"it never does\""), "{told:?}");
    assert!(told[1].contains("px of pre are cut off: this-is-cut") && told[2].ends_with("too light, such as: pale"));
}

#[test]
fn each_kind_of_slip_is_found_on_its_page() {
    let place = book(&[
        ("wide.html", "<div style='width:700px'>too wide for a phone</div>"),
        ("told.html", "<script>console.error('something is wrong')</script>"),
        ("missing.html", "<img src=none.png alt=none>"),
        (
            "dumb.html",
            "<img src='data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%229%22 height=%229%22/>'>",
        ),
        ("undrawn.html", "<pre class=mermaid>flowchart</pre>"),
        ("small.html", "<figure class=chart><svg viewBox='0 0 9000 90'><text y=50>tiny</text></svg></figure>"),
        ("foreign.html", "<img src='http://127.0.0.1:9/x.png' alt=x>"),
    ]);
    let (pages, slips) = slips(place.path());
    assert_eq!(pages, 7);
    for (page, told) in [
        ("wide.html, phone, dark", "px too wide: div too wide for a phone"),
        ("wide.html, phone, light", "px too wide"),
        ("told.html, desktop, dark", "something is wrong"),
        ("missing.html, desktop, light", "none.png is missing"),
        ("missing.html, desktop, dark", "404"),
        ("dumb.html, desktop, light", "says nothing to those who don't see it"),
        ("undrawn.html, desktop, dark", "a diagram is not drawn: flowchart"),
        ("small.html, phone, dark", "a text of a chart is too small: tiny"),
        ("small.html, phone, dark", "a chart says nothing"),
        ("foreign.html, desktop, dark", "Content Security Policy"),
    ] {
        assert!(slips.iter().any(|slip| slip.starts_with(page) && slip.contains(told)), "{page}: {told}: {slips:#?}");
    }
    assert!(!slips.iter().any(|slip| slip.starts_with("wide.html, desktop")), "{slips:#?}");
}

#[test]
fn the_book_is_shown_where_the_server_finds_it() {
    let place = book(&[("index.html", "<p>the book</p>")]);
    let server = Setup::new().env("TERSE_DOCS_DIR", &place.path().join("book").display().to_string()).start();
    let page = server.client().get("/docs/").expect(200);
    assert!(page.text().contains("the book") && page.header("etag").is_some());
    assert_eq!(server.client().send(Request::new("GET", "/docs")).expect(308).header("location"), Some("/docs/"));
    // Out of the box it is looked for where a clone builds it.
    let setup = Setup::new();
    let beside = setup.place().join("target/book");
    fs::create_dir_all(beside.parent().unwrap()).unwrap();
    fs::rename(place.path().join("book"), &beside).unwrap();
    let server = setup.start();
    assert!(server.client().get("/docs/").expect(200).text().contains("the book"));
    drop(server);
    let without = setup.env("TERSE_DOCS_DIR", "none").start();
    assert_eq!(without.client().get("/docs/").status, 404);
}
