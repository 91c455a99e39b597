//! Varints and length-prefixed bytes, written to a buffer and read from one. A read never passes
//! the end of the buffer; it returns [`Broken`] instead.

/// What is wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// The longest string. Names and paths of the target are cut long before this; a command line is at
/// most 2 MiB on Linux by default.
const MAX_STRING: u64 = 8 << 20;

/// Appends a number: seven bits per byte, least significant first.
pub fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends `now - before`, zigzag-encoded so that a small difference of either sign is short.
pub fn put_step(out: &mut Vec<u8>, before: u64, now: u64) {
    let step = now.wrapping_sub(before) as i64;
    put(out, (step << 1 ^ step >> 63) as u64);
}

/// Appends the length, then the bytes.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A cursor over the records of a chunk.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the first record.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// Whether every byte was read.
    pub fn is_done(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads one byte.
    pub fn byte(&mut self) -> Result<u8, Broken> {
        let (&first, rest) = self.rest.split_first().ok_or(Broken("a record is truncated"))?;
        self.rest = rest;
        Ok(first)
    }

    /// Reads a varint.
    pub fn number(&mut self) -> Result<u64, Broken> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Broken("a number is too long"))
    }

    /// Reads a varint that fits 32 bits.
    pub fn small(&mut self) -> Result<u32, Broken> {
        u32::try_from(self.number()?).map_err(|_| Broken("a number is too large"))
    }

    /// Reads a number that [`put_step`] wrote.
    pub fn step(&mut self, before: u64) -> Result<u64, Broken> {
        let number = self.number()?;
        let step = (number >> 1) as i64 ^ -((number & 1) as i64);
        Ok(before.wrapping_add(step as u64))
    }

    /// Reads bytes that [`put_bytes`] wrote.
    pub fn bytes(&mut self) -> Result<&'a [u8], Broken> {
        let length = self.number()?;
        if length > MAX_STRING || length > self.rest.len() as u64 {
            return Err(Broken("a string is too long"));
        }
        let (bytes, rest) = self.rest.split_at(length as usize);
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads bytes that are UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken("a string is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_round_trip(numbers: Vec<(u64, u64)>, bytes: Vec<u8>) {
            let mut out = Vec::new();
            for &(a, b) in &numbers {
                put(&mut out, a);
                put_step(&mut out, a, b);
            }
            put_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            for &(a, b) in &numbers {
                prop_assert_eq!(reader.number(), Ok(a));
                prop_assert_eq!(reader.step(a), Ok(b));
            }
            prop_assert_eq!(reader.bytes(), Ok(&bytes[..]));
            prop_assert!(reader.is_done() && reader.byte().is_err());
        }
    }

    #[test]
    fn malformed_values_are_errors() {
        assert!(Reader::new(&[0xff; 20]).number().is_err());
        assert!(Reader::new(&[5, 1, 2]).bytes().is_err());
        let mut long = Vec::new();
        put(&mut long, 1 << 40);
        assert!(Reader::new(&long).bytes().is_err());
        assert!(Reader::new(&long).small().is_err());
        assert!(Reader::new(&[1, 0xff]).text().is_err());
    }
}
