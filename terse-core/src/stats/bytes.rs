//! Numbers and texts in the cells of rows: seven bits a byte, the lowest first, as postcard writes them.

/// Why bytes can't be read.
pub(super) type Wrong = &'static str;

pub(super) const SHORT: Wrong = "shorter than it says";

/// Appends `number`, in one byte if it is below 128.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends the distance from `from` to `to`, which is short if they are near, whichever is larger.
pub(super) fn put_step(out: &mut Vec<u8>, from: u64, to: u64) {
    let step = to.wrapping_sub(from).cast_signed();
    put_number(out, ((step << 1) ^ (step >> 63)).cast_unsigned());
}

/// Appends `text` behind its length.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Reads on.
pub(super) struct Eye<'b> {
    pub(super) rest: &'b [u8],
}

impl<'b> Eye<'b> {
    pub(super) fn byte(&mut self) -> Result<u8, Wrong> {
        let (byte, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'b [u8], Wrong> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn number(&mut self) -> Result<u64, Wrong> {
        let mut number = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            number |= bits << (7 * place);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number beyond all bounds")
    }

    /// What is as far from `from` as [`put_step`] wrote.
    pub(super) fn step(&mut self, from: u64) -> Result<u64, Wrong> {
        let number = self.number()?;
        Ok(from.wrapping_add((number >> 1) ^ (number & 1).wrapping_neg()))
    }

    /// A number of things, of which there are at most `most`.
    pub(super) fn count(&mut self, most: usize) -> Result<usize, Wrong> {
        let number = self.number()?;
        usize::try_from(number).ok().filter(|count| *count <= most).ok_or("more than there can be")
    }

    /// A text of at most `most` bytes.
    pub(super) fn text(&mut self, most: usize) -> Result<&'b str, Wrong> {
        let len = self.count(most)?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| "a text that is none")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_no_writer_wrote_is_refused() {
        assert_eq!(Eye { rest: &[0x80] }.number(), Err(SHORT));
        assert!(Eye { rest: &[0xff; 10] }.number().is_err());
        assert!(Eye { rest: &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2] }.number().is_err());
        assert_eq!(Eye { rest: &[5] }.count(4), Err("more than there can be"));
        assert_eq!(Eye { rest: &[2, b'a'] }.text(9), Err(SHORT));
        assert!(Eye { rest: &[2, 0xc3, 0x28] }.text(9).is_err());
    }

    proptest! {
        #[test]
        fn numbers_and_steps_come_back(number: u64, from: u64, near in 0_u64..60, text in ".{0,20}") {
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(&out, &postcard::to_stdvec(&number).unwrap());
            put_step(&mut out, from, number);
            let before = out.len();
            put_step(&mut out, from, from.wrapping_sub(near));
            prop_assert_eq!(out.len(), before + 1);
            put_text(&mut out, &text);
            let mut eye = Eye { rest: &out };
            prop_assert_eq!(eye.number(), Ok(number));
            prop_assert_eq!(eye.step(from), Ok(number));
            prop_assert_eq!(eye.step(from), Ok(from.wrapping_sub(near)));
            prop_assert_eq!(eye.text(100), Ok(text.as_str()));
            prop_assert!(eye.rest.is_empty());
        }
    }
}
