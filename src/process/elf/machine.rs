//! The machine that an image is built for. CPython's structs contain glibc's, whose sizes differ
//! between machines.

use serde::{Deserialize, Serialize};

/// `EM_X86_64` and `EM_AARCH64` of elf.h.
const KNOWN: [(u16, Machine); 2] = [(62, Machine::X86_64), (183, Machine::Aarch64)];
/// Offset of `e_machine` in the header.
const AT: usize = 18;

/// A machine whose programs can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Machine {
    /// x86-64; also the machine of a memory dump that names none.
    #[default]
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Machine {
    /// The machine that an ELF header names, if it is supported.
    pub fn from_header(header: &[u8]) -> Option<Machine> {
        let number = u16::from_le_bytes(*header.get(AT..)?.first_chunk()?);
        KNOWN.iter().find(|known| known.0 == number).map(|known| known.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_their_machine() {
        let header = |number: u8| [&[0; AT], &[number, 0][..]].concat();
        assert_eq!(Machine::from_header(&header(62)), Some(Machine::X86_64));
        assert_eq!(Machine::from_header(&header(183)), Some(Machine::Aarch64));
        assert_eq!(Machine::from_header(&header(243)), None, "RISC-V");
        assert_eq!(Machine::from_header(&header(62)[..=AT]), None);
    }
}
