//! Where a value stands in JSON, and how it is written in the book.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::file::Claim;

impl Claim {
    /// The number at the claim's place.
    ///
    /// # Errors
    /// When there is nothing, or no number.
    pub fn look_up(&self, json: &Value) -> Result<f64> {
        let at = self.at.as_deref().unwrap_or_default();
        let here = find(json, at).with_context(|| format!("claim '{}'", self.id))?;
        match here.as_f64() {
            Some(number) => Ok(number),
            None => bail!("claim '{}': no number at '{at}'", self.id),
        }
    }

    /// The value as the book shows it.
    #[must_use]
    pub fn shown(&self, value: f64) -> String {
        let number = significant(value, self.digits);
        match self.unit.as_str() {
            "" => number,
            unit if unit.starts_with('/') => format!("{number}{unit}"),
            unit => format!("{number} {unit}"),
        }
    }
}

/// What stands at `at`. Names are divided by `/`; an element of a list is named by its `name`, or by its place.
///
/// # Errors
/// When there is nothing.
pub fn find<'a>(json: &'a Value, at: &str) -> Result<&'a Value> {
    let mut here = json;
    for name in at.split('/') {
        let next = match here {
            Value::Object(map) => map.get(name),
            Value::Array(list) => list
                .iter()
                .find(|element| element["name"] == name)
                .or_else(|| name.parse().ok().and_then(|place: usize| list.get(place))),
            _ => None,
        };
        here = next.with_context(|| format!("there is no '{name}' at '{at}'"))?;
    }
    Ok(here)
}

/// A number with so many significant digits, thousands with commas, no zeros behind the point.
#[must_use]
pub fn significant(value: f64, digits: u32) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    #[allow(clippy::cast_possible_truncation, reason = "the power of ten of a float")]
    let size = value.abs().log10().floor() as i32;
    let places = i32::try_from(digits).unwrap_or(3) - 1 - size;
    let unit = 10_f64.powi(-places);
    let rounded = (value / unit).round() * unit;
    let text = format!("{rounded:.*}", usize::try_from(places.max(0)).unwrap_or_default());
    let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    match rest.trim_end_matches('0') {
        "" => format!("{sign}{grouped}"),
        rest => format!("{sign}{grouped}.{rest}"),
    }
}
