//! Which CPython it is.
//!
//! The sources are tried in order of reliability: what the runtime publishes of itself (3.13+), the
//! exported constant `Py_Version` (3.11+), the banner that `sys.version` was made from (any
//! version, in the image's own variables), the literal `PY_VERSION` among its constants, and last
//! the names of files. Only the last may lack the patch level.

use super::layout::Minor;
use crate::ids::Addr;
use crate::process::elf::{Image, Symbol};
use crate::process::memory::{Memory, ReadError};

/// The first release whose runtime state gilprof reads.
const FIRST_READABLE: Minor = Minor(3, 7);
/// The largest sizes of variables and of constants that are searched.
const MAX_VARIABLES: u64 = 16 << 20;
const MAX_CONSTANTS: u64 = 128 << 20;
/// The number of bytes searched at a time, and the overlap of two pieces.
const CHUNK: usize = 256 << 10;
const OVERLAP: usize = 64;
/// The longest text of a version, in bytes.
const MAX_TEXT: usize = 16;

/// A version of CPython.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The feature release.
    pub minor: Minor,
    /// In full, such as `3.13.0` or `3.15.0a2`; only `3.9` where the patch level is unknown.
    pub text: String,
}

/// Which program can read a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSupport {
    /// gilprof itself: the interpreter has a `_PyRuntime`.
    Readable(Version),
    /// 2.7 and 3.3 - 3.6, without a `_PyRuntime`: py-spy can.
    Legacy(Version),
}

/// The beginning of `_Py_DebugOffsets`, 3.13+.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The version.
    pub version: Version,
    /// Offset of `interpreters.head` in the runtime, as published; not validated.
    pub interpreters_head: u64,
}

impl Version {
    /// From `PY_VERSION_HEX`.
    pub fn from_hex(hex: u64) -> Option<Version> {
        let hex = u32::try_from(hex).ok()?;
        let [major, minor, micro, release] = hex.to_be_bytes();
        let minor = plausible(Minor(major, minor))?;
        let serial = release & 15;
        let suffix = match release >> 4 {
            0xa => format!("a{serial}"),
            0xb => format!("b{serial}"),
            0xc => format!("rc{serial}"),
            0xf => String::new(),
            _ => return None,
        };
        Some(Version { minor, text: format!("{}.{}.{micro}{suffix}", minor.0, minor.1) })
    }

    /// From `3.9.18`, `3.14.0rc1+` or `3.9`.
    pub fn from_text(text: &str) -> Option<Version> {
        let mut parts = text.splitn(3, '.');
        let (major, minor) = (number(parts.next()?)?, number(parts.next()?)?);
        if let Some(patch) = parts.next() {
            let digits = patch.bytes().take_while(u8::is_ascii_digit).count();
            let (patch, suffix) = patch.split_at(digits);
            let of_suffix = |c: char| c.is_ascii_digit() || "abrc+".contains(c);
            number(patch).filter(|_| suffix.len() <= 6 && suffix.chars().all(of_suffix))?;
        }
        Some(Version { minor: plausible(Minor(major, minor))?, text: text.to_owned() })
    }

    /// From a file's name: `libpython3.7m.so.1.0`, `python3.13t`,
    /// `_json.cpython-39-x86_64-linux-gnu.so`. Never the patch level.
    pub fn from_file_name(name: &str) -> Option<Version> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let minor = if let Some((_, tag)) = name.split_once(".cpython-") {
            let (major, minor) = tag.get(..digits(tag))?.split_at_checked(1)?;
            Minor(number(major)?, number(minor)?)
        } else {
            let rest = name.strip_prefix("lib").unwrap_or(name).strip_prefix("python")?;
            let (major, rest) = rest.split_once('.')?;
            Minor(number(major)?, number(rest.get(..digits(rest))?)?)
        };
        let minor = plausible(minor)?;
        Some(Version { minor, text: format!("{}.{}", minor.0, minor.1) })
    }

    /// Whether the patch level is known.
    pub fn is_full(&self) -> bool {
        self.text.bytes().filter(|&byte| byte == b'.').count() == 2
    }
}

/// One to three digits without leading zeros.
fn number(text: &str) -> Option<u8> {
    let padded = text.len() > 1 && text.starts_with('0');
    (!text.is_empty() && !padded && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Versions that exist or may come. Most literals of the same form from SQLite, zlib and other
/// libraries are excluded here.
fn plausible(minor: Minor) -> Option<Minor> {
    ((Minor(2, 3)..=Minor(2, 7)).contains(&minor) || (Minor(3, 0)..=Minor(3, 40)).contains(&minor)).then_some(minor)
}

/// What the runtime at this address publishes of itself; `None` before 3.13.
pub fn published(mem: &dyn Memory, runtime: Addr) -> Result<Option<Published>, ReadError> {
    let mut bytes = [0; 48];
    mem.read(runtime, &mut bytes)?;
    let (cookie, numbers) = bytes.split_at(8);
    if cookie != b"xdebugpy" {
        return Ok(None);
    }
    let mut words = numbers.chunks_exact(8).map(|b| b.try_into().map_or(0, u64::from_le_bytes));
    let mut next = || words.next().unwrap_or(0);
    // version, free_threaded, runtime_state {size, finalizing, interpreters_head}
    let (version, _free_threaded, _size, _finalizing, head) = (next(), next(), next(), next(), next());
    Ok(Version::from_hex(version).map(|version| Published { version, interpreters_head: head }))
}

/// The version from the sources that need no `_Py_DebugOffsets`. `names` are file names, the
/// image's own first.
pub fn detect(mem: &dyn Memory, image: &Image<'_>, bias: u64, constant: Option<Symbol>, names: &[&str]) -> Option<Version> {
    // `unsigned long Py_Version`
    let exported = constant.and_then(|symbol| mem.read_u64(Addr(bias.wrapping_add(symbol.vaddr))).ok()).and_then(Version::from_hex);
    if exported.is_some() {
        return exported;
    }
    let named = names.iter().find_map(|name| Version::from_file_name(name));
    let minor = named.as_ref().map(|version| version.minor);
    let fits = |found: &Version| minor.is_none_or(|minor| minor == found.minor);
    banner(mem, image, bias).filter(fits).or_else(|| constant_literal(image, minor)).or(named)
}

/// Which program can read this version.
pub fn support(version: Version) -> VersionSupport {
    if version.minor < FIRST_READABLE {
        VersionSupport::Legacy(version)
    } else {
        VersionSupport::Readable(version)
    }
}

/// `Py_GetVersion` prints `3.9.18 (main, May  9 2026, 07:33:22) \n[GCC 12.2.0]` into a static
/// buffer when the interpreter starts.
fn banner(mem: &dyn Memory, image: &Image<'_>, bias: u64) -> Option<Version> {
    for segment in image.segments().iter().filter(|segment| segment.writable) {
        let read = |at: u64, into: &mut [u8]| mem.read(Addr(bias.wrapping_add(at)), into).is_ok();
        let found = search(segment.vaddr, segment.mem_size.min(MAX_VARIABLES), &read, &mut banner_in);
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The version at the beginning of a string, before ` (`.
fn banner_in(bytes: &[u8]) -> Option<Version> {
    bytes.windows(2).enumerate().filter(|(_, pair)| *pair == b" (").find_map(|(end, _)| {
        let before = &bytes[end.saturating_sub(MAX_TEXT + 1)..end];
        full(&before[before.iter().rposition(|&byte| byte == 0)? + 1..])
    })
}

/// The literal `PY_VERSION`. Linkers keep it as the tail of a longer literal when they can, such as
/// `/opt/python/3.9.18`. Where no minor version is known, literals of other libraries may have the
/// same form, so all that fit must agree.
fn constant_literal(image: &Image<'_>, minor: Option<Minor>) -> Option<Version> {
    let (start, size) = image.rodata()?;
    let mut seen: Option<Version> = None;
    let mut ambiguous = false;
    let read = |at: u64, into: &mut [u8]| image.read(at, into);
    let found = search(start, size.min(MAX_CONSTANTS), &read, &mut |bytes| {
        for (end, _) in bytes.iter().enumerate().filter(|(_, &byte)| byte == 0) {
            let Some(version) = tail(&bytes[..end]) else { continue };
            match minor {
                Some(minor) if minor == version.minor => return Some(version),
                Some(_) => {}
                None => ambiguous |= seen.replace(version.clone()).is_some_and(|before| before != version),
            }
        }
        None
    });
    found.or(seen.filter(|_| !ambiguous))
}

/// The version at the end of a string.
fn tail(bytes: &[u8]) -> Option<Version> {
    // Most strings end differently: a cheap check before parsing.
    if !matches!(bytes.last(), Some(b'0'..=b'9' | b'+')) {
        return None;
    }
    let of_version = |byte: &u8| byte.is_ascii_digit() || *byte == b'.' || b"abrc+".contains(byte);
    let start = bytes.iter().rposition(|byte| !of_version(byte)).map_or(0, |at| at + 1);
    full(&bytes[start..])
}

fn full(bytes: &[u8]) -> Option<Version> {
    let text = std::str::from_utf8(Some(bytes).filter(|bytes| bytes.len() <= MAX_TEXT)?).ok()?;
    Version::from_text(text).filter(Version::is_full)
}

/// Searches a range in overlapping pieces; a piece that cannot be read is skipped.
fn search<T>(start: u64, size: u64, read: &dyn Fn(u64, &mut [u8]) -> bool, each: &mut dyn FnMut(&[u8]) -> Option<T>) -> Option<T> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < size {
        let len = (size - done).min(CHUNK as u64) as usize;
        let piece = &mut buffer[..len];
        if read(start.wrapping_add(done), piece) {
            if let Some(found) = each(piece) {
                return Some(found);
            }
        }
        done += if len == CHUNK { (CHUNK - OVERLAP) as u64 } else { len as u64 };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hexadecimal_versions() {
        let text = |hex| Version::from_hex(hex).map(|version| version.text);
        assert_eq!(text(0x030d_00f0).as_deref(), Some("3.13.0"));
        assert_eq!(text(0x030e_00c2).as_deref(), Some("3.14.0rc2"));
        assert_eq!(text(0x030f_00a1).as_deref(), Some("3.15.0a1"));
        for bad in [0, 0x0900_00f0, 0x030d_0000, 0x1_030d_00f0] {
            assert_eq!(text(bad), None, "{bad:#x}");
        }
    }

    #[test]
    fn file_names() {
        let minor = |name| Version::from_file_name(name).map(|version| version.minor);
        for (name, expected) in [
            ("libpython3.7m.so.1.0", Some(Minor(3, 7))),
            ("libpython2.7.so.1.0", Some(Minor(2, 7))),
            ("python3.13t", Some(Minor(3, 13))),
            ("python3.9-dbg", Some(Minor(3, 9))),
            ("_json.cpython-310-x86_64-linux-gnu.so", Some(Minor(3, 10))),
            ("_json.cpython-39-x86_64-linux-gnu.so", Some(Minor(3, 9))),
            ("_x.cpython-3", None),
            ("_x.cpython-", None),
            ("libpython3.so", None),
            ("python3", None),
            ("python", None),
            ("python9.9", None),
        ] {
            assert_eq!(minor(name), expected, "{name}");
        }
    }

    #[test]
    fn texts() {
        let text = |text| Version::from_text(text).map(|version| (version.minor, version.is_full()));
        assert_eq!(text("3.9.18"), Some((Minor(3, 9), true)));
        assert_eq!(text("3.9"), Some((Minor(3, 9), false)));
        assert_eq!(text("3.14.0rc1+"), Some((Minor(3, 14), true)));
        for bad in ["02.7.18", "3.09.1", "3", "3.", "3.9.", "3.9.x", "3.41.2", "1.2.13", "3.9.1.2", "3.9.18 (", ".3.9", ""] {
            assert_eq!(text(bad), None, "{bad}");
        }
    }

    #[test]
    fn banners() {
        let text = |bytes: &[u8]| banner_in(bytes).map(|version| version.text);
        assert_eq!(text(b"abc (\x003.9.18 (main, May  9 2026)").as_deref(), Some("3.9.18"));
        assert_eq!(text(b"\x003.14.0rc1+ (").as_deref(), Some("3.14.0rc1+"));
        assert_eq!(text(b"x3.9.18 ("), None, "not the beginning of a string");
        assert_eq!(text(b"\x003.9.18abrcabrcabrc ("), None, "too long");
        // A search backwards to the last zero takes minutes here.
        let start = std::time::Instant::now();
        assert_eq!(text(&b" (".repeat(CHUNK / 2)), None);
        assert!(start.elapsed() < std::time::Duration::from_secs(10), "{:?}", start.elapsed());
    }

    #[test]
    fn tails() {
        let text = |bytes: &[u8]| tail(bytes).map(|version| version.text);
        assert_eq!(text(b"/opt/versions/3.9.18").as_deref(), Some("3.9.18"));
        assert_eq!(text(b"\x003.8.2").as_deref(), Some("3.8.2"));
        assert_eq!(text(b"1.3.8.2"), None);
        assert_eq!(text(b"3.8"), None);
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in ".{0,40}", bytes in proptest::collection::vec(any::<u8>(), 0..64), hex: u64) {
            let _ = (Version::from_text(&text), Version::from_file_name(&text), tail(&bytes), Version::from_hex(hex));
            let _ = Version::from_file_name(&format!("libpython{text}"));
        }
    }
}
