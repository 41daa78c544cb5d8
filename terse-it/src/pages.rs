//! Every page of the built book in a browser: on a desktop and on a phone, light and dark, from `terse serve` with the
//! policy that it sends, and once from the disk.
//!
//! A page must say nothing of errors, fit its window (what is wide scrolls in a box of its own), have all its pictures
//! and diagrams drawn, and load nothing from elsewhere. The page of all pages must be fit for paper, too, for who reads
//! in the dark as well: nothing is cut off, letters are dark, and it prints itself once its diagrams are drawn.
//!
//! Both windows go through the pages at once. Bounds: a page's diagrams are waited for as long as the caller says.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Browser, LOOK_AGAIN, Server, Setup, Tab, joined};

/// mdBook's table of contents for those without scripts: a frame, no page.
const NO_PAGE: &str = "toc.html";

/// How long what is wrong must stay so to count.
const MOMENT: Duration = Duration::from_millis(500);

/// What is wrong with the page that is shown, as a list of texts.
const SLIPS: &str = r#"(() => {
    const slips = [];
    const name = (e) => [e.localName, e.id && '#' + e.id, e.getAttribute('class')].filter(Boolean).join(' ');
    const boxes = '.table-wrapper, pre, .sidebar, svg';
    const main = document.querySelector('main') || document.body;
    const edges = () => main.getBoundingClientRect().left + main.clientWidth + 1;
    const sticksOut = (e) => e.getBoundingClientRect().right > edges() && !e.parentElement.closest(boxes);
    const frames = [document.documentElement, document.body];
    frames.push(...document.querySelectorAll('.page-wrapper, .page, .content, main'));
    for (const frame of frames.filter((frame) => frame.scrollWidth > frame.clientWidth + 1)) {
        const widest = [...main.querySelectorAll('*')].find(sticksOut);
        const because = widest ? name(widest) + ' ' + widest.textContent.trim().slice(0, 40) : '?';
        slips.push(`${name(frame)} is ${frame.scrollWidth - frame.clientWidth} px too wide: ${because}`);
    }
    for (const image of document.images) {
        if (!image.complete || image.naturalWidth === 0) slips.push(`the picture ${image.src} is missing`);
        if (!image.alt) slips.push(`the picture ${image.src} says nothing to those who don't see it`);
    }
    for (const diagram of document.querySelectorAll('pre.mermaid')) {
        const svg = diagram.querySelector('svg');
        if (!svg || svg.getBoundingClientRect().width < 10 || /Syntax error/.test(diagram.textContent)) {
            slips.push('a diagram is not drawn: ' + diagram.textContent.trim().slice(0, 60));
        }
    }
    for (const chart of document.querySelectorAll('.chart svg')) {
        const small = [...chart.querySelectorAll('text')].find((text) => text.getBoundingClientRect().height < 9);
        if (small) slips.push(`a text of a chart is too small: ${small.textContent}`);
        if (!chart.getAttribute('aria-label')) slips.push('a chart says nothing to those who don\'t see it');
    }
    const own = location.protocol === 'file:' ? 'file:' : location.origin + '/';
    for (const { name } of performance.getEntriesByType('resource')) {
        if (!name.startsWith(own) && !name.startsWith('data:')) slips.push(`${name} is loaded from elsewhere`);
    }
    return slips;
})()"#;

/// The page of all pages, which prints itself.
const PRINTED: &str = "print.html";
/// What an A4 page has room for between its margins, in pixels of CSS.
const PAPER_PX: [u32; 2] = [672, 980];
/// In place of the browser's way to print: it notes in which colours the diagrams are by then.
const NOTE_PRINT: &str = "window.print = () => { window.printed = document.documentElement.dataset.diagrams || ''; }";

/// What is wrong with the page on paper, where nothing scrolls and backgrounds are left out, as a list of texts.
const SLIPS_ON_PAPER: &str = r#"(() => {
    const slips = [];
    const told = (e) => e.textContent.trim().slice(0, 40);
    for (const box of document.querySelectorAll('main .table-wrapper, main pre, main .chart')) {
        const cut = box.scrollWidth - box.clientWidth;
        if (cut > 1) slips.push(`${cut} px of ${box.getAttribute('class') || box.localName} are cut off: ${told(box)}`);
    }
    const isLight = (e) => getComputedStyle(e).color.match(/[0-9.]+/g).slice(0, 3).every((part) => part > 140);
    const texts = 'main p, main li, main td, main th, main h1, main h2, main code, main code span, main .chart text';
    const light = [...document.querySelectorAll(texts)].filter((e) => isLight(e) && told(e));
    if (light.length > 0) slips.push(`${light.length} texts are too light, such as: ${told(light[0])}`);
    return slips;
})()"#;

/// A window.
#[derive(Clone, Copy, Debug)]
struct Device {
    name: &'static str,
    width: u32,
    height: u32,
    phone: bool,
    /// The colours that a page is opened in, and those that are chosen then. A picture is taken of the latter.
    schemes: [&'static str; 2],
}

const DEVICES: [Device; 2] = [
    Device { name: "desktop", width: 1_280, height: 900, phone: false, schemes: ["dark", "light"] },
    Device { name: "phone", width: 390, height: 844, phone: true, schemes: ["light", "dark"] },
];

/// Opens every page of `book` and leaves pictures in `pictures`. Returns how many pages there are, and what is wrong, a
/// line each; diagrams are waited for as long as `patience`.
#[must_use]
pub fn look(book: &Path, pictures: &Path, patience: Duration) -> (usize, Vec<String>) {
    let pages = pages(book);
    fs::create_dir_all(pictures).unwrap_or_else(|e| panic!("{}: {e}", pictures.display()));
    let server = Setup::new().env("TERSE_DOCS_DIR", &book.display().to_string()).start();
    // A browser for each window: a tab that is not in front draws when it likes.
    let visit = || {
        let browser = Browser::start();
        Visit { tab: browser.open_tab(), _browser: browser, patience, slips: Vec::new() }
    };
    let (visit, pages, server) = (&visit, &pages, &server);
    let mut slips: Vec<String> = thread::scope(|scope| {
        let start = |device| scope.spawn(move || visit_all(visit(), device, pages, server, pictures));
        let windows = DEVICES.map(start);
        windows.into_iter().flat_map(|window| joined(window.join())).collect()
    });
    let mut last = visit();
    last.open_from_disk(book, pages);
    if pages.iter().any(|page| page == PRINTED) {
        last.print(&url(server, PRINTED));
    }
    slips.extend(last.slips);
    (pages.len(), slips)
}

/// Opens all pages in one window; what is wrong, a line each.
fn visit_all(mut visit: Visit, device: Device, pages: &[String], server: &Server, pictures: &Path) -> Vec<String> {
    visit.tab.resize(device.width, device.height, device.phone);
    for page in pages {
        visit.open(device, page, &url(server, page));
        visit.recolour(device, page);
        let picture = visit.tab.whole_picture();
        let name = page.trim_end_matches(".html").replace('/', "-");
        let path = pictures.join(format!("{name}-{}.jpg", device.name));
        fs::write(&path, picture).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    visit.slips
}

fn url(server: &Server, page: &str) -> String {
    format!("http://{}/docs/{page}", server.address())
}

/// The pages beneath `book`, by their paths in it, in order.
fn pages(book: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![book.to_path_buf()];
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path();
            let relative = path.strip_prefix(book).unwrap_or(&path).display().to_string();
            if path.is_dir() {
                open.push(path);
            } else if relative.ends_with(".html") && relative != NO_PAGE {
                found.push(relative);
            }
        }
    }
    found.sort();
    found
}

/// A tab that goes from page to page.
struct Visit {
    tab: Tab,
    _browser: Browser,
    patience: Duration,
    slips: Vec<String>,
}

impl Visit {
    /// Opens the page in the first colours of `device`.
    fn open(&mut self, device: Device, page: &str, url: &str) {
        let before = self.tab.errors().len();
        self.tab.prefer(device.schemes[0]);
        self.tab.go(url);
        self.check(device, page, device.schemes[0], before);
    }

    /// Has the page that is open change its colours.
    fn recolour(&mut self, device: Device, page: &str) {
        let before = self.tab.errors().len();
        self.tab.prefer(device.schemes[1]);
        self.check(device, page, device.schemes[1], before);
    }

    /// Opens one page with a diagram from the disk, as a reader without a server does.
    fn open_from_disk(&mut self, book: &Path, pages: &[String]) {
        let has_diagram =
            |page: &&String| fs::read_to_string(book.join(page)).is_ok_and(|text| text.contains("class=\"mermaid\""));
        if let Some(page) = pages.iter().find(has_diagram) {
            let device = Device { name: "from the disk", ..DEVICES[0] };
            self.open(device, page, &format!("file://{}", book.join(page).display()));
        }
    }

    /// Opens the page that prints itself, as a reader with dark colours does.
    fn print(&mut self, url: &str) {
        self.tab.run_first(NOTE_PRINT);
        self.tab.resize(PAPER_PX[0], PAPER_PX[1], false);
        self.tab.print("dark");
        self.tab.go(url);
        let began = Instant::now();
        while self.tab.value("window.printed === undefined") == true && began.elapsed() < self.patience {
            sleep(LOOK_AGAIN);
        }
        let printed = self.tab.value("window.printed ?? 'it never does'");
        if printed != "light" {
            self.slips.push(format!("{PRINTED}: its diagrams are to be light when it prints itself: {printed}"));
        }
        let cut = self.lasting_slips(PRINTED, SLIPS_ON_PAPER);
        self.slips.extend(cut.iter().map(|slip| format!("{PRINTED}, on paper: {slip}")));
    }

    fn check(&mut self, device: Device, page: &str, scheme: &str, errors_before: usize) {
        self.await_diagrams(scheme, errors_before);
        let shown = self.lasting_slips(page, SLIPS);
        let errors = self.tab.errors()[errors_before..].iter().map(|error| format!("the console tells: {error}"));
        let found: Vec<String> = shown.into_iter().chain(errors).collect();
        self.slips.extend(found.iter().map(|slip| format!("{page}, {}, {scheme}: {slip}", device.name)));
    }

    /// What is wrong with the page that is shown, and still is after a moment: its boxes may follow a change of colours
    /// a little later.
    fn lasting_slips(&mut self, page: &str, slips: &str) -> Vec<String> {
        let began = Instant::now();
        loop {
            let told = self.tab.value(slips);
            let told = told.as_array().unwrap_or_else(|| panic!("{page}: no list: {told}"));
            if told.is_empty() || began.elapsed() > MOMENT {
                return told.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            }
            sleep(LOOK_AGAIN);
        }
    }

    /// Waits until the diagrams have these colours, or something has failed.
    fn await_diagrams(&mut self, scheme: &str, errors_before: usize) {
        // What is for paper is always light.
        let drawn = format!(
            "!document.querySelector('pre.mermaid') || location.pathname.endsWith('/print.html') \
             && document.documentElement.dataset.diagrams === 'light' \
             || document.documentElement.dataset.diagrams === '{scheme}'"
        );
        let began = Instant::now();
        while self.tab.value(&drawn) != true && self.tab.errors().len() == errors_before {
            if began.elapsed() > self.patience {
                break;
            }
            sleep(LOOK_AGAIN);
        }
    }
}
