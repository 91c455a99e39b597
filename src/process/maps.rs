//! The mappings of a process: `/proc/PID/maps`, parsed as hostile text. A malformed line is skipped
//! and counted, never guessed.
//!
//! Paths are the target's: in its mount namespace, or as seen from outside for a chroot.
//! `mapped_file` opens them.

use super::procfs::live_task;
use crate::ids::{Addr, Pid};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

/// Longest text that is read. The kernel's own limit on mappings (65 530 by default) keeps it far
/// below this.
const MAX_TEXT: u64 = 128 << 20;
/// Most mappings that are stored.
pub const MAX_MAPPINGS: usize = 1 << 18;
/// A longer line counts as several. The longest has a path of 4096 bytes, each escaped as four.
const MAX_LINE: u64 = 32 << 10;
/// Most bytes of paths that are stored, in total. A path has up to four thousand, and a hostile
/// program may map one as often as it likes.
const MAX_PATHS: usize = 16 << 20;

/// The device that a mapped file is on, as the kernel prints it. On overlayfs and btrfs it is not
/// what `stat` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First byte.
    pub start: Addr,
    /// One past the last byte.
    pub end: Addr,
    /// `r`.
    pub readable: bool,
    /// `w`.
    pub writable: bool,
    /// `x`.
    pub executable: bool,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// The file's device.
    pub dev: Device,
    /// The file's inode; 0 for memory without a file.
    pub inode: u64,
    /// The file, or a name in brackets such as `[heap]`; without the kernel's ` (deleted)`.
    pub path: Option<String>,
    /// The file has been unlinked since.
    pub deleted: bool,
}

impl Mapping {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether it is empty; the kernel makes no such mapping.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the address lies in it.
    pub fn contains(&self, at: Addr) -> bool {
        at.within(self.start, self.len())
    }

    /// The path if it names a file, not `[heap]`.
    pub fn file(&self) -> Option<&str> {
        self.path.as_deref().filter(|path| path.starts_with('/') && self.inode != 0)
    }

    /// The last part of the path.
    pub fn file_name(&self) -> Option<&str> {
        self.file().and_then(|path| path.rsplit('/').next())
    }

    /// Whether two mappings show the same file.
    pub fn same_file(&self, other: &Mapping) -> bool {
        self.inode != 0 && (self.dev, self.inode) == (other.dev, other.inode) && self.path == other.path
    }
}

/// All mappings of a process, in the kernel's order: by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maps {
    /// The lines that could be parsed.
    pub mappings: Vec<Mapping>,
    /// Lines that could not be parsed, or were beyond a limit.
    pub skipped: usize,
}

impl Maps {
    /// Reads `/proc/PID/maps`. A kernel thread and a zombie have an empty list, which is no error.
    pub fn from_pid(pid: Pid) -> io::Result<Maps> {
        Maps::read(&mut BufReader::with_capacity(64 << 10, File::open(format!("/proc/{}/maps", live_task(pid)))?))
    }

    /// Parses the text of a maps file.
    pub fn parse(mut text: &[u8]) -> Maps {
        // Reading from a buffer in memory cannot fail.
        Maps::read(&mut text).unwrap_or_default()
    }

    /// Like [`Maps::parse`], but line by line: the whole text may be large.
    pub fn read(text: &mut dyn BufRead) -> io::Result<Maps> {
        let (mut maps, mut paths, mut line) = (Maps::default(), 0, Vec::new());
        let mut text = text.take(MAX_TEXT);
        while (&mut text).take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
            let whole = line.strip_suffix(b"\n").unwrap_or(&line);
            if !whole.is_empty() {
                let mapping = parse_line(whole).filter(|mapping| {
                    paths += mapping.path.as_ref().map_or(0, String::len);
                    maps.mappings.len() < MAX_MAPPINGS && paths <= MAX_PATHS
                });
                match mapping {
                    Some(mapping) => maps.mappings.push(mapping),
                    None => maps.skipped += 1,
                }
            }
            line.clear();
        }
        Ok(maps)
    }

    /// The mapping that contains an address.
    pub fn at(&self, address: Addr) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.contains(address))
    }

    /// All mappings of the same file as `like`.
    pub fn of_file<'a>(&'a self, like: &'a Mapping) -> impl Iterator<Item = &'a Mapping> {
        self.mappings.iter().filter(move |mapping| mapping.same_file(like))
    }
}

/// `55d0-55d1 r-xp 00001000 08:01 1234      /usr/bin/x (deleted)`
fn parse_line(line: &[u8]) -> Option<Mapping> {
    let (range, rest) = word(line)?;
    let (perms, rest) = word(rest)?;
    let (offset, rest) = word(rest)?;
    let (dev, rest) = word(rest)?;
    let (inode, rest) = word(rest)?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (hex(start)?, hex(end)?);
    let (major, minor) = dev.split_once(':')?;
    let dev = Device { major: hex(major)?.try_into().ok()?, minor: hex(minor)?.try_into().ok()? };
    let flag = |at: usize, letter: u8| perms.as_bytes().get(at) == Some(&letter);
    if start >= end || perms.len() != 4 {
        return None;
    }
    let (path, deleted) = path(rest);
    Some(Mapping {
        start: Addr(start),
        end: Addr(end),
        readable: flag(0, b'r'),
        writable: flag(1, b'w'),
        executable: flag(2, b'x'),
        offset: hex(offset)?,
        dev,
        inode: inode.parse().ok()?,
        path,
        deleted,
    })
}

/// The next word and what follows its single space.
fn word(line: &[u8]) -> Option<(&str, &[u8])> {
    let end = line.iter().position(|&byte| byte == b' ').unwrap_or(line.len());
    let text = std::str::from_utf8(&line[..end]).ok().filter(|text| !text.is_empty())?;
    Some((text, line.get(end + 1..).unwrap_or(&[])))
}

fn hex(text: &str) -> Option<u64> {
    // `from_str_radix` takes a leading `+`, which the kernel never prints.
    if text.starts_with('+') {
        return None;
    }
    u64::from_str_radix(text, 16).ok()
}

/// Parses the rest of a line: a path, which may contain spaces; the kernel writes a line break in
/// it as `\\012`.
fn path(rest: &[u8]) -> (Option<String>, bool) {
    let text = String::from_utf8_lossy(rest.trim_ascii_start()).replace("\\012", "\n");
    if text.is_empty() {
        return (None, false);
    }
    match text.strip_suffix(" (deleted)") {
        Some(name) => (Some(name.to_owned()), true),
        None => (Some(text), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_of_every_kind() {
        let text = b"00400000-0041f000 r--p 00001000 08:01 42                         /opt/my apps/python3.14\n\
            7f0000000000-7f0000001000 r-xp 00000000 fe:10 7 /usr/lib/libpython3.9.so.1.0 (deleted)\n\
            7f1000000000-7f1000001000 rw-p 00000000 00:00 0 \n\
            7f2000000000-7f2000001000 rw-p 00000000 00:00 0                          [heap]\n";
        let maps = Maps::parse(text);
        assert_eq!((maps.mappings.len(), maps.skipped), (4, 0));
        assert_eq!(maps.mappings[0].path.as_deref(), Some("/opt/my apps/python3.14"));
        assert_eq!((maps.mappings[0].offset, maps.mappings[0].inode), (0x1000, 42));
        assert!(maps.mappings[1].deleted && maps.mappings[1].executable && !maps.mappings[1].writable);
        assert_eq!(maps.mappings[1].file_name(), Some("libpython3.9.so.1.0"));
        assert_eq!(maps.mappings[1].dev, Device { major: 0xfe, minor: 0x10 });
        assert_eq!(maps.mappings[2].path, None);
        assert_eq!((maps.mappings[3].path.as_deref(), maps.mappings[3].file()), (Some("[heap]"), None));
        assert_eq!(maps.at(Addr(0x400010)).map(|m| m.start), Some(Addr(0x400000)));
    }

    #[test]
    fn malformed_lines_are_counted_and_skipped() {
        let maps =
            Maps::parse(b"x\n1000-0 r--p 0 0:0 0\n-5-6 r--p 0 0:0 0\n1-2 r--p 0 0:0 0 /ok\n\n1-2 r--p zz 0:0 0\n+1-2 r--p 0 0:0 0\n");
        assert_eq!((maps.mappings.len(), maps.skipped), (1, 5));
    }

    #[test]
    fn own_maps_hold_own_code() {
        let maps = Maps::from_pid(Pid(std::process::id() as i32)).unwrap();
        let here = Addr(own_maps_hold_own_code as *const () as u64);
        assert!(maps.at(here).unwrap().executable);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(text in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let maps = Maps::parse(&text);
            prop_assert!(maps.mappings.iter().all(|m| m.start < m.end));
        }

        #[test]
        fn nearly_valid_lines_parse_without_panic(lines in proptest::collection::vec("[0-9a-f]{0,17}-[0-9a-f]{0,17} [rwxps-]{3,5} [0-9a-f]{1,17} [0-9a-f]{1,9}:[0-9]{1,3} [0-9]{1,21}( .*)?", 0..20)) {
            let text = lines.join("\n");
            let maps = Maps::parse(text.as_bytes());
            prop_assert!(maps.mappings.iter().all(|m| m.start < m.end));
        }
    }
}
