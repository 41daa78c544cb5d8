//! Content negotiation (RFC 9110, section 12.5.1), where an answer has two forms.

use actix_web::http::header::{self, HeaderMap};

/// Whether `headers` ask for CSV rather than JSON. CSV must be asked for by its
/// name, and at least as much as JSON is; JSON by its name wins a tie.
pub(crate) fn prefers_csv(headers: &HeaderMap) -> bool {
    let csv = preference(headers, "text", "csv");
    let json = preference(headers, "application", "json");
    let named = csv.how == Match::Exact && csv.weight > 0;
    named && (csv.weight > json.weight || csv.weight == json.weight && json.how < Match::Exact)
}

/// How much a media type is wanted, in thousandths, and by how exact a range that was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Preference {
    how: Match,
    weight: u16,
}

/// What named a media type, the most exact last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    Nothing,
    /// `*/*`
    Any,
    /// `text/*`
    Type,
    Exact,
}

/// The most exact range decides; of equally exact ones the largest weight.
fn preference(headers: &HeaderMap, kind: &str, subtype: &str) -> Preference {
    let mut best = Preference { how: Match::Nothing, weight: 0 };
    for value in headers.get_all(header::ACCEPT) {
        for range in value.to_str().unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let how = matched(parts.next().unwrap_or_default(), kind, subtype);
            let weight = parts.find_map(quality).map_or(1_000, thousandths);
            if how > Match::Nothing && (how, weight) > (best.how, if how == best.how { best.weight } else { 0 }) {
                best = Preference { how, weight };
            }
        }
    }
    best
}

fn matched(range: &str, kind: &str, subtype: &str) -> Match {
    match range.split_once('/') {
        Some(("*", "*")) => Match::Any,
        Some((k, "*")) if k.eq_ignore_ascii_case(kind) => Match::Type,
        Some((k, s)) if k.eq_ignore_ascii_case(kind) && s.eq_ignore_ascii_case(subtype) => Match::Exact,
        _ => Match::Nothing,
    }
}

/// The value of a parameter that is a weight.
fn quality(parameter: &str) -> Option<&str> {
    let (name, value) = parameter.split_once('=')?;
    name.eq_ignore_ascii_case("q").then_some(value)
}

/// A quality value (RFC 9110, section 12.4.2) in thousandths; 0 for anything else.
pub(crate) fn thousandths(text: &str) -> u16 {
    match text.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1_000.0) as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn csv(accept: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_str(value).unwrap());
        }
        prefers_csv(&headers)
    }

    #[test]
    fn csv_is_sent_to_who_names_it_and_wants_it_most() {
        for accept in [
            "text/csv",
            "TEXT/CSV;q=0.1",
            "text/csv; charset=utf-8; Q=0.4",
            "text/csv, */*",
            "text/csv, */*;q=0.8",
            "text/csv, application/json;q=0.9",
            "application/json;q=0, text/csv;q=0.001",
            "text/csv;q=0.9, application/*;q=0.8, */*",
            "text/csv;q=0.2, text/csv;q=0.7, application/json;q=0.5",
        ] {
            assert!(csv(&[accept]), "{accept}");
        }
        assert!(csv(&["application/json;q=0.5", "text/csv"]));
    }

    #[test]
    fn json_is_sent_to_all_others() {
        for accept in [
            "",
            "*/*",
            "text/*",
            "text/html",
            "application/json",
            "text/csv, application/json",
            "text/csv;q=0",
            "text/csv;q=x",
            "text/csv;q=0.5, application/json",
            "text/csv;q=0.5, */*;q=0.6",
            "text/csv;q=0, */*",
            "text",
            "text/csvx, csv",
        ] {
            assert!(!csv(&[accept]), "{accept}");
        }
        assert!(!csv(&[]));
    }

    #[test]
    fn a_weight_is_between_0_and_1() {
        assert_eq!((thousandths("1"), thousandths("0.25"), thousandths("0")), (1_000, 250, 0));
        for text in ["", "2", "-1", "NaN", "inf"] {
            assert_eq!(thousandths(text), 0, "{text}");
        }
    }
}
