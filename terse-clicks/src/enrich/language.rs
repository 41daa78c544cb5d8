//! The language that a client asks for first.
//!
//! Of `Accept-Language` the primary subtag of the first entry with the highest weight is kept, in lower case: `de` of
//! `en;q=0.8, de-AT, fr`. Subtags have two or three letters (ISO 639), so there are few different ones whatever comes.

/// The weight of an entry that says none, in thousandths; no weight is larger.
const FULL_WEIGHT: u16 = 1_000;

/// Appends the language that `list` asks for first to `out`, if there is one.
pub(super) fn push_first(list: &[u8], out: &mut String) {
    let mut best: Option<(&[u8], u16)> = None;
    for entry in list.split(|b| *b == b',') {
        let Some((language, weight)) = told_by(entry) else { continue };
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((language, weight));
        }
        if weight == FULL_WEIGHT {
            break;
        }
    }
    if let Some((language, _)) = best {
        out.extend(language.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
}

/// The primary subtag and the weight of an entry; `None` if it names no language, or one that is not wanted.
fn told_by(entry: &[u8]) -> Option<(&[u8], u16)> {
    let (tag, parameter) = match entry.iter().position(|b| *b == b';') {
        Some(place) => (&entry[..place], Some(&entry[place + 1..])),
        None => (entry, None),
    };
    let tag = tag.trim_ascii();
    let primary = &tag[..tag.iter().position(|b| matches!(b, b'-' | b'_')).unwrap_or(tag.len())];
    let weight = parameter.map_or(Some(FULL_WEIGHT), weight)?;
    let is_language = matches!(primary.len(), 2 | 3) && primary.iter().all(u8::is_ascii_alphabetic);
    (is_language && weight > 0).then_some((primary, weight))
}

/// `q=0.875` in thousandths; `None` if it isn't of that form.
fn weight(parameter: &[u8]) -> Option<u16> {
    let value = parameter.trim_ascii();
    let value = value.strip_prefix(b"q=").or_else(|| value.strip_prefix(b"Q="))?;
    let (whole, digits) = match value {
        [whole @ (b'0' | b'1')] => (whole, &[][..]),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] if digits.len() <= 3 => (whole, digits),
        _ => return None,
    };
    let mut weight = u16::from(whole - b'0');
    for place in 0..3 {
        let digit = *digits.get(place).unwrap_or(&b'0');
        if !digit.is_ascii_digit() {
            return None;
        }
        weight = weight * 10 + u16::from(digit - b'0');
    }
    (weight <= FULL_WEIGHT).then_some(weight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first_of(list: impl AsRef<[u8]>) -> String {
        let mut out = String::from("before");
        push_first(list.as_ref(), &mut out);
        out.split_off("before".len())
    }

    #[test]
    fn the_first_of_the_highest_weight_is_told() {
        for (list, language) in [
            ("de", "de"),
            ("de-AT,de;q=0.9,en;q=0.8", "de"),
            ("en;q=0.8, DE-at, fr", "de"),
            ("en;q=0.8,fr;q=0.9,de;q=0.9", "fr"),
            ("en;q=0.875 , fr;q=0.88", "fr"),
            ("en; q=0.5, fr ;Q=0.6", "fr"),
            ("en;q=1.000,fr", "en"),
            ("zh_Hans_CN", "zh"),
            ("fil-PH,fil;q=0.9", "fil"),
            ("*", ""),
            ("*,en;q=0.5", "en"),
            ("en;q=0", ""),
            ("en;q=0.000,fr;q=0.001", "fr"),
        ] {
            assert_eq!(first_of(list), language, "{list}");
        }
    }

    #[test]
    fn what_is_no_language_is_passed_over() {
        for list in [
            "",
            ",",
            ",,,;;;",
            "e",
            "engl",
            "i-klingon",
            "x-private",
            "12",
            "d1",
            "<b>",
            "=1+1",
            "de;q",
            "de;q=",
            "de;q=2",
            "de;q=1.001",
            "de;q=0.1234",
            "de;q=.5",
            "de;q=-1",
            "de;q=0,5;q=1",
            "de;level=1",
            "d\u{e9}",
            "\0\0",
        ] {
            assert_eq!(first_of(list), "", "{list}");
        }
        assert_eq!(first_of("<script>,de;q=0.1"), "de");
        assert_eq!(first_of(b"\xff\xfe,it"), "it");
    }

    proptest! {
        #[test]
        fn any_bytes_give_two_or_three_letters_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let language = first_of(bytes);
            prop_assert!(matches!(language.len(), 0 | 2 | 3));
            prop_assert!(language.bytes().all(|b| b.is_ascii_lowercase()));
        }

        #[test]
        fn weights_are_read_to_the_thousandth(thousandths in 1_u16..=1_000) {
            let text = format!("q={}.{:03}", thousandths / 1_000, thousandths % 1_000);
            prop_assert_eq!(weight(text.as_bytes()), Some(thousandths));
        }
    }
}
