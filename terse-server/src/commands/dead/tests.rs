use std::cell::RefCell;

use super::*;

fn entry(id: &str, clicks: Option<u64>) -> Entry {
    Entry {
        id: id.to_owned(),
        kind: "block",
        reason: "torn".to_owned(),
        bytes: 300,
        clicks,
        since: Some(Timestamp::from_millis(1_000)),
        requeued: false,
    }
}

/// A desk that refuses what begins with an x.
#[derive(Default)]
struct FakeDesk {
    entries: Vec<Entry>,
    asked: RefCell<Vec<String>>,
}

impl FakeDesk {
    fn answer(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.asked.borrow_mut().extend(ids.iter().cloned());
        let refused = |id: &String| id.starts_with('x').then(|| "no".to_owned());
        Ok(ids.iter().map(|id| Outcome { id: id.clone(), refused: refused(id) }).collect())
    }
}

impl Desk for FakeDesk {
    fn list(&self) -> Result<Vec<Entry>, StartError> {
        Ok(self.entries.clone())
    }

    fn requeue(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.answer(ids)
    }

    fn discard(&self, ids: &BTreeSet<String>) -> Result<Vec<Outcome>, StartError> {
        self.answer(ids)
    }
}

fn order(ids: &[&str], all: bool) -> DeadOrder {
    DeadOrder { ids: ids.iter().map(|id| (*id).to_owned()).collect(), all, json: false }
}

#[test]
fn only_what_is_there_can_be_named() {
    let desk = FakeDesk { entries: vec![entry("a", None), entry("b", None)], ..FakeDesk::default() };
    assert_eq!(ids(&chosen(&desk, &order(&["b"], false)).unwrap()), ["b".to_owned()].into());
    assert_eq!(chosen(&desk, &order(&[], true)).unwrap().len(), 2);
    let unknown = chosen(&desk, &order(&["a", "c\u{1b}"], false)).unwrap_err();
    assert_eq!(unknown.exit, Exit::Config);
    assert!(unknown.message.contains("'c\\u{1b}'") && !unknown.message.contains('\u{1b}'), "{unknown}");
}

#[test]
fn what_was_refused_is_a_failure_that_says_how_many() {
    let desk = FakeDesk::default();
    let outcomes = |names: &[&str]| desk.requeue(&names.iter().map(|name| (*name).to_owned()).collect()).unwrap();
    decided(outcomes(&["a"]), &order(&["a"], false), "requeued").unwrap();
    let refused = decided(outcomes(&["a", "x1"]), &order(&["a", "x1"], false), "requeued").unwrap_err();
    assert_eq!((refused.exit, refused.message.as_str()), (Exit::Unavailable, "x1 was not requeued: no"));
    decided(outcomes(&["a"]), &order(&[], true), "requeued").unwrap();
    for order in [order(&[], true), order(&["a", "x1", "x2"], false)] {
        let refused = decided(outcomes(&["a", "x1", "x2"]), &order, "requeued").unwrap_err();
        assert_eq!((refused.exit, refused.message.as_str()), (Exit::Unavailable, "2 of 3 were not requeued"));
    }
}

#[test]
fn the_table_tells_what_is_known() {
    let strange = Entry { reason: "a\u{1b}[31mb".to_owned(), since: None, ..entry("c", None) };
    let again = Entry { requeued: true, ..entry("d", Some(7)) };
    let text = in_words(&[entry("a", Some(12)), strange, again], Timestamp::from_millis(90_000));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["ID", "KIND", "BYTES", "CLICKS", "AGE", "WHY"]);
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["a", "block", "300", "12", "89s", "torn"]);
    assert!(lines[2].contains("?  ") && lines[2].ends_with("a?[31mb"), "{text}");
    assert!(lines[3].contains("requeued"), "{text}");
}

#[test]
fn what_is_lost_is_told_in_clicks_as_far_as_known() {
    let chosen = [entry("a", Some(3)), entry("b", Some(4)), entry("c", None), entry("x", Some(9))];
    let outcomes = FakeDesk::default().discard(&ids(&chosen)).unwrap();
    assert_eq!(lost(&chosen, &outcomes), "discarded: 3 with 7 clicks and those of 1 that nobody can count");
    assert_eq!(told(&chosen[..2]), "2 with 7 clicks");
}

#[test]
fn an_age_has_one_unit() {
    let told = [-5_000, 0, 119_000, 120_000, 7_199_000, 7_200_000, 172_800_000].map(age);
    assert_eq!(told, ["0s", "0s", "119s", "2m", "119m", "2h", "2d"]);
}

#[test]
fn with_a_broker_journals_and_letters_are_one_list() {
    let journals = FakeDesk { entries: vec![entry("ab/7", None)], ..FakeDesk::default() };
    let letters = FakeDesk { entries: vec![entry("2@9", None), entry("x@1", None)], ..FakeDesk::default() };
    let both = Both { journals: &journals, letters: &letters };
    assert_eq!(both.list().unwrap().len(), 3);
    let all = ids(&chosen(&both, &order(&[], true)).unwrap());
    let outcomes = both.requeue(&all).unwrap();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.refused.is_some()).count(), 1);
    assert_eq!(
        (journals.asked.take(), letters.asked.take()),
        (vec!["ab/7".to_owned()], vec!["2@9".to_owned(), "x@1".to_owned()])
    );
    both.discard(&["2@9".to_owned()].into()).unwrap();
    assert_eq!((journals.asked.take().len(), letters.asked.take().len()), (0, 1), "nobody is asked for nothing");
}
