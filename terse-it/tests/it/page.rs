//! The page at `/` in headless Chromium: phone and desktop, light and dark,
//! with and without scripts. The pictures are left for people to look at.

use std::path::PathBuf;

use serde_json::json;
use terse_it::{Browser, Server, Setup, Tab, code_of};

/// Where the pictures go: `target/screenshots`.
fn pictures() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let directory = executable.ancestors().nth(3).unwrap().join("screenshots");
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn take_picture(tab: &mut Tab, name: &str) {
    let picture = tab.picture();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n") && picture.len() > 2_000, "{name}: {} bytes", picture.len());
    std::fs::write(pictures().join(format!("{name}.png")), picture).unwrap();
}

fn page_of(server: &Server) -> String {
    format!("http://{}/", server.address())
}

/// Nothing may stick out to the side.
fn assert_fits(tab: &mut Tab, what: &str) {
    let widths = tab.value("[document.documentElement.scrollWidth, window.innerWidth]");
    assert!(widths[0].as_u64() <= widths[1].as_u64(), "{what} is wider than its window: {widths}");
}

fn fill_and_send(tab: &mut Tab, url: &str) {
    let script = format!(
        "(() => {{ const f = document.querySelector('form'); f.querySelector('[name=url]').value = {}; \
         (f.querySelector('[type=submit]') || f.querySelector('button')).click(); }})()",
        json!(url)
    );
    tab.leave_by(&script);
}

#[test]
fn the_page_fits_desktop_and_phone_in_light_and_dark() {
    let server = Setup::new().start();
    let browser = Browser::start();
    let mut tab = browser.open_tab();
    for (device, width, height, phone) in
        [("desktop", 1_280, 800, false), ("phone", 390, 844, true), ("narrow", 320, 568, true)]
    {
        tab.resize(width, height, phone);
        let mut colours = Vec::new();
        for scheme in ["light", "dark"] {
            let what = format!("{device}-{scheme}");
            tab.prefer(scheme);
            tab.go(&page_of(&server));
            assert_eq!(tab.value("document.querySelectorAll('form [name=url]').length"), 1, "{what}");
            assert_eq!(tab.value("window.innerWidth"), width, "{what}: the page sets no viewport of its own");
            assert_fits(&mut tab, &what);
            colours.push(
                tab.value("getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color"),
            );
            take_picture(&mut tab, &format!("page-{what}"));
            fill_and_send(&mut tab, &format!("https://example.com/{}", "a-rather-long-path/".repeat(20)));
            assert_fits(&mut tab, &format!("{what} with a result"));
            take_picture(&mut tab, &format!("result-{what}"));
            fill_and_send(&mut tab, &format!("ftp://example.com/{}", "long".repeat(60)));
            assert_fits(&mut tab, &format!("{what} with a fault"));
            take_picture(&mut tab, &format!("fault-{what}"));
        }
        assert_ne!(colours[0], colours[1], "{device}: dark looks like light");
    }
    assert_eq!(server.client().all_links(50).len(), 6);
}

#[test]
fn the_form_works_with_and_without_scripts() {
    let server = Setup::new().start();
    let client = server.client();
    let browser = Browser::start();
    let mut tab = browser.open_tab();
    for (scripts, target) in [(true, "https://example.com/with?a=1&b=%2f"), (false, "https://example.com/without?<i>")]
    {
        tab.scripts(scripts);
        tab.go(&page_of(&server));
        fill_and_send(&mut tab, target);
        let newest = client.all_links(1).remove(0);
        let short = newest["short_url"].as_str().unwrap().to_owned();
        let shown = tab.value("document.body.innerText").as_str().unwrap().to_owned();
        let valued = tab.value("[...document.querySelectorAll('input,a')].map(e => e.value || e.href).join(' ')");
        assert!(
            shown.contains(&short) || valued.as_str().unwrap().contains(&short),
            "{short} is not in {shown} {valued}"
        );
        assert_eq!(tab.value("document.querySelectorAll('i').length"), 0, "the target became markup");
        assert_eq!(client.target(&code_of(&newest)), target);
        fill_and_send(&mut tab, "javascript:alert(1)");
        let shown = tab.value("document.body.innerText").as_str().unwrap().to_owned();
        assert!(shown.to_lowercase().contains("http"), "the fault is explained: {shown}");
        let kept = tab.value("document.querySelector('form [name=url]').value");
        assert_eq!(kept, "javascript:alert(1)", "what was typed stays in the form");
    }
    assert_eq!(client.all_links(50).len(), 2);
}

#[test]
fn the_copy_button_tells_that_it_has_copied() {
    let server = Setup::new().start();
    let browser = Browser::start();
    let mut tab = browser.open_tab();
    tab.go(&page_of(&server));
    fill_and_send(&mut tab, "https://example.com/");
    let find = "[...document.querySelectorAll('button')].find(b => /copy/i.test(b.textContent + b.ariaLabel))";
    assert_eq!(tab.value(&format!("!!{find}")), true, "there is no copy button");
    let links = tab.value("[...document.querySelectorAll('a')].map(a => a.getAttribute('href')).join(' ')");
    assert!(links.as_str().unwrap().contains("/api/docs"), "{links}");
    tab.value(&format!("{find}.click()"));
}

#[test]
fn the_page_loads_nothing_from_elsewhere_and_says_so_in_its_policy() {
    let server = Setup::new().start();
    let client = server.client();
    let page = client.get("/").expect(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    let policy = page.header("content-security-policy").unwrap_or_else(|| panic!("no policy in {page:?}"));
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let browser = Browser::start();
    let mut tab = browser.open_tab();
    tab.go(&page_of(&server));
    let loaded = tab.value("performance.getEntriesByType('resource').map(e => e.name)");
    let own = page_of(&server);
    for name in loaded.as_array().unwrap() {
        assert!(name.as_str().unwrap().starts_with(&own), "{name} is loaded from elsewhere");
    }
    assert_eq!(tab.value("document.documentElement.lang !== '' && document.title !== ''"), true);
}
