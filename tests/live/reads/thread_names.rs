//! Thread names and code objects of live interpreters, read from outside and compared with the
//! interpreter's own.
//!
//! The target prints the expected values (`workloads/objects.py`).

use crate::harness::Suite;
use crate::on;
use crate::support::{self, layout_probe};
use gilprof::ids::Addr;
use gilprof::process::memory::{Memory, ReadError};
use gilprof::python::code::{fingerprint_span, CodeCache};
use gilprof::python::objects::{read_bytes, read_str, read_type_name, read_u64_int};
use gilprof::python::thread_names;
use layout_probe::LayoutProbe;
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashMap;
use support::{all, interpreters, Interpreter};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters(), [names_of_all_threads, torn_reads_are_survived, code_objects, objects]);
}

fn address(value: &Value) -> Addr {
    Addr(value.as_u64().unwrap())
}

/// The list that the target printed under `key`.
fn printed<'a>(known: &'a LayoutProbe, key: &str) -> &'a [Value] {
    known.target.fact(key).as_array().unwrap()
}

fn names_of_all_threads(interpreter: &Interpreter) {
    let (label, known) = (&interpreter.label, &LayoutProbe::start(interpreter, "objects"));
    let expected: HashMap<u64, String> =
        printed(known, "names").iter().map(|pair| (address(&pair[0]).0, pair[1].as_str().unwrap().into())).collect();
    assert_eq!(thread_names::read(known, &known.layout, known.interpreter), expected, "{label}");
    let nowhere = thread_names::read(known, &known.layout, Addr(8));
    assert!(nowhere.is_empty(), "{label}");
}

/// A live target some of whose reads return wrong bytes, as if its memory moved under the reader or
/// were hostile.
struct Torn<'a> {
    mem: &'a LayoutProbe,
    random: Cell<u64>,
}

impl Torn<'_> {
    /// Xorshift: one read in sixteen is wrong.
    fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        x
    }
}

impl Memory for Torn<'_> {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.mem.read(at, into)?;
        if self.random().is_multiple_of(16) && !into.is_empty() {
            let place = self.random() as usize % into.len();
            into[place] ^= self.random() as u8;
        }
        Ok(())
    }
}

fn torn_reads_are_survived(interpreter: &Interpreter) {
    let (label, known) = (&interpreter.label, &LayoutProbe::start(interpreter, "objects"));
    let count = printed(known, "names").len();
    let mut complete = 0;
    let seeds = if all() { 400 } else { 100 };
    for seed in 1..seeds {
        let mem = Torn { mem: known, random: Cell::new(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed)) };
        let names = thread_names::read(&mem, &known.layout, known.interpreter);
        assert!(names.len() <= count, "{label}");
        complete += u64::from(names.len() == count);
        for code in printed(known, "codes") {
            let _ = CodeCache::new().get(&mem, &known.layout, address(&code["at"]), None);
        }
    }
    assert!(complete < seeds - 1, "{label}: nothing was spoilt");
}

fn code_objects(interpreter: &Interpreter) {
    let (label, known) = (&interpreter.label, &LayoutProbe::start(interpreter, "objects"));
    let (mem, layout) = (known, &known.layout);
    let mut cache = CodeCache::new();
    for code in printed(known, "codes") {
        let at = address(&code["at"]);
        let span = fingerprint_span(layout);
        let mut fingerprint = vec![0; span.len as usize];
        mem.read(at.offset(u64::from(span.offset)), &mut fingerprint).unwrap();
        let info = cache.get(mem, layout, at, Some(&fingerprint)).unwrap();
        assert_eq!(info.function.name, code["name"], "{label}");
        assert_eq!(info.function.file, code["file"], "{label}");
        assert_eq!(info.first_line as i64, code["first_line"].as_i64().unwrap(), "{label}");
        for instruction in code["instructions"].as_array().unwrap() {
            let offset = instruction[0].as_i64().unwrap();
            assert_eq!(info.line_at_offset(offset).map(u64::from), instruction[1].as_u64(), "{label} {code} {offset}");
            let call = instruction[2].as_bool().unwrap();
            assert_eq!(info.is_call_at(mem, layout, offset), Some(call), "{label} {code} {offset}");
        }
        let again = cache.get(mem, layout, at, None).unwrap();
        assert!(std::sync::Arc::ptr_eq(&info, &again), "{label}");
    }
    // Objects of other types are refused, with and without a known code object.
    let no_code = address(&printed(known, "objects")[0][0]);
    assert!(cache.get(mem, layout, no_code, None).is_err(), "{label}");
    assert!(CodeCache::new().get(mem, layout, no_code, None).is_err(), "{label}");
}

fn objects(interpreter: &Interpreter) {
    let (label, known) = (&interpreter.label, &LayoutProbe::start(interpreter, "objects"));
    let (mem, layout) = (known, &known.layout);
    for object in printed(known, "objects") {
        let (at, kind, value) = (address(&object[0]), object[1].as_str().unwrap(), &object[2]);
        assert_eq!(read_type_name(mem, layout, at).unwrap(), kind, "{label}");
        assert_eq!(read_str(mem, layout, at, 40).ok().as_deref(), value.as_str().filter(|_| kind != "bytes"), "{label} {object}");
        assert_eq!(read_u64_int(mem, layout, at).ok(), value.as_u64(), "{label} {object}");
        let bytes = read_bytes(mem, layout, at, 4).ok().map(|b| String::from_utf8(b).unwrap());
        assert_eq!(bytes.as_deref(), value.as_str().filter(|_| kind == "bytes"), "{label} {object}");
    }
}
