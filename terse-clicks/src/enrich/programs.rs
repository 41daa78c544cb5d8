//! Which agents are programs.
//!
//! Two lists tell them: the patterns of `programs/patterns.txt`, made by `programs/generate.mjs` out of the facts of
//! the npm package crawler-user-agents, and a few [`SIGNS`] that any program may bear. Short patterns count at the
//! beginning of a word only, or names of phones would be taken for programs.

use aho_corasick::AhoCorasick;

/// What kind of program clicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// It reads the web: for a search engine, a model, an archive, an audit.
    Crawler,
    /// It shows what a link leads to where somebody posted it.
    Preview,
    /// It watches whether the target is up.
    Monitoring,
    /// A library or tool that people write programs with.
    Tool,
    /// A browser that fetched ahead: a person may follow, or not.
    Prefetch,
    /// It doesn't say what it is, which no browser does.
    Unnamed,
}

/// The patterns; see the head of the file.
const PATTERNS: &str = include_str!("programs/patterns.txt");

/// Up to this length a pattern counts at the beginning of a word only.
const SHORT_BYTES: usize = 5;

/// What any program may bear, in any case.
const SIGNS: [(&str, Sign, Program); 20] = [
    ("bot", Sign::EndsWord, Program::Crawler),
    ("robot", Sign::EndsWord, Program::Crawler),
    ("crawler", Sign::EndsWord, Program::Crawler),
    ("spider", Sign::EndsWord, Program::Crawler),
    ("scraper", Sign::EndsWord, Program::Crawler),
    ("+http://", Sign::Anywhere, Program::Crawler),
    ("+https://", Sign::Anywhere, Program::Crawler),
    ("linkpreview", Sign::Anywhere, Program::Preview),
    ("link preview", Sign::Anywhere, Program::Preview),
    ("url preview", Sign::Anywhere, Program::Preview),
    ("uptime", Sign::Anywhere, Program::Monitoring),
    ("healthcheck", Sign::Anywhere, Program::Monitoring),
    ("http-client", Sign::Anywhere, Program::Tool),
    ("httpclient", Sign::Anywhere, Program::Tool),
    ("cfnetwork/", Sign::BeginsWord, Program::Tool),
    ("dalvik/", Sign::BeginsWord, Program::Tool),
    ("java/", Sign::BeginsWord, Program::Tool),
    ("php/", Sign::BeginsWord, Program::Tool),
    ("python/", Sign::BeginsWord, Program::Tool),
    ("ruby", Sign::BeginsWord, Program::Tool),
];

/// Where in a word a sign counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Anywhere,
    BeginsWord,
    EndsWord,
}

/// A phone maker, whose name ends like a program's.
const CUBOT: &[u8] = b"cubot";

/// Finds programs.
pub(super) struct Programs {
    patterns: Vec<Pattern>,
    texts: AhoCorasick,
    signs: AhoCorasick,
}

struct Pattern {
    program: Program,
    name: &'static str,
    text: &'static str,
    at_start: bool,
    at_end: bool,
    begins_word: bool,
}

impl Programs {
    /// Compiles the lists.
    ///
    /// # Panics
    /// Never: both are part of the program, and tests compile them.
    pub(super) fn new() -> Self {
        let patterns: Vec<Pattern> = PATTERNS.lines().filter_map(Pattern::read).collect();
        let texts = AhoCorasick::new(patterns.iter().map(|pattern| pattern.text)).expect("the list fits an automaton");
        let mut signs = AhoCorasick::builder();
        let signs = signs.ascii_case_insensitive(true).build(SIGNS.map(|(text, ..)| text));
        Self { patterns, texts, signs: signs.expect("the list fits an automaton") }
    }

    /// Kind and name of the program that `agent` is; `None` if it is none that is known. The name may be empty.
    pub(super) fn find(&self, agent: &[u8]) -> Option<(Program, &'static str)> {
        let listed = self.texts.find_overlapping_iter(agent);
        let listed = listed.filter(|found| self.patterns[found.pattern()].counts(agent, found.start(), found.end()));
        // The first program that an agent names is the one that it is; what follows is whom it resembles.
        let listed = listed.min_by_key(|found| (found.start(), std::cmp::Reverse(found.end())));
        if let Some(found) = listed {
            let pattern = &self.patterns[found.pattern()];
            return Some((pattern.program, pattern.name));
        }
        let mut signs = self.signs.find_overlapping_iter(agent);
        let sign = signs.find(|found| SIGNS[found.pattern()].1.counts(agent, found.start(), found.end()));
        sign.map(|found| (SIGNS[found.pattern()].2, ""))
    }
}

impl Pattern {
    /// Reads a line of the list; `None` if it is a comment.
    fn read(line: &'static str) -> Option<Self> {
        let mut fields = line.split('\t');
        let program = match fields.next()? {
            "crawler" => Program::Crawler,
            "preview" => Program::Preview,
            "monitoring" => Program::Monitoring,
            "tool" => Program::Tool,
            _ => return None,
        };
        let (name, text) = (fields.next()?, fields.next()?);
        let (text, at_start) = text.strip_prefix('^').map_or((text, false), |text| (text, true));
        let (text, at_end) = text.strip_suffix('$').map_or((text, false), |text| (text, true));
        Some(Self { program, name, text, at_start, at_end, begins_word: text.len() <= SHORT_BYTES })
    }

    fn counts(&self, agent: &[u8], start: usize, end: usize) -> bool {
        (!self.at_start || start == 0)
            && (!self.at_end || end == agent.len())
            && (!self.begins_word || begins_word(agent, start))
    }
}

impl Sign {
    fn counts(self, agent: &[u8], start: usize, end: usize) -> bool {
        match self {
            Self::Anywhere => true,
            Self::BeginsWord => begins_word(agent, start),
            Self::EndsWord => {
                let ends = !agent.get(end).is_some_and(u8::is_ascii_alphabetic);
                let tail = &agent[end.saturating_sub(CUBOT.len())..end];
                ends && !tail.eq_ignore_ascii_case(CUBOT)
            }
        }
    }
}

fn begins_word(agent: &[u8], start: usize) -> bool {
    start.checked_sub(1).is_none_or(|before| !agent[before].is_ascii_alphanumeric())
}

/// All that the signs say, to notice a change.
#[cfg(test)]
pub(super) fn signs() -> String {
    format!("{SIGNS:?} {SHORT_BYTES}")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_line_of_the_list_is_read_and_finds_itself() {
        let programs = Programs::new();
        let lines = PATTERNS.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(programs.patterns.len(), lines);
        assert!(lines > 1_500);
        for pattern in &programs.patterns {
            assert!(!pattern.name.is_empty() && pattern.name.len() <= 64, "{}", pattern.name);
            assert!(pattern.text.len() >= 3 && !pattern.text.contains(['^', '$', '[', '*', '|']), "{}", pattern.text);
            assert!(programs.find(pattern.text.as_bytes()).is_some(), "{}", pattern.text);
        }
        let texts: HashSet<_> = PATTERNS.lines().collect();
        assert_eq!(texts.len(), PATTERNS.lines().count(), "a line stands twice");
    }

    #[test]
    fn programs_are_told_by_kind_and_name() {
        let programs = Programs::new();
        for (agent, kind, name) in [
            ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", Program::Crawler, "Googlebot"),
            ("facebookexternalhit/1.1 Facebot Twitterbot/1.0", Program::Preview, "facebookexternalhit"),
            ("WhatsApp/2.23.20.0", Program::Preview, "WhatsApp"),
            ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", Program::Preview, "Slackbot"),
            (
                "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
                Program::Monitoring,
                "UptimeRobot",
            ),
            ("curl/8.5.0", Program::Tool, "curl"),
            ("python-requests/2.31.0", Program::Tool, "python-requests"),
            ("k6/1.8.1 (https://k6.io/) acmebot", Program::Crawler, ""),
            ("AcmeSpider", Program::Crawler, ""),
            ("Mozilla/5.0 (compatible; Acme/1.0; +https://acme.example/)", Program::Crawler, ""),
            ("Mail/3654 CFNetwork/1490 Darwin/23.2.0", Program::Tool, ""),
            ("Dalvik/2.1.0 (Linux; U; Android 13; SM-A536B)", Program::Tool, ""),
        ] {
            assert_eq!(programs.find(agent.as_bytes()), Some((kind, name)), "{agent}");
        }
    }

    #[test]
    fn names_of_phones_and_apps_are_no_programs() {
        let programs = Programs::new();
        for agent in [
            "Mozilla/5.0 (Linux; Android 12; CUBOT X30) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 12; CUBOT_NOTE_7) AppleWebKit/537.36 Chrome/120.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 15; CPH2557 Build/AP3A.240617.008; wv) Chrome/142.0 Mobile Safari/537.36 Instagram",
            "Mozilla/5.0 (Linux; Android 16; Pixel 10) Chrome/146.0 Mobile Safari/537.36 MetaIAB Facebook",
            "Mozilla/5.0 (Linux; Android 9; KFMAWI) AppleWebKit/537.36 Silk/120.1 like Chrome/120.0 Safari/537.36",
            "Mozilla/5.0 (Linux; Android 9; Robotics Pad) AppleWebKit/537.36 Chrome/120.0 Safari/537.36",
            "Mozilla/5.0 (X11; Linux x86_64) MyBW/1.2 Chrome/120.0 Safari/537.36",
        ] {
            assert_eq!(programs.find(agent.as_bytes()), None, "{agent}");
        }
    }

    #[test]
    fn anchors_and_words_are_minded() {
        let programs = Programs::new();
        assert_eq!(programs.find(b"Silk/1.0"), Some((Program::Crawler, "Silk")));
        assert_eq!(programs.find(b"x Silk/1.0"), None);
        assert_eq!(programs.find(b"Acme SSL Labs"), Some((Program::Crawler, "SSL Labs")));
        assert_eq!(programs.find(b"SSL Labs Acme"), None);
        assert_eq!(programs.find(b"Acme ds9"), Some((Program::Crawler, "ds9")));
        assert_eq!(programs.find(b"Acmeds9"), None);
        assert_eq!(programs.find(b""), None);
    }
}
