//! The C library of a process, by the symbols of its images. It decides how large a mutex is, and
//! where a thread sleeps that waits on a condition variable.
//!
//! File names only say which images are examined first. musl's loader is `ld-musl-x86_64.so.1` on
//! Alpine and `libc.so` elsewhere, and a program may bring it under any name. A static executable
//! has no symbol that tells, so its library is [`CLibrary::Unknown`].

use super::elf::{Depth, Image, Machine};
use super::maps::{Mapping, Maps};
use super::memory::Memory;
use serde::{Deserialize, Serialize};

/// The largest number of images that are examined.
const MAX_IMAGES: usize = 4096;
/// How the names of C libraries and their loaders begin.
const LIKELY: [&str; 2] = ["libc.", "ld-"];
/// A function of the last stage of musl's loader, which finds itself by this name since 1.1.9.
const MUSL: &str = "__dls3";
/// A function that glibc exports. Layers that run glibc's programs on musl export it too.
const GLIBC: &str = "gnu_get_libc_version";

/// A C library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CLibrary {
    /// GNU.
    Glibc,
    /// musl.
    Musl,
    /// Neither was recognised.
    #[default]
    Unknown,
}

/// What the sizes of the C library's structs depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abi {
    /// The machine.
    #[serde(default)]
    pub machine: Machine,
    /// The C library.
    #[serde(default)]
    pub c_library: CLibrary,
}

impl Abi {
    /// The size of `pthread_mutex_t`. `pthread_cond_t` has 48 bytes everywhere.
    pub fn mutex_size(self) -> u32 {
        match (self.machine, self.c_library) {
            (Machine::X86_64, _) | (Machine::Aarch64, CLibrary::Musl) => 40,
            (Machine::Aarch64, CLibrary::Glibc | CLibrary::Unknown) => 48,
        }
    }
}

impl CLibrary {
    /// The C library of a process.
    pub fn of(mem: &dyn Memory, maps: &Maps) -> CLibrary {
        let (likely, others): (Vec<&Mapping>, Vec<&Mapping>) = images(maps).into_iter().partition(|first| is_likely(first));
        [likely, others].iter().map(|images| among(mem, images)).find(|found| *found != CLibrary::Unknown).unwrap_or_default()
    }
}

/// The beginnings of the images that contain code.
fn images(maps: &Maps) -> Vec<&Mapping> {
    let (mut start, mut found): (Option<&Mapping>, Vec<&Mapping>) = (None, Vec::new());
    for mapping in maps.mappings.iter().filter(|mapping| mapping.file().is_some()) {
        if mapping.offset == 0 {
            start = Some(mapping);
        }
        let Some(first) = start.filter(|first| mapping.executable && first.same_file(mapping)) else { continue };
        if found.last() != Some(&first) && found.len() < MAX_IMAGES {
            found.push(first);
        }
    }
    found
}

fn is_likely(first: &Mapping) -> bool {
    first.file_name().is_some_and(|name| LIKELY.iter().any(|prefix| name.starts_with(prefix)))
}

/// musl where any of the images is musl's.
fn among(mem: &dyn Memory, images: &[&Mapping]) -> CLibrary {
    let mut found = CLibrary::Unknown;
    for first in images {
        let Ok(image) = Image::from_memory(mem, first.start) else { continue };
        match image.symbols(&[MUSL, GLIBC], Depth::Exported).as_slice() {
            [Some(_), _] => return CLibrary::Musl,
            [None, Some(_)] => found = CLibrary::Glibc,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Pid;
    use crate::process::live::LiveMemory;
    use crate::process::replay::ReplayMemory;

    const MAPS: &[u8] = b"400000-401000 r--p 00000000 08:01 1 /usr/bin/python3\n\
        401000-402000 r-xp 00001000 08:01 1 /usr/bin/python3\n\
        500000-501000 r--p 00000000 08:01 2 /usr/share/locale.archive\n\
        600000-601000 r-xp 00000000 08:01 3 /opt/ld-musl-x86_64.so.1\n\
        601000-602000 r-xp 00001000 08:01 3 /opt/ld-musl-x86_64.so.1\n\
        700000-701000 r-xp 00001000 08:01 4 /opt/without-a-beginning.so\n";

    #[test]
    fn images_begin_at_the_beginning_of_their_file() {
        let maps = Maps::parse(MAPS);
        let found: Vec<u64> = images(&maps).iter().map(|first| first.start.0).collect();
        assert_eq!(found, [0x40_0000, 0x60_0000]);
        // A name alone decides nothing.
        assert_eq!(CLibrary::of(&ReplayMemory::new(), &maps), CLibrary::Unknown);
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn this_program_uses_glibc() {
        let pid = Pid(std::process::id() as i32);
        assert_eq!(CLibrary::of(&LiveMemory::new(pid), &Maps::from_pid(pid).unwrap()), CLibrary::Glibc);
    }

    #[test]
    fn a_mutex_is_longer_only_with_glibc_on_arm() {
        let size = |machine, c_library| Abi { machine, c_library }.mutex_size();
        assert_eq!(size(Machine::X86_64, CLibrary::Glibc), 40);
        assert_eq!(size(Machine::Aarch64, CLibrary::Glibc), 48);
        assert_eq!(size(Machine::Aarch64, CLibrary::Musl), 40);
    }
}
