//! Questions to practise the interview with, in a TOML file.
//!
//! A question has choices, or a number that is never written down: it names a
//! preset, inputs that differ from it, and a result, so the answer follows the
//! estimates. A number is right within a fifth: the interview wants the size, not
//! the digits.

mod draw;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::number::{Unit, parse_number};
use crate::presets::Preset;

pub use draw::{Drawn, Grade, draw};

/// Questions of one file.
pub const MAX_QUESTIONS: usize = 1_000;
/// Choices of one question: they are named by letters.
pub const MAX_CHOICES: usize = 6;
/// The steps of the interview.
pub const STEPS: [&str; 5] = ["Clarify", "Estimate", "High level", "Detailed", "Bottlenecks and trade-offs"];
/// How far from the result an answer may be.
const TOLERANCE: f64 = 0.2;

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Its name, unlike all others.
    pub id: String,
    /// The step of the interview that it belongs to, 1 to 5.
    pub step: u8,
    /// The question.
    pub ask: String,
    /// Why the answer is right.
    pub why: String,
    /// What is right.
    pub answer: Answer,
}

/// What is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// One of several.
    Choice {
        /// The choices as the file has them.
        choices: Vec<String>,
        /// The place of the right one.
        right: usize,
    },
    /// A result of an estimate.
    Number {
        /// Its value.
        value: f64,
        /// Its unit.
        unit: Unit,
    },
}

/// What is wrong with a file of questions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuizError {
    /// It is no TOML of the expected form.
    #[error("{0}")]
    Form(String),
    /// A question makes no sense.
    #[error("question '{id}': {problem}")]
    Question {
        /// Which.
        id: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There are too many.
    #[error("more than {MAX_QUESTIONS} questions")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    question: Vec<RawQuestion>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuestion {
    id: String,
    step: u8,
    ask: String,
    why: String,
    choices: Option<Vec<String>>,
    right: Option<usize>,
    preset: Option<String>,
    result: Option<String>,
    #[serde(default)]
    with: BTreeMap<String, f64>,
}

/// Reads a file of questions.
///
/// # Errors
/// [`QuizError`], with the question that it is about.
pub fn parse(text: &str) -> Result<Vec<Question>, QuizError> {
    let file: RawFile = toml::from_str(text).map_err(|error| QuizError::Form(error.to_string()))?;
    if file.question.len() > MAX_QUESTIONS {
        return Err(QuizError::TooMany);
    }
    let mut ids = BTreeSet::new();
    let checked = file.question.into_iter().map(|raw| {
        let id = raw.id.clone();
        let wrong = |problem: String| QuizError::Question { id: id.clone(), problem };
        if !ids.insert(raw.id.clone()) {
            return Err(wrong("there is another one of this id".to_owned()));
        }
        check(raw).map_err(wrong)
    });
    checked.collect()
}

fn check(raw: RawQuestion) -> Result<Question, String> {
    if !(1..=STEPS.len()).contains(&usize::from(raw.step)) {
        return Err(format!("step must be 1 to {}", STEPS.len()));
    }
    if [&raw.id, &raw.ask, &raw.why].iter().any(|text| text.trim().is_empty()) {
        return Err("id, ask and why must not be empty".to_owned());
    }
    let answer = match (raw.choices, raw.right, raw.preset, raw.result) {
        (Some(choices), Some(right), None, None) if raw.with.is_empty() => choice(choices, right)?,
        (None, None, Some(preset), Some(result)) => number(&preset, &raw.with, &result)?,
        _ => return Err("needs either choices and right, or preset and result".to_owned()),
    };
    Ok(Question { id: raw.id, step: raw.step, ask: raw.ask, why: raw.why, answer })
}

fn choice(choices: Vec<String>, right: usize) -> Result<Answer, String> {
    let different: BTreeSet<&String> = choices.iter().collect();
    if !(2..=MAX_CHOICES).contains(&choices.len()) || different.len() != choices.len() {
        return Err(format!("needs 2 to {MAX_CHOICES} different choices"));
    }
    if right >= choices.len() {
        return Err("right is the place of a choice, from 0 on".to_owned());
    }
    Ok(Answer::Choice { choices, right })
}

fn number(preset: &str, with: &BTreeMap<String, f64>, result: &str) -> Result<Answer, String> {
    let mut inputs = Preset::named(preset).ok_or_else(|| format!("there is no preset '{preset}'"))?.inputs;
    for (name, value) in with {
        inputs.set(name, *value).map_err(|error| error.to_string())?;
    }
    let results = inputs.results();
    let outcome = results.get(result).ok_or_else(|| format!("there is no result '{result}'"))?;
    Ok(Answer::Number { value: outcome.value, unit: outcome.unit })
}

/// Whether `text` is within a fifth of `value`; `None` = it is no number. A unit behind it is ignored.
fn grade_number(text: &str, value: f64, unit: Unit) -> Option<bool> {
    let text = text.replace([' ', ','], "");
    let text = text.trim_end_matches("years").trim_end_matches("/s").trim_end_matches('B');
    let given = parse_number(text).ok()?;
    // Of a share both 0.34 % and the plain 0.0034 are right; 0.34 alone is read as per cent too.
    let meant = match unit {
        Unit::Share if !text.ends_with('%') => [given, given / 100.0],
        _ => [given, given],
    };
    Some(meant.iter().any(|meant| (meant - value).abs() <= TOLERANCE * value.abs()))
}

/// All questions with their answers hidden beneath them, for the book.
#[must_use]
pub fn markdown(questions: &[Question]) -> String {
    let mut pages = vec![];
    for (place, title) in STEPS.iter().enumerate() {
        let of_step = questions.iter().filter(|question| usize::from(question.step) == place + 1);
        let texts: Vec<String> = of_step.map(page_of).collect();
        pages.push(format!("## Step {}: {title}\n\n{}", place + 1, texts.join("\n\n")));
    }
    pages.join("\n\n")
}

fn page_of(question: &Question) -> String {
    let (choices, right) = match &question.answer {
        Answer::Number { value, unit } => (String::new(), unit.show(*value)),
        Answer::Choice { choices, right } => {
            (choices.iter().map(|choice| format!("\n- {choice}")).collect::<String>() + "\n", choices[*right].clone())
        }
    };
    let ask = format!("**{}**\n{choices}", question.ask);
    format!("{ask}\n<details><summary>Answer</summary>\n\n{right}. {}\n\n</details>", question.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
        [[question]]
        id = "rate"
        step = 2
        ask = "Links made a second?"
        why = "A month has 2.6 million seconds."
        preset = "ours"
        result = "links_per_second"
        with = { times = 10.0 }

        [[question]]
        id = "status"
        step = 4
        ask = "301 or 302?"
        why = "A 301 is remembered by browsers."
        choices = ["301", "302"]
        right = 1
    "#;

    fn problem(from: &str, to: &str) -> String {
        let text = TWO.replace(from, to);
        assert_ne!(text, TWO, "{from}");
        parse(&text).unwrap_err().to_string()
    }

    #[test]
    fn a_number_is_computed_by_the_estimates() {
        let questions = parse(TWO).unwrap();
        let Answer::Number { value, unit } = questions[0].answer else { panic!("{questions:?}") };
        assert!((value - 385.8).abs() < 0.1);
        assert_eq!(unit, Unit::PerSecond);
        assert_eq!(questions[1].answer, Answer::Choice { choices: vec!["301".into(), "302".into()], right: 1 });
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_question() {
        for (from, to, told) in [
            ("step = 2", "step = 6", "question 'rate': step must be 1 to 5"),
            ("\"ours\"", "\"theirs\"", "there is no preset 'theirs'"),
            ("\"links_per_second\"", "\"colour\"", "there is no result 'colour'"),
            ("times", "colour", "there is no input 'colour'"),
            ("10.0", "-10.0", "--times must be"),
            ("right = 1", "right = 2", "the place of a choice"),
            ("\"301\", \"302\"", "\"302\", \"302\"", "different choices"),
            ("\"301\", ", "", "2 to 6 different choices"),
            ("id = \"status\"", "id = \"rate\"", "another one of this id"),
            ("right = 1", "", "either choices and right"),
            ("\"301 or 302?\"", "\"  \"", "must not be empty"),
            ("why", "because", "because"),
        ] {
            let error = problem(from, to);
            assert!(error.contains(told), "{told}: {error}");
        }
        let many = TWO.lines().take(8).collect::<Vec<_>>().join("\n");
        let many: String = (0..=MAX_QUESTIONS).map(|number| many.replace("rate", &format!("rate{number}"))).collect();
        assert_eq!(parse(&many), Err(QuizError::TooMany));
    }

    #[test]
    fn a_number_is_right_within_a_fifth_whatever_its_unit_is_called() {
        let right = |text: &str, value, unit| grade_number(text, value, unit);
        for text in ["386", "400/s", "0.4k", "460", "310", "0.386 k/s"] {
            assert_eq!(right(text, 385.8, Unit::PerSecond), Some(true), "{text}");
        }
        for text in ["38.6", "500/s", "4000", "300"] {
            assert_eq!(right(text, 385.8, Unit::PerSecond), Some(false), "{text}");
        }
        assert_eq!(right("36 TB", 36.5e12, Unit::Bytes), Some(true));
        assert_eq!(right("365 TB", 36.5e12, Unit::Bytes), Some(false));
        for text in ["0.34 %", "0.0034", "0.34"] {
            assert_eq!(right(text, 0.003_4, Unit::Share), Some(true), "{text}");
        }
        assert_eq!(right("many", 1.0, Unit::Count), None);
        assert_eq!(right("", 1.0, Unit::Count), None);
        assert_eq!(right("290 years", 293.0, Unit::Years), Some(true));
    }

    #[test]
    fn the_page_has_each_question_under_its_step_and_hides_the_answer() {
        let text = markdown(&parse(TWO).unwrap());
        let (before, after) = text.split_once("Links made a second?").unwrap();
        assert!(before.contains("## Step 2: Estimate") && !before.contains("Step 3"));
        assert!(after.contains("<details><summary>Answer</summary>\n\n386/s. A month has"));
        assert!(text.contains("\n- 301\n- 302\n") && text.contains("302. A 301 is remembered"));
        assert_eq!(text.matches("## Step").count(), 5);
    }
}
