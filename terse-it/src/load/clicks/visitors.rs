//! Visitors: what their programs say of themselves with each request.

use crate::{Dice, Request};

/// What the programs of visitors say, in their own order.
const PROGRAMS: [&[(&str, &str)]; 6] = [
    &[
        ("sec-ch-ua", "\"Chromium\";v=\"138\", \"Google Chrome\";v=\"138\", \"Not)A;Brand\";v=\"8\""),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", "\"Windows\""),
        ("Upgrade-Insecure-Requests", "1"),
        (
            "User-Agent",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36",
        ),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Language", "en-US,en;q=0.9"),
    ],
    &[
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "de,en-US;q=0.7,en;q=0.3"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("DNT", "1"),
        ("Sec-GPC", "1"),
        ("Upgrade-Insecure-Requests", "1"),
    ],
    &[
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "fr-FR,fr;q=0.9"),
        ("Accept-Encoding", "gzip, deflate, br"),
        (
            "User-Agent",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1",
        ),
    ],
    &[
        ("Accept-Language", "ja-JP"),
        ("Sec-Purpose", "prefetch"),
        (
            "User-Agent",
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36",
        ),
    ],
    &[
        ("Accept", "*/*"),
        ("User-Agent", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
        ("From", "googlebot(at)googlebot.com"),
    ],
    &[("User-Agent", "curl/8.14.1"), ("Accept", "*/*")],
];

/// Where visitors come from.
const REFERRERS: [&str; 5] = [
    "https://www.example.com/",
    "https://news.example.org/item?id=4242&comments=all",
    "https://t.example.net/",
    "android-app://com.example.reader/",
    "",
];

/// More than is recorded of a text.
const WORDY_BYTES: usize = 600;
/// So many texts a wordy visitor tells apart.
const NUMBERS: u64 = 1_000_000_000;

/// A visitor, with the program that it uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    program: &'static [(&'static str, &'static str)],
    wordy: bool,
}

impl Visitor {
    /// Visitor `number`.
    pub(super) fn numbered(number: u32, wordy: bool) -> Self {
        Self { program: PROGRAMS[number as usize % PROGRAMS.len()], wordy }
    }

    /// A request for `code`, coming from somewhere.
    pub(super) fn request(&self, method: &str, code: &str, dice: &mut Dice) -> Request {
        let mut request = Request::new(method, &format!("/{code}"));
        // What is recorded of a text is its beginning, and of equal texts next to each other one.
        let number = if self.wordy { dice.below(NUMBERS) } else { 0 };
        for (name, value) in self.program {
            request = match (self.wordy, *name) {
                (true, "User-Agent") => request.header(name, &format!("{number} {value:x<WORDY_BYTES$}")),
                _ => request.header(name, value),
            };
        }
        if self.wordy {
            let path = "far-away/".repeat(WORDY_BYTES / "far-away/".len());
            return request.header("Referer", &format!("https://www.example.com/{number}/{path}"));
        }
        match REFERRERS[dice.below(REFERRERS.len() as u64) as usize] {
            "" => request,
            referrer => request.header("Referer", referrer),
        }
    }
}
