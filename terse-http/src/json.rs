//! Reads JSON bodies and tells everything that is wrong with them at once.
//!
//! `serde`'s derived readers stop at the first fault and don't see duplicate
//! keys, so a body is first read as a [`Json`] value that keeps every member,
//! then taken apart by [`Fields`]. Nesting is bounded by `serde_json` (128
//! levels), memory by [`MAX_VALUES`].

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use crate::problem::{FieldFault, Kind, MAX_FAULTS, Problem};

/// Most values in one body; a batch of 1,000 links with 20 tags each needs
/// 28,000. Beyond: 413. It keeps a body of 12 MiB from becoming 400 MB of values.
pub(crate) const MAX_VALUES: usize = 100_000;

/// Most characters of an unknown field's name that are repeated to the client.
const MAX_NAME: usize = 64;

/// A JSON value whose objects keep all their members, in order, duplicates included.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool,
    Number,
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads `body`.
    ///
    /// # Errors
    /// 400 when it is no JSON, 413 when it holds more than [`MAX_VALUES`] values.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let left = Cell::new(MAX_VALUES);
        let mut reader = serde_json::Deserializer::from_slice(body);
        let value = AnyValue { left: &left }.deserialize(&mut reader);
        let value = value.and_then(|value| reader.end().map(|()| value));
        value.map_err(|error| {
            if left.get() == 0 {
                return Problem::new(Kind::BodyTooLarge, format!("more than {MAX_VALUES} values"));
            }
            Problem::new(
                Kind::MalformedJson,
                format!("line {}, column {}: {}", error.line(), error.column(), what(&error)),
            )
        })
    }

    const fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// What is wrong, without the position that `serde_json` appends.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}

struct AnyValue<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for AnyValue<'_> {
    type Value = Json;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => return Err(D::Error::custom("too many values")),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(AnyValue { left: self.left })? {
            items.push(item);
        }
        Ok(Json::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            members.push((name, map.next_value_seed(AnyValue { left: self.left })?));
        }
        Ok(Json::Object(members))
    }
}

/// The known members of an object, taken out one by one, and all the faults found on the way.
pub(crate) struct Fields {
    members: Vec<(String, Json)>,
    faults: Vec<FieldFault>,
}

/// A text's fault: a stable word and a sentence.
pub(crate) type TextFault = (&'static str, String);

impl Fields {
    /// Takes `value` apart. Members not in `known`, and each repetition, are faults already.
    ///
    /// # Errors
    /// When `value` is no object; `whole` names it.
    pub(crate) fn of(value: Json, known: &[&str], whole: &'static str) -> Result<Self, Problem> {
        let Json::Object(members) = value else {
            let detail = format!("must be an object, not {}", value.type_name());
            return Err(Problem::invalid_field(whole, "wrong_type", detail));
        };
        let mut fields = Self { members: Vec::new(), faults: Vec::new() };
        for (name, value) in members {
            if !known.contains(&name.as_str()) {
                fields.fault(shortened(&name), "unknown_field", "is not known here");
            } else if fields.members.iter().any(|(seen, _)| *seen == name) {
                fields.fault(name, "duplicate_field", "is given more than once");
            } else {
                fields.members.push((name, value));
            }
        }
        Ok(fields)
    }

    /// Notes a fault; beyond [`MAX_FAULTS`] it is left out.
    pub(crate) fn fault(
        &mut self,
        field: impl Into<std::borrow::Cow<'static, str>>,
        code: &'static str,
        detail: impl Into<String>,
    ) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(FieldFault::new(field, code, detail));
        }
    }

    /// Whether `name` has a fault already.
    pub(crate) fn has_fault(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault.field == name)
    }

    /// The member `name`, if it was sent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.swap_remove(at).1)
    }

    /// The text under `name`: `None` = absent (or faulty), `Some(None)` = null.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<Option<String>> {
        match self.take(name)? {
            Json::Text(text) => Some(Some(text)),
            Json::Null => Some(None),
            other => {
                self.fault(name, "wrong_type", format!("must be a string, not {}", other.type_name()));
                None
            }
        }
    }

    /// The list of texts under `name`: `None` = absent (or faulty), `Some(None)` = null.
    pub(crate) fn texts(&mut self, name: &'static str) -> Option<Option<Vec<String>>> {
        let items = match self.take(name)? {
            Json::List(items) => items,
            Json::Null => return Some(None),
            other => {
                self.fault(name, "wrong_type", format!("must be a list of strings, not {}", other.type_name()));
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            let Json::Text(text) = item else {
                self.fault(name, "wrong_type", format!("must hold strings only, not {}", item.type_name()));
                return None;
            };
            texts.push(text);
        }
        Some(Some(texts))
    }

    /// `value` as `parse` reads it; what it refuses is a fault of `name`.
    pub(crate) fn check<V, T>(
        &mut self,
        name: &'static str,
        value: V,
        parse: impl FnOnce(V) -> Result<T, TextFault>,
    ) -> Option<T> {
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err((code, detail)) => {
                self.fault(name, code, detail);
                None
            }
        }
    }

    /// `value`, unless there were faults.
    ///
    /// # Errors
    /// 422 with all faults.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.faults.is_empty() => Ok(value),
            _ => Err(Problem::invalid(self.faults)),
        }
    }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Json, Problem> {
        Json::parse(text.as_bytes())
    }

    fn text(text: &str) -> Json {
        Json::Text(text.to_owned())
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let value = parse(" {\"a\": [null, true, 1, -1, 1.5, \"x\"], \"a\": {}} ").unwrap();
        let list = vec![Json::Null, Json::Bool, Json::Number, Json::Number, Json::Number, text("x")];
        let expected = vec![("a".to_owned(), Json::List(list)), ("a".to_owned(), Json::Object(Vec::new()))];
        assert_eq!(value, Json::Object(expected));
        assert_eq!(parse("\"\\ud83d\\ude00\\u0000\"").unwrap(), text("😀\0"));
    }

    #[test]
    fn a_problem_says_where_the_json_is_broken() {
        let problem = parse("{\n  \"a\": @}").unwrap_err();
        assert_eq!(problem.kind, Kind::MalformedJson);
        assert!(problem.detail.starts_with("line 2, column "), "{}", problem.detail);
        assert!(!problem.detail.contains(" at line "), "the place is told once: {}", problem.detail);
    }

    #[test]
    fn nesting_and_the_number_of_values_are_bounded() {
        let nested = |depth: usize| parse(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
        assert!(nested(100).is_ok());
        assert_eq!(nested(200).unwrap_err().kind, Kind::MalformedJson);
        // The list itself is a value too.
        let wide = |values: usize| parse(&format!("[{}0]", "0,".repeat(values - 2)));
        assert!(wide(MAX_VALUES).is_ok());
        assert_eq!(wide(MAX_VALUES + 1).unwrap_err().kind, Kind::BodyTooLarge);
    }

    #[test]
    fn a_member_is_taken_once() {
        let mut fields = Fields::of(parse("{\"a\":\"x\",\"b\":null}").unwrap(), &["a", "b", "c"], "body").unwrap();
        assert_eq!(fields.text("a"), Some(Some("x".to_owned())));
        assert_eq!((fields.text("a"), fields.text("b"), fields.text("c")), (None, Some(None), None));
        assert_eq!(fields.finish(Some(7)), Ok(7));
    }

    #[test]
    fn each_repetition_and_each_stranger_is_a_fault() {
        let value = parse("{\"a\":1,\"a\":2,\"x\":3,\"a\":4,\"x\":5}").unwrap();
        let problem = Fields::of(value, &["a"], "body").unwrap().finish(Some(())).unwrap_err();
        let faults: Vec<_> = problem.errors.iter().map(|fault| (&*fault.field, fault.code)).collect();
        let [duplicate, unknown] = [("a", "duplicate_field"), ("x", "unknown_field")];
        assert_eq!(faults, [duplicate, unknown, duplicate, unknown]);
    }

    #[test]
    fn texts_of_a_list_are_all_texts() {
        let texts = |text: &str| {
            let mut fields = Fields::of(parse(text).unwrap(), &["t"], "body").unwrap();
            let texts = fields.texts("t");
            (texts, fields.has_fault("t"))
        };
        assert_eq!(texts("{\"t\":[\"a\",\"b\"]}"), (Some(Some(vec!["a".into(), "b".into()])), false));
        assert_eq!(texts("{\"t\":null}"), (Some(None), false));
        assert_eq!(texts("{}"), (None, false));
        assert_eq!(texts("{\"t\":[\"a\",null]}"), (None, true));
        assert_eq!(texts("{\"t\":\"a\"}"), (None, true));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(shortened(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(shortened(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<f64>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..8).prop_map(serde_json::Value::from),
                proptest::collection::vec((".{0,8}", inner), 0..8)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn shape(value: &serde_json::Value) -> Json {
        match value {
            serde_json::Value::Null => Json::Null,
            serde_json::Value::Bool(_) => Json::Bool,
            serde_json::Value::Number(_) => Json::Number,
            serde_json::Value::String(text) => Json::Text(text.clone()),
            serde_json::Value::Array(items) => Json::List(items.iter().map(shape).collect()),
            serde_json::Value::Object(members) => {
                Json::Object(members.iter().map(|(name, value)| (name.clone(), shape(value))).collect())
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_json_is_read_as_it_is(value in any_json()) {
            prop_assert_eq!(parse(&value.to_string()).unwrap(), shape(&value));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let read = Json::parse(&bytes);
            let known = serde_json::from_slice::<serde_json::Value>(&bytes);
            prop_assert_eq!(read.is_ok(), known.is_ok());
        }

        #[test]
        fn almost_json_is_400(value in any_json(), cut in any::<prop::sample::Index>()) {
            let whole = value.to_string();
            let bytes = &whole.as_bytes()[..cut.index(whole.len())];
            if let Err(problem) = Json::parse(bytes) {
                prop_assert_eq!(problem.kind, Kind::MalformedJson);
            }
        }
    }
}
