//! Numbers as people write them in an estimate: `100M` in, `1.2 TB` out.

use std::fmt::Write as _;

/// What a number counts, and so how it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things: links, codes, pairs.
    Count,
    /// Things in a second.
    PerSecond,
    /// Bytes, in powers of 1,000.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// A part of a whole, 0 to 1; shown in per cent.
    Share,
    /// Years.
    Years,
    /// A ratio, a factor, an exponent.
    Times,
}

/// Why a text is no number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a number such as 500, 1.27k, 100M, 12G or 20%")]
pub struct NumberError;

/// Powers of 1,000 with their letters, from the largest.
const POWERS: [(char, f64); 5] = [('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6), ('k', 1e3)];

/// The number that `text` means: digits with `_` between them, then `k`, `M`, `G`, `T`, `P` or `%` if wanted.
///
/// # Errors
/// [`NumberError`] when it means none, or none that is finite.
pub fn parse_number(text: &str) -> Result<f64, NumberError> {
    let text = text.trim();
    let last = text.chars().next_back().ok_or(NumberError)?;
    let power = match last {
        '%' => Some(0.01),
        'K' => Some(1e3),
        letter => POWERS.iter().find(|(known, _)| *known == letter).map(|(_, power)| *power),
    };
    let digits = if power.is_some() { &text[..text.len() - 1] } else { text };
    let plain = digits.replace('_', "");
    if !plain.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return Err(NumberError);
    }
    let number: f64 = plain.parse().map_err(|_| NumberError)?;
    Some(number * power.unwrap_or(1.0)).filter(|number| number.is_finite()).ok_or(NumberError)
}

impl Unit {
    /// `value` with this unit, to three digits.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Count => scaled(value, ""),
            Self::PerSecond => format!("{}/s", scaled(value, "")),
            Self::Bytes => scaled(value, "B"),
            Self::BytesPerSecond => format!("{}/s", scaled(value, "B")),
            Self::Share => format!("{} %", three_digits(value * 100.0)),
            Self::Years => format!("{} years", three_digits(value)),
            Self::Times => three_digits(value),
        }
    }

    /// What it is called in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::PerSecond => "per second",
            Self::Bytes => "bytes",
            Self::BytesPerSecond => "bytes per second",
            Self::Share => "share",
            Self::Years => "years",
            Self::Times => "times",
        }
    }
}

/// `value` with the letter of its power of 1,000 and `unit`.
fn scaled(value: f64, unit: &str) -> String {
    // What would be rounded up to 1,000 has the next letter already.
    let power = POWERS.iter().find(|(_, power)| value >= power * 0.9995);
    let (letter, power) = power.map_or((String::new(), 1.0), |(letter, power)| (letter.to_string(), *power));
    let mut text = three_digits(value / power);
    if !letter.is_empty() || !unit.is_empty() {
        let _ = write!(text, " {letter}{unit}");
    }
    text
}

/// Three significant digits, no zeros behind the point, thousands with commas.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs().log10().floor();
    if !(-6.0..6.0).contains(&size) {
        return format!("{value:.2e}");
    }
    let unit = 10_f64.powf(size - 2.0);
    let rounded = (value / unit).round() * unit;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "-6 to 6")]
    let places = (2.0 - rounded.abs().log10().floor()).max(0.0) as usize;
    let text = format!("{rounded:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    with_commas(text)
}

/// A comma before each three digits of the whole part.
fn with_commas(text: &str) -> String {
    let (whole, rest) = text.find('.').map_or((text, ""), |point| text.split_at(point));
    let mut parts = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && digit != '-' && (whole.len() - place).is_multiple_of(3) && !parts.ends_with('-') {
            parts.push(',');
        }
        parts.push(digit);
    }
    parts + rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_people_write_them() {
        for (text, number) in [
            ("500", 500.0),
            ("1.27k", 1_270.0),
            ("1.27K", 1_270.0),
            ("100M", 1e8),
            ("12 G", 12e9),
            ("20%", 0.2),
            ("1_000", 1_000.0),
            ("2e3", 2_000.0),
            (" 7 ", 7.0),
        ] {
            assert!((parse_number(&text.replace(' ', "")).unwrap() - number).abs() < 1e-9 * number, "{text}");
        }
        for text in ["", "M", "%", "-1", "nan", "inf", "infinity", "1X", "1e999", "--", "é", "1é", "0x10"] {
            assert_eq!(parse_number(text), Err(NumberError), "{text}");
        }
    }

    #[test]
    fn numbers_are_shown_with_three_digits_and_a_unit() {
        for (unit, value, text) in [
            (Unit::PerSecond, 38.580_2, "38.6/s"),
            (Unit::PerSecond, 3_858.02, "3.86 k/s"),
            (Unit::Count, 12e9, "12 G"),
            (Unit::Count, 999_999.0, "1 M"),
            (Unit::Count, 5.0, "5"),
            (Unit::Bytes, 36.5e12, "36.5 TB"),
            (Unit::Bytes, 500.0, "500 B"),
            (Unit::BytesPerSecond, 1.929e6, "1.93 MB/s"),
            (Unit::Share, 0.003_41, "0.341 %"),
            (Unit::Share, 1.0, "100 %"),
            (Unit::Years, 2_935.0, "2,940 years"),
            (Unit::Times, 10.0, "10"),
            (Unit::Count, 0.0, "0"),
            (Unit::Count, 6e18, "6,000 P"),
            (Unit::Times, 0.000_000_1, "1.00e-7"),
        ] {
            assert_eq!(unit.show(value), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_number_or_refused(text in "\\PC{0,12}") {
            if let Ok(number) = parse_number(&text) {
                prop_assert!(number.is_finite() && number >= 0.0);
            }
        }

        #[test]
        fn what_is_shown_is_within_half_a_per_cent(value in 1.0e-3..1.0e17_f64) {
            let text = Unit::Count.show(value).replace([' ', ','], "");
            let read = parse_number(&text).unwrap();
            prop_assert!((read / value - 1.0).abs() <= 0.005_1, "{value} {text}");
        }
    }
}
