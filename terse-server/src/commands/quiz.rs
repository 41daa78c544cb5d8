//! `terse quiz`: asks questions of the interview on the terminal and grades the answers.
//!
//! The questions are in the program, so it can be practised anywhere. One line
//! of input is one answer; the end of the input ends the quiz with the score so
//! far.

use std::io::{BufRead, Read as _, Write};

use terse_core::time::random_bytes;
use terse_estimate::quiz::{self, Drawn, Grade, Question};

use super::say;
use crate::cli::QuizOrder;
use crate::exit::{Exit, StartError};
use crate::system::OsEntropy;

const QUESTIONS: &str = include_str!("../../../docs/quiz.toml");
/// Bytes of an answer that are read; what follows is the next answer.
const MAX_ANSWER: u64 = 1_000;

/// How a quiz went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Score {
    right: usize,
    asked: usize,
}

/// Asks what was ordered.
pub(super) fn quiz(order: &QuizOrder) -> Result<(), StartError> {
    let questions = questions()?;
    if order.markdown {
        return say(&quiz::markdown(&questions));
    }
    let seed = order.seed.unwrap_or_else(|| u64::from_le_bytes(random_bytes(&OsEntropy)));
    let drawn = quiz::draw(&questions, order.step, usize::from(order.questions), seed);
    let asked = ask(&drawn, &mut std::io::stdin().lock(), &mut std::io::stdout().lock());
    let score = asked.map_err(|error| StartError::new(Exit::Io, format_args!("cannot ask: {error}")))?;
    say(&format!("{} of {} right (seed {seed})", score.right, score.asked))
}

fn questions() -> Result<Vec<Question>, StartError> {
    quiz::parse(QUESTIONS).map_err(|error| StartError::new(Exit::Internal, error))
}

/// Asks one question after the other until there is no more input.
fn ask(drawn: &[Drawn<'_>], input: &mut impl BufRead, output: &mut dyn Write) -> std::io::Result<Score> {
    let mut score = Score::default();
    for (number, question) in drawn.iter().enumerate() {
        writeln!(output, "{}. {}", number + 1, question.text())?;
        let Some(grade) = graded(question, input, output)? else { break };
        score.asked += 1;
        score.right += usize::from(grade == Grade::Right);
        let word = if grade == Grade::Right { "right" } else { "wrong" };
        writeln!(output, "{word}: {}\n", question.solution())?;
    }
    Ok(score)
}

/// The grade of the first answer that can be read; `None` = the input ended.
fn graded(question: &Drawn<'_>, input: &mut impl BufRead, output: &mut dyn Write) -> std::io::Result<Option<Grade>> {
    loop {
        write!(output, "> ")?;
        output.flush()?;
        let mut line = vec![];
        if input.by_ref().take(MAX_ANSWER).read_until(b'\n', &mut line)? == 0 {
            writeln!(output)?;
            return Ok(None);
        }
        match question.grade(String::from_utf8_lossy(&line).trim()) {
            Grade::Unreadable => writeln!(output, "please answer with a letter of the list, or a number; Ctrl-D ends")?,
            grade => return Ok(Some(grade)),
        }
    }
}

#[cfg(test)]
mod tests {
    use terse_estimate::quiz::Answer;

    use super::*;

    fn asked(step: u8, number: usize, answers: &[u8]) -> (Score, String) {
        let questions = questions().unwrap();
        let drawn = quiz::draw(&questions, Some(step), number, 7);
        let mut output = vec![];
        let score = ask(&drawn, &mut &answers[..], &mut output).unwrap();
        (score, String::from_utf8(output).unwrap())
    }

    #[test]
    fn there_are_sixty_questions_and_some_of_each_step() {
        let questions = questions().unwrap();
        assert!(questions.len() >= 60, "{}", questions.len());
        for step in 1..=5 {
            let of_step = questions.iter().filter(|question| question.step == step).count();
            assert!(of_step >= 8, "step {step}: {of_step}");
        }
    }

    #[test]
    fn the_longest_choice_is_no_better_guess_than_another() {
        let (mut longest, mut all) = (0, 0);
        for question in questions().unwrap() {
            if let Answer::Choice { choices, right } = question.answer {
                all += 1;
                longest += usize::from(choices.iter().all(|choice| choice.len() <= choices[right].len()));
            }
        }
        assert!(longest * 5 < all * 2, "{longest} of {all}");
    }

    #[test]
    fn each_answer_is_graded_and_explained() {
        let (score, text) = asked(1, 3, b"a\na\na\n");
        assert_eq!(score.asked, 3);
        assert_eq!(text.matches("right: ").count(), score.right);
        assert_eq!(text.matches("right: ").count() + text.matches("wrong: ").count(), 3);
        assert!(text.starts_with("1. ") && text.contains("\n3. "));
    }

    #[test]
    fn what_cannot_be_read_is_asked_for_again() {
        let (score, text) = asked(1, 1, "\u{fc}ber\n\nb\n".as_bytes());
        assert_eq!(score.asked, 1);
        assert_eq!(text.matches("please answer").count(), 2);
    }

    #[test]
    fn the_end_of_the_input_ends_the_quiz() {
        assert_eq!(asked(1, 3, b"").0, Score::default());
        assert_eq!(asked(1, 3, b"a\n").0.asked, 1);
        assert_eq!(asked(1, 3, b"a").0.asked, 1, "the last line may lack its end");
    }

    #[test]
    fn an_endless_line_is_no_endless_answer() {
        let (score, text) = asked(1, 1, &[b'x'; 5_000]);
        assert_eq!((score.asked, text.matches("please answer").count()), (0, 5));
    }
}
