//! Clicks as people make them: codes by Zipf's law, some agents, sites and languages, many clients.

use terse_core::click::{Click, Signals};
use terse_core::{ShortCode, Timestamp, Version};
use terse_testkit::SeededEntropy;

/// How many codes are clicked.
pub(crate) const CODES: usize = 50_000;
/// Sites that link.
const SITES: u64 = 150;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

const AGENTS: [&[u8]; 12] = [
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 \
      Safari/537.36 Edg/141.0.0.0",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 \
      Safari/605.1.15",
    b"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 \
      Safari/537.36",
    b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    b"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 \
      Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (iPad; CPU OS 17_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 \
      Mobile/15E148 Safari/604.1",
    b"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36",
    b"Mozilla/5.0 (Linux; Android 13; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 \
      Chrome/130.0.0.0 Mobile Safari/537.36",
    b"Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0",
    b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
];

const LANGUAGES: [&[u8]; 6] = [
    b"en-GB,en-US;q=0.9,en;q=0.8,de;q=0.7",
    b"en-US,en;q=0.9",
    b"de-AT,de;q=0.9,en;q=0.8",
    b"fr-FR,fr;q=0.9,en;q=0.6",
    b"es-ES,es;q=0.9",
    b"ja,en-US;q=0.7,en;q=0.3",
];

/// Who clicks what.
#[derive(Clone, Copy)]
pub(crate) struct Drawn {
    code: usize,
    client: u64,
}

/// Clicks, drawn one after the other; the same sequence each time.
pub(crate) struct Load {
    codes: Vec<ShortCode>,
    referrers: Vec<String>,
    cumulated: Vec<f64>,
    random: SeededEntropy,
    counts: Vec<u64>,
}

impl Load {
    pub(crate) fn new() -> Self {
        let mut sum = 0.0;
        let weights = (1..=CODES).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Self {
            cumulated: weights.collect(),
            codes: (0..CODES as u64).map(scattered).collect(),
            referrers: (0..SITES).map(|site| format!("https://www.site{site}.example.org/news?page={site}")).collect(),
            random: SeededEntropy::new(1),
            counts: vec![0; CODES],
        }
    }

    pub(crate) fn draw(&mut self) -> Drawn {
        let total = self.cumulated.last().copied().unwrap_or(1.0);
        let point = (self.random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        let code = self.cumulated.partition_point(|sum| *sum <= point).min(CODES - 1);
        Drawn { code, client: self.random.next_u64() }
    }

    /// The click that was drawn.
    pub(crate) fn click(&self, drawn: Drawn, at: Timestamp) -> Click<'_> {
        let Drawn { code, client } = drawn;
        let [a, b, c, d, site, agent, language, _] = client.to_le_bytes();
        // Squared, so that the first are the most popular.
        let pick = |byte: u8, count: usize| usize::from(byte) * usize::from(byte) * count / (256 * 256);
        Click {
            at,
            code: self.codes[code].as_str(),
            version: Version::FIRST,
            client: Some([a | 1, b, c, d].into()),
            referrer: self.referrers[pick(site, self.referrers.len())].as_bytes(),
            user_agent: AGENTS[pick(agent, AGENTS.len())],
            language: LANGUAGES[pick(language, LANGUAGES.len())],
            signals: Signals::default(),
        }
    }

    /// Notes that the click was recorded.
    pub(crate) fn count(&mut self, drawn: Drawn) {
        self.counts[drawn.code] += 1;
    }

    /// Each code and how often it was clicked, the likeliest first.
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&ShortCode, u64)> {
        self.codes.iter().zip(self.counts.iter().copied())
    }
}

/// The code of this number, scattered as generated codes are.
fn scattered(number: u64) -> ShortCode {
    let mut rest = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letters: String = (0..7)
        .map(|_| {
            let letter = LETTERS[(rest % 62) as usize];
            rest /= 62;
            char::from(letter)
        })
        .collect();
    terse_testkit::links::code(&letters)
}
