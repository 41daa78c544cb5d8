//! What an estimate is made from: each input with its flag, unit and bounds.

use crate::number::{Unit, parse_number};

/// In what period links are counted. It decides how years are counted, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// 30 days; a year has 12.
    Month,
    /// 86,400 seconds; a year has 365.
    Day,
}

impl Period {
    /// Seconds of the period.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        match self {
            Self::Month => 30.0 * 86_400.0,
            Self::Day => 86_400.0,
        }
    }

    /// How many of them are in a year.
    #[must_use]
    pub const fn in_a_year(self) -> f64 {
        match self {
            Self::Month => 12.0,
            Self::Day => 365.0,
        }
    }

    /// Its name on the command line and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Month => "month",
            Self::Day => "day",
        }
    }
}

/// What an estimate is made from. Counts are not whole numbers here: they are estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inputs {
    /// In what period `links` are made.
    pub per: Period,
    /// Links made in a period.
    pub links: f64,
    /// Redirects for each link that is made.
    pub ratio: f64,
    /// Greatest rate in times of the mean.
    pub peak: f64,
    /// Years that links are kept.
    pub years: f64,
    /// By how much `links` is multiplied: 10 is "and ten times as much?".
    pub times: f64,
    /// Bytes of a link in the store.
    pub row_bytes: f64,
    /// Copies of each row.
    pub replicas: f64,
    /// Bytes on the wire of a create.
    pub create_bytes: f64,
    /// Bytes on the wire of a redirect's answer.
    pub redirect_bytes: f64,
    /// Bytes of a click in the log.
    pub click_bytes: f64,
    /// Months until a link is hardly asked for any more.
    pub live_months: f64,
    /// The part of live links that a cache holds.
    pub cache_share: f64,
    /// Bytes of a link in the cache.
    pub entry_bytes: f64,
    /// Zipf's exponent of how links are asked for.
    pub zipf: f64,
    /// Characters of a code.
    pub code_length: f64,
    /// Letters of the codes' alphabet.
    pub alphabet: f64,
    /// Redirects a second that one core answers.
    pub core_redirects: f64,
    /// Durable creates a second of one server.
    pub server_creates: f64,
    /// The part of what a machine can do that is planned with.
    pub load: f64,
}

/// An input: its name, what it means, what it may be.
pub struct Field {
    /// Its flag, without dashes; with `_` for `-` its name in JSON.
    pub flag: &'static str,
    /// What it is, for `--help` and tables.
    pub help: &'static str,
    /// Its unit.
    pub unit: Unit,
    /// The least value.
    pub least: f64,
    /// The greatest value.
    pub most: f64,
    /// Reads it.
    pub get: fn(&Inputs) -> f64,
    set: fn(&mut Inputs, f64),
}

/// An input that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// No input has this name.
    #[error("there is no input '{0}'")]
    Unknown(String),
    /// The text is no number.
    #[error("--{flag} {problem}")]
    NoNumber {
        /// The input's flag.
        flag: &'static str,
        /// What is wrong.
        problem: crate::number::NumberError,
    },
    /// The number is out of bounds.
    #[error("--{flag} must be {least} to {most}")]
    OutOfBounds {
        /// The input's flag.
        flag: &'static str,
        /// The least value, as it is shown.
        least: String,
        /// The greatest value, as it is shown.
        most: String,
    },
}

macro_rules! field {
    ($flag:literal, $name:ident, $unit:ident, $least:literal..$most:literal, $help:literal) => {
        Field {
            flag: $flag,
            help: $help,
            unit: Unit::$unit,
            least: $least,
            most: $most,
            get: |inputs| inputs.$name,
            set: |inputs, value| inputs.$name = value,
        }
    };
}

/// All inputs but the period, in the order in which they are shown. Within these bounds every result is finite.
pub const FIELDS: &[Field] = &[
    field!("links", links, Count, 1.0..1e12, "links made in a period"),
    field!("ratio", ratio, Times, 0.01..1e6, "redirects for each link that is made"),
    field!("peak", peak, Times, 1.0..1e4, "greatest rate in times of the mean"),
    field!("years", years, Years, 0.01..1e3, "years that links are kept"),
    field!("times", times, Times, 0.001..1e6, "by how much the links made are multiplied"),
    field!("row-bytes", row_bytes, Bytes, 1.0..1e7, "bytes of a link in the store"),
    field!("replicas", replicas, Count, 1.0..100.0, "copies of each row"),
    field!("create-bytes", create_bytes, Bytes, 1.0..1e7, "bytes on the wire of a create"),
    field!("redirect-bytes", redirect_bytes, Bytes, 1.0..1e7, "bytes on the wire of a redirect's answer"),
    field!("click-bytes", click_bytes, Bytes, 1.0..1e6, "bytes of a click in the log"),
    field!("live-months", live_months, Count, 0.01..1e4, "months until a link is hardly asked for any more"),
    field!("cache-share", cache_share, Share, 0.000_001..1.0, "part of live links that a cache holds"),
    field!("entry-bytes", entry_bytes, Bytes, 1.0..1e7, "bytes of a link in the cache"),
    field!("zipf", zipf, Times, 0.0..3.0, "Zipf's exponent of how links are asked for"),
    field!("code-length", code_length, Count, 1.0..32.0, "characters of a code"),
    field!("alphabet", alphabet, Count, 2.0..128.0, "letters of the codes' alphabet"),
    field!("core-redirects", core_redirects, PerSecond, 1.0..1e9, "redirects that one core answers"),
    field!("server-creates", server_creates, PerSecond, 1.0..1e9, "durable creates of one server"),
    field!("load", load, Share, 0.01..1.0, "part of what a machine can do that is planned with"),
];

impl Field {
    /// Its name in JSON and in the quiz.
    #[must_use]
    pub fn name(&self) -> String {
        self.flag.replace('-', "_")
    }

    /// The field with this flag or name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        let flag = name.replace('_', "-");
        FIELDS.iter().find(|field| field.flag == flag)
    }
}

impl Inputs {
    /// Sets the input with this flag or name.
    ///
    /// # Errors
    /// [`InputError`] when there is no such input, or the number is out of its bounds.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), InputError> {
        let field = Field::named(name).ok_or_else(|| InputError::Unknown(name.to_owned()))?;
        if !(field.least..=field.most).contains(&value) {
            let [least, most] = [field.least, field.most].map(|bound| field.unit.show(bound));
            return Err(InputError::OutOfBounds { flag: field.flag, least, most });
        }
        (field.set)(self, value);
        Ok(())
    }

    /// Sets the input with this flag or name to the number that `text` means.
    ///
    /// # Errors
    /// As for [`Inputs::set`], and when `text` is no number.
    pub fn set_text(&mut self, name: &str, text: &str) -> Result<(), InputError> {
        let field = Field::named(name).ok_or_else(|| InputError::Unknown(name.to_owned()))?;
        let value = parse_number(text).map_err(|problem| InputError::NoNumber { flag: field.flag, problem })?;
        self.set(name, value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::presets::PRESETS;

    fn ours() -> Inputs {
        PRESETS[0].inputs
    }

    #[test]
    fn each_input_is_set_and_read_by_its_own_name() {
        for field in FIELDS {
            let mut inputs = ours();
            inputs.set(&field.name(), field.least).unwrap();
            assert!(((field.get)(&inputs) - field.least).abs() < f64::EPSILON, "{}", field.flag);
            for other in FIELDS.iter().filter(|other| other.flag != field.flag) {
                assert!(((other.get)(&inputs) - (other.get)(&ours())).abs() < f64::EPSILON, "{}", other.flag);
            }
        }
        let flags: BTreeSet<&str> = FIELDS.iter().map(|field| field.flag).collect();
        assert_eq!(flags.len(), FIELDS.len());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_the_bounds() {
        let mut inputs = ours();
        let error = inputs.set_text("cache-share", "120%").unwrap_err();
        assert_eq!(error.to_string(), "--cache-share must be 0.0001 % to 100 %");
        let error = inputs.set_text("links", "many").unwrap_err();
        assert_eq!(error.to_string(), "--links must be a number such as 500, 1.27k, 100M, 12G or 20%");
        assert_eq!(inputs.set("colour", 1.0).unwrap_err().to_string(), "there is no input 'colour'");
        assert!(inputs.set("years", f64::NAN).is_err());
        assert_eq!(inputs, ours(), "a refused input changes nothing");
    }

    #[test]
    fn flags_and_names_mean_the_same_input() {
        assert_eq!(Field::named("row-bytes").unwrap().flag, Field::named("row_bytes").unwrap().flag);
        assert!(Field::named("row bytes").is_none());
    }

    #[test]
    fn a_year_has_twelve_months_of_thirty_days_or_365_days() {
        assert!((Period::Month.seconds() * 12.0 / 86_400.0 - 360.0).abs() < 1e-9);
        assert!((Period::Day.seconds() * Period::Day.in_a_year() / 86_400.0 - 365.0).abs() < 1e-9);
        assert_eq!([Period::Month, Period::Day].map(Period::name), ["month", "day"]);
        assert!((Period::Month.in_a_year() - 12.0).abs() < f64::EPSILON);
    }
}
