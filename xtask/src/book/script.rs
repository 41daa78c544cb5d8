//! How long the interview's script is: what is spoken, at the pace of speech, is to fill the interview.

use super::pages::Page;

/// The page.
const SCRIPT: &str = "script.md";
/// Words that people speak in a minute.
const WORDS_PER_MINUTE: f64 = 110.0;
/// How long the interview is, and by how much of that the script may be longer or shorter.
const MINUTES: f64 = 38.0;
const TOLERANCE: f64 = 0.1;
/// Words that a value is spoken with.
const WORDS_OF_VALUE: usize = 3;

/// A spoken line: `**MM:SS Who:** …`.
struct Line<'a> {
    stamp: &'a str,
    second: u32,
    said: &'a str,
}

/// What is wrong with the script, a line each.
#[must_use]
pub fn problems(pages: &[Page]) -> Vec<String> {
    pages.iter().filter(|page| page.path == SCRIPT).flat_map(|page| problems_of(&page.text)).collect()
}

fn problems_of(text: &str) -> Vec<String> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(line).collect();
    let minutes = lines.iter().map(|line| words(line.said)).sum::<usize>() as f64 / WORDS_PER_MINUTE;
    let mut problems = Vec::new();
    if (minutes - MINUTES).abs() > TOLERANCE * MINUTES {
        problems.push(format!("{SCRIPT}: {minutes:.1} minutes are spoken, {MINUTES} are wanted"));
    }
    for (one, next) in lines.iter().zip(lines.iter().skip(1)).filter(|(one, next)| one.second > next.second) {
        problems.push(format!("{SCRIPT}: {} comes after {}", next.stamp, one.stamp));
    }
    let late = lines.last().filter(|last| f64::from(last.second) >= MINUTES * 60.0);
    problems.extend(late.map(|last| format!("{SCRIPT}: at {} the interview is over", last.stamp)));
    problems
}

fn line(text: &str) -> Option<Line<'_>> {
    let (head, said) = text.strip_prefix("**")?.split_once(":** ")?;
    let (stamp, who) = head.split_once(' ')?;
    let (minute, second) = stamp.split_once(':')?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() == 2);
    let second = number(minute)? * 60 + number(second)?;
    who.chars().all(char::is_alphabetic).then_some(Line { stamp, second, said })
}

/// The words of a line, a value counting as several.
fn words(said: &str) -> usize {
    let mut count = 0;
    for (place, part) in said.split("{{").enumerate() {
        let spoken = if place == 0 { part } else { part.split_once("}}").map_or(part, |(_, spoken)| spoken) };
        count += spoken.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
        count += if place == 0 { 0 } else { WORDS_OF_VALUE };
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script of so many words, a line for each hundred.
    fn script(count: usize) -> String {
        let line = |place: usize| format!("**{:02}:00 Candidate:** {}\n", place * 100 / 110, "word ".repeat(100));
        (0..count / 100).map(line).collect()
    }

    #[test]
    fn a_script_that_is_a_tenth_too_long_or_short_is_a_problem() {
        assert_eq!(problems_of(&script(4_100)), Vec::<String>::new());
        for (count, told) in
            [(3_700, "33.6 minutes are spoken"), (4_800, "43.6 minutes are spoken"), (0, "0.0 minutes")]
        {
            assert!(problems_of(&script(count)).iter().any(|problem| problem.contains(told)), "{told}");
        }
    }

    #[test]
    fn only_spoken_lines_count_and_a_value_is_three_words() {
        assert_eq!(line("**01:05 Interviewer:** Why?").map(|line| (line.second, line.said)), Some((65, "Why?")));
        for text in
            ["01:05 Interviewer: Why?", "**Listen for.** x", "**1:05 A:** x", "**aa:05 A:** x", "> **01:05 A** x"]
        {
            assert!(line(text).is_none(), "{text}");
        }
        assert_eq!(words("Say {{claim links-month}} links – a month, {{claim x}}."), 10);
    }

    #[test]
    fn stamps_that_go_back_or_beyond_the_end_are_problems() {
        let told = problems_of("**02:00 A:** x\n**01:00 B:** y\n**38:00 A:** z\n");
        assert_eq!(told[1..], ["script.md: 01:00 comes after 02:00", "script.md: at 38:00 the interview is over"]);
    }

    #[test]
    fn the_script_of_the_book_fills_the_interview() {
        let text = include_str!("../../../docs/script.md");
        assert_eq!(problems_of(text), Vec::<String>::new());
        assert!(text.lines().filter_map(line).count() > 100);
    }
}
