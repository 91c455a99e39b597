//! Whole numbers as text, with five bits a character: a small number takes one or two characters.
//!
//! The lowest bits come first; a character from the second half of the alphabet means that more
//! follow. `page/data.js` unpacks the text. No character of the alphabet has a meaning in JSON or
//! HTML.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A list of numbers, packed.
#[derive(Clone, Debug, Default)]
pub struct Packed(String);

impl Packed {
    /// Adds a number.
    pub fn push(&mut self, mut n: u64) {
        loop {
            let low = (n & 31) as usize;
            n >>= 5;
            let more = if n > 0 { 32 } else { 0 };
            self.0.push(char::from(ALPHABET[low | more]));
            if n == 0 {
                return;
            }
        }
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
pub fn unpack(text: &str) -> Vec<u64> {
    let (mut out, mut n, mut shift) = (Vec::new(), 0u64, 0);
    for c in text.bytes() {
        let digit = ALPHABET.iter().position(|&a| a == c).unwrap() as u64;
        n |= (digit & 31) << shift;
        shift += 5;
        if digit < 32 {
            out.push(n);
            (n, shift) = (0, 0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 31, 32, 5000, 1 << 40, u64::MAX];
        let mut packed = Packed::default();
        numbers.iter().for_each(|&n| packed.push(n));
        assert_eq!(unpack(&packed.into_text()), numbers);
    }
}
