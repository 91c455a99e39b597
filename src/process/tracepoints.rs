//! The descriptions of tracepoints in tracefs: their ids, and the offsets of their fields in a
//! record.
//!
//! An existing mount is read if there is one; otherwise a tracefs is mounted for gilprof alone,
//! attached nowhere (`sys_linux::tracefs`). The descriptions are the kernel's text, but are parsed
//! as untrusted text.

use super::sys_linux::tracefs::Detached;
use std::io::{self, Read};
use std::path::Path;

/// Usual mount points of tracefs.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// Longest description that is read; they have a few kB.
const MAX_TEXT: u64 = 1 << 16;
/// Most fields of one tracepoint.
const MAX_FIELDS: usize = 128;

/// A tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Its id, for perf_event_open(2).
    pub id: u64,
    fields: Vec<RecordField>,
}

/// A field of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RecordField {
    name: String,
    offset: u16,
    size: u16,
}

/// Reads tracepoints, each named like `syscalls/sys_enter_futex`.
pub fn find(names: &[&str]) -> io::Result<Vec<Tracepoint>> {
    let mut refused = None;
    for mount in MOUNTS {
        match read_all(Path::new(mount), names) {
            Ok(found) => return Ok(found),
            // No mount, or one that only root may read.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => refused = refused.or(Some(e)),
        }
    }
    let own = Detached::mount().map_err(|e| refused.unwrap_or(e))?;
    read_all(&own.path(), names)
}

fn read_all(mount: &Path, names: &[&str]) -> io::Result<Vec<Tracepoint>> {
    let one = |name: &&str| parse(&text(&mount.join("events").join(name).join("format"))?).ok_or_else(|| malformed(name));
    names.iter().map(one).collect()
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

fn malformed(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the description of the tracepoint {name} is malformed"))
}

/// Parses a `format` file: `ID: n`, then lines of `field:TYPE NAME; offset:n; size:n; …`.
pub fn parse(text: &str) -> Option<Tracepoint> {
    let id = text.lines().find_map(|line| line.strip_prefix("ID:"))?.trim().parse().ok()?;
    let fields = text.lines().filter_map(|line| field(line.trim())).take(MAX_FIELDS).collect();
    Some(Tracepoint { id, fields })
}

fn field(line: &str) -> Option<RecordField> {
    let mut parts = line.strip_prefix("field:")?.split(';').map(str::trim);
    let declaration = parts.next()?;
    let mut number = |key: &str| parts.next()?.strip_prefix(key)?.parse().ok();
    let (offset, size) = (number("offset:")?, number("size:")?);
    let name = declaration.rsplit([' ', '*']).next()?.split('[').next()?;
    (!name.is_empty()).then(|| RecordField { name: name.to_string(), offset, size })
}

impl Tracepoint {
    /// Offset of a field of eight bytes in the record; `None` if there is none of that name and
    /// size, or its offset is no multiple of 8.
    pub fn u64_offset(&self, name: &str) -> Option<u16> {
        let field = self.fields.iter().find(|f| f.name == name)?;
        (field.size == 8 && field.offset.is_multiple_of(8)).then_some(field.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENTER: &str = "name: sys_enter_futex\nID: 522\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:u32 * uaddr;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:int op;\toffset:24;\tsize:8;\tsigned:0;\n\
        \tfield:char comm[16];\toffset:32;\tsize:16;\tsigned:0;\n\n\
        print fmt: \"uaddr: 0x%08lx\", ((unsigned long)(REC->uaddr))\n";

    #[test]
    fn a_description_as_linux_6_writes_it() {
        let found = parse(ENTER).unwrap();
        assert_eq!(found.id, 522);
        assert_eq!((found.u64_offset("uaddr"), found.u64_offset("op")), (Some(16), Some(24)));
        assert_eq!((found.u64_offset("__syscall_nr"), found.u64_offset("comm"), found.u64_offset("ret")), (None, None, None));
    }

    #[test]
    fn malformed_descriptions_are_refused() {
        for bad in ["", "ID: x", "ID:", "ID: -1", "ID: 99999999999999999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let odd = parse("ID: 1\nfield:u64 a;\toffset:99999;\tsize:8;\nfield:;offset:8;size:8;\nfield:u64 b; size:8; offset:8;\nfield:u64 c;offset:12;size:8;");
        assert_eq!(
            odd.map(|t| (t.u64_offset("a"), t.u64_offset(""), t.u64_offset("b"), t.u64_offset("c"))),
            Some((None, None, None, None))
        );
    }

    proptest! {
        #[test]
        fn any_text_parses_without_panic(text in "(ID:|field:|offset:|size:|;|\\*|[ 0-9a-z\\[\n\t]|\\PC){0,200}") {
            let _ = parse(&text).map(|t| t.u64_offset("a"));
        }

        #[test]
        fn a_damaged_description_parses_without_panic(at in 0..ENTER.len(), with in any::<char>()) {
            let mut text = String::from(ENTER);
            text.replace_range(at..=at, &with.to_string());
            let _ = parse(&text).map(|t| t.u64_offset("uaddr"));
        }
    }
}
