//! Which questions are asked, in which order, and what an answer is worth.
//! The same seed draws the same questions with their choices in the same order.

use super::{Answer, Question, grade_number};

/// A question as it is asked: with its choices in some order.
#[derive(Clone, Debug)]
pub struct Drawn<'a> {
    question: &'a Question,
    /// The places of the choices, in the order in which they are shown.
    order: Vec<usize>,
}

/// What an answer is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grade {
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// It is neither a number nor one of the letters.
    Unreadable,
}

/// At most `number` questions of `step`, or of all steps, drawn by `seed`.
#[must_use]
pub fn draw(questions: &[Question], step: Option<u8>, number: usize, seed: u64) -> Vec<Drawn<'_>> {
    let mut dice = Dice(seed);
    let mut chosen: Vec<&Question> =
        questions.iter().filter(|question| step.is_none_or(|step| step == question.step)).collect();
    dice.shuffle(&mut chosen);
    chosen.truncate(number);
    let drawn = chosen.into_iter().map(|question| {
        let mut order: Vec<usize> = match &question.answer {
            Answer::Choice { choices, .. } => (0..choices.len()).collect(),
            Answer::Number { .. } => vec![],
        };
        dice.shuffle(&mut order);
        Drawn { question, order }
    });
    drawn.collect()
}

impl Drawn<'_> {
    /// The question with its choices, in lines.
    #[must_use]
    pub fn text(&self) -> String {
        let mut lines = vec![self.question.ask.clone()];
        if let Answer::Choice { choices, .. } = &self.question.answer {
            lines.extend(
                self.order.iter().enumerate().map(|(shown, place)| format!("  {}) {}", letter(shown), choices[*place])),
            );
        }
        lines.join("\n")
    }

    /// What `given` is worth.
    #[must_use]
    pub fn grade(&self, given: &str) -> Grade {
        let right = match &self.question.answer {
            Answer::Number { value, unit } => grade_number(given, *value, *unit),
            Answer::Choice { right, .. } => self.chosen(given).map(|place| place == *right),
        };
        match right {
            Some(true) => Grade::Right,
            Some(false) => Grade::Wrong,
            None => Grade::Unreadable,
        }
    }

    /// The right answer and why it is right.
    #[must_use]
    pub fn solution(&self) -> String {
        let right = match &self.question.answer {
            Answer::Number { value, unit } => unit.show(*value),
            Answer::Choice { choices, right } => {
                let shown = self.order.iter().position(|place| place == right).unwrap_or_default();
                format!("{}) {}", letter(shown), choices[*right])
            }
        };
        format!("{right}. {}", self.question.why)
    }

    /// The place of the choice whose letter was given.
    fn chosen(&self, given: &str) -> Option<usize> {
        let given = given.trim().trim_end_matches([')', '.']);
        let shown = (0..self.order.len()).find(|shown| given.eq_ignore_ascii_case(&letter(*shown).to_string()))?;
        self.order.get(shown).copied()
    }
}

/// The letter of the choice that is shown at this place.
fn letter(shown: usize) -> char {
    "abcdef".chars().nth(shown).unwrap_or('?')
}

/// splitmix64, by Vigna: few lines, and good enough for an order of questions.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fisher and Yates. That some orders are likelier by a part in 2^50 does no harm here.
    fn shuffle<T>(&mut self, things: &mut [T]) {
        for place in (1..things.len()).rev() {
            let bound = u64::try_from(place + 1).unwrap_or(u64::MAX);
            let other = usize::try_from(self.next() % bound).unwrap_or_default();
            things.swap(place, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::number::Unit;

    fn choice(id: &str, step: u8) -> Question {
        let choices = ["one", "two", "three", "four"].map(str::to_owned).to_vec();
        let answer = Answer::Choice { choices, right: 2 };
        Question { id: id.into(), step, ask: format!("{id}?"), why: "so.".into(), answer }
    }

    fn asked(drawn: &[Drawn<'_>]) -> Vec<String> {
        drawn.iter().map(Drawn::text).collect()
    }

    #[test]
    fn a_seed_draws_the_same_questions_in_the_same_order() {
        let questions: Vec<Question> = (0..20).map(|number| choice(&format!("q{number}"), 1)).collect();
        let texts = |seed| asked(&draw(&questions, None, 5, seed));
        assert_eq!(texts(7), texts(7));
        assert_ne!(texts(7), texts(8));
        let different: BTreeSet<String> = texts(7).into_iter().collect();
        assert_eq!(different.len(), 5, "no question twice");
    }

    #[test]
    fn only_questions_of_the_step_are_drawn_and_no_more_than_there_are() {
        let questions = [choice("a", 1), choice("b", 2), choice("c", 2)];
        assert_eq!(draw(&questions, Some(2), 10, 1).len(), 2);
        assert_eq!(draw(&questions, Some(3), 10, 1).len(), 0);
        assert_eq!(draw(&questions, None, 10, 1).len(), 3);
    }

    #[test]
    fn the_letter_means_the_choice_that_is_shown_beside_it() {
        let questions = [choice("a", 1)];
        for seed in 0..50 {
            let drawn = &draw(&questions, None, 1, seed)[0];
            let line = drawn.text().lines().find(|line| line.ends_with("three")).unwrap().trim().to_owned();
            let right = line.chars().next().unwrap();
            for (given, grade) in ["a", "b", "c", "d"].map(|given| (given, drawn.grade(given))) {
                let expected = if given.starts_with(right) { Grade::Right } else { Grade::Wrong };
                assert_eq!(grade, expected, "seed {seed}: {given}");
            }
            assert_eq!(drawn.grade(&format!(" {}) ", right.to_ascii_uppercase())), Grade::Right);
            assert_eq!(drawn.solution(), format!("{line}. so."));
            assert!(["e", "three", "", "7"].iter().all(|given| drawn.grade(given) == Grade::Unreadable));
        }
    }

    #[test]
    fn every_order_of_choices_comes_up() {
        let questions = [choice("a", 1)];
        let orders: BTreeSet<Vec<usize>> =
            (0..500).map(|seed| draw(&questions, None, 1, seed)[0].order.clone()).collect();
        assert_eq!(orders.len(), 24);
    }

    #[test]
    fn a_number_is_graded_and_told_with_its_unit() {
        let answer = Answer::Number { value: 38.58, unit: Unit::PerSecond };
        let questions = [Question { id: "n".into(), step: 2, ask: "How many?".into(), why: "so.".into(), answer }];
        let drawn = &draw(&questions, None, 1, 0)[0];
        assert_eq!(drawn.text(), "How many?");
        assert_eq!(
            (drawn.grade("40"), drawn.grade("4"), drawn.grade("x")),
            (Grade::Right, Grade::Wrong, Grade::Unreadable)
        );
        assert_eq!(drawn.solution(), "38.6/s. so.");
    }
}
