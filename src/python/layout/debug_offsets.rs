//! The layout that a target from 3.13 on publishes at the start of `_PyRuntime` (`_Py_DebugOffsets`), completed from the version's table.
//!
//! The bytes are the target's and may say anything: they are checked (`validate`) before they are used. Published values win over probed ones.
//! An unpublished value is believed as far as its published neighbours are where they were probed, or moved together with them:
//! - the GIL's spans, interval and switch number only if `locked` and `last_holder` agree, else the layout is refused (it is of another build);
//! - the datastack's top only if `datastack_chunk` agrees, else there is none and frames are read one by one;
//! - members of objects move with the size of the object header (`Py_TRACE_REFS` builds), members of types with `tp_name`.

use super::containers::{Containers, Dict, Digits, Int, Type};
use super::field::Field;
use super::rest::Rest;
use super::validate::{Checked, Fact, Facts, LayoutError, RUNTIME_PREFIX};
use super::{
    for_version, Anchor, Bytecode, Code, Frame, Gil, Interpreter, Layout, LineFormat, Minor, Object, Owner, Position, Runtime, Table,
    Thread,
};

/// What `_PyRuntime` starts with from 3.13 on.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// How many bytes of `_PyRuntime` to read: more than any version's `_Py_DebugOffsets` (888 bytes in 3.15), far less than `_PyRuntime` has.
pub const READ_LEN: usize = 2048;

/// What the target says about itself, beyond its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFacts {
    /// Its version in words, such as `3.14.10` or `3.15.0rc1`.
    pub version: String,
    /// Its feature release.
    pub minor: Minor,
    /// Whether it is a free-threaded build (whose GIL may be off or on).
    pub free_threaded: bool,
}

/// Reads only the head: enough to name a version that cannot be read. Not checked beyond the cookie.
pub fn published_facts(bytes: &[u8]) -> Result<PublishedFacts, LayoutError> {
    let word = |i: usize| bytes.get(i * 8..).and_then(|rest| rest.first_chunk::<8>());
    if word(0) != Some(COOKIE) {
        return Err(LayoutError::NoCookie);
    }
    let short = LayoutError::TooShort { len: bytes.len(), need: 24 };
    let (Some(version), Some(free_threaded)) = (word(1), word(2)) else { return Err(short) };
    let version = u64::from_le_bytes(*version);
    let minor = Minor((version >> 24) as u8, (version >> 16) as u8);
    Ok(PublishedFacts { version: version_text(version), minor, free_threaded: u64::from_le_bytes(*free_threaded) != 0 })
}

/// The whole layout of a target, from the first [`READ_LEN`] bytes of its `_PyRuntime` (a little less will do).
pub fn layout_from_target(bytes: &[u8]) -> Result<(Layout, PublishedFacts), LayoutError> {
    let facts = published_facts(bytes)?;
    let Some(Table::Rest { default, free_threaded }) = for_version(facts.minor) else {
        return Err(LayoutError::UnknownVersion(facts.minor));
    };
    if facts.version.contains(['a', 'b']) {
        return Err(LayoutError::PreRelease(facts.version));
    }
    let rest = if facts.free_threaded { free_threaded } else { default };
    let checked = Facts::read(bytes, rest.published)?.check()?;
    Ok((complete(&checked, rest)?, facts))
}

/// `PY_VERSION_HEX` in words. Four bytes that are no version give a text that names none.
fn version_text(hex: u64) -> String {
    let [_, _, _, _, major, minor, micro, release] = hex.to_be_bytes();
    let serial = release & 0xf;
    let suffix = match release >> 4 {
        0xa => format!("a{serial}"),
        0xb => format!("b{serial}"),
        0xc => format!("rc{serial}"),
        _ => String::new(),
    };
    format!("{major}.{minor}.{micro}{suffix}")
}

fn complete(c: &Checked, rest: &Rest) -> Result<Layout, LayoutError> {
    Ok(Layout {
        minor: rest.minor,
        runtime: runtime(c, rest)?,
        interpreter: interpreter(c)?,
        gil: gil(c, rest)?,
        thread: thread(c, rest)?,
        frame: frame(c, rest)?,
        code: code(c)?,
        object: object(c, rest)?,
        containers: containers(c, rest)?,
        call_opcodes: rest.call_opcodes,
    })
}

fn runtime(c: &Checked, rest: &Rest) -> Result<Runtime, LayoutError> {
    let head = c.need(Fact::RuntimeInterpretersHead)?;
    let main = head + rest.main_after_head;
    let size = main + 8;
    if size > RUNTIME_PREFIX {
        return Err(LayoutError::TooLarge { fact: Fact::RuntimeInterpretersHead, value: head.into(), cap: RUNTIME_PREFIX.into() });
    }
    Ok(Runtime { size, interpreters_head: Field::at(head), interpreters_main: Field::at(main), gil: None })
}

fn interpreter(c: &Checked) -> Result<Interpreter, LayoutError> {
    Ok(Interpreter {
        next: Field::at(c.need(Fact::InterpreterNext)?),
        threads_head: Field::at(c.need(Fact::InterpreterThreadsHead)?),
        gil: Some(Field::at(c.need(Fact::InterpreterGil)?)),
        modules: Some(Field::at(c.need(Fact::InterpreterModules)?)),
        gc_collecting: Some(Field::at(c.need(Fact::InterpreterGc)? + c.need(Fact::GcCollecting)?)),
    })
}

/// The two published members are counted from the interpreter, whose own GIL is inside it; `enabled` is not used, because its published 0 is
/// both "first" in a free-threaded build and "none" in any other.
fn gil(c: &Checked, rest: &Rest) -> Result<Gil, LayoutError> {
    let own = c.need(Fact::InterpreterOwnGil)?;
    let members =
        [(Fact::InterpreterOwnGilLocked, rest.gil.locked.offset()), (Fact::InterpreterOwnGilHolder, rest.gil.last_holder.offset())];
    for (fact, probed) in members {
        if c.need(fact)?.checked_sub(own).map(|at| at as usize) != Some(probed) {
            return Err(LayoutError::Disagrees(fact));
        }
    }
    Ok(rest.gil)
}

fn thread(c: &Checked, rest: &Rest) -> Result<Thread, LayoutError> {
    let next = c.need(Fact::ThreadNext)?;
    let interp = c.need(Fact::ThreadInterp)?;
    let current_frame = c.need(Fact::ThreadCurrentFrame)?;
    let thread_id = c.need(Fact::ThreadId)?;
    let native_thread_id = c.need(Fact::ThreadNativeId)?;
    let end = c.need(Fact::ThreadSize)?;
    let top = rest.datastack.top.offset() as u32;
    let as_probed = c.need(Fact::ThreadDatastackChunk)? as usize == rest.datastack.chunk.offset() && top + 8 <= end;
    let datastack = as_probed.then_some(rest.datastack);
    let gil_requested = c.get(Fact::ThreadGilRequested).map(Field::at);
    let eval_breaker = Some(rest.eval_breaker).filter(|field| field.offset() == interp as usize + 8);
    let mut size = prefix(&[(next, 8), (interp, 8), (current_frame, 8), (thread_id, 8), (native_thread_id, 8)]);
    let optional = [(datastack.map(|d| d.top.offset()), 8), (gil_requested.map(Field::offset), 4), (eval_breaker.map(Field::offset), 8)];
    for (at, width) in optional {
        size = size.max(at.map_or(0, |at| at as u32 + width));
    }
    Ok(Thread {
        size,
        next: Field::at(next),
        interp: Field::at(interp),
        anchor: Anchor::Direct(Field::at(current_frame)),
        thread_id: Field::at(thread_id),
        native_thread_id: Some(Field::at(native_thread_id)),
        datastack,
        gil_requested,
        eval_breaker,
    })
}

fn frame(c: &Checked, rest: &Rest) -> Result<Frame, LayoutError> {
    let back = c.need(Fact::FramePrevious)?;
    let code = c.need(Fact::FrameExecutable)?;
    let position = c.need(Fact::FrameInstrPtr)?;
    let owner = c.need(Fact::FrameOwner)?;
    Ok(Frame {
        size: prefix(&[(back, 8), (code, 8), (position, 8), (owner, 1)]),
        back: Field::at(back),
        code: Field::at(code),
        code_tag_mask: rest.code_tag_mask,
        position: Position::Pointer(Field::at(position)),
        owner: Some(Owner { field: Field::at(owner), first_not_python: rest.first_not_python }),
    })
}

fn code(c: &Checked) -> Result<Code, LayoutError> {
    let filename = c.need(Fact::CodeFilename)?;
    let name = c.need(Fact::CodeName)?;
    let qualname = c.need(Fact::CodeQualname)?;
    let lines = c.need(Fact::CodeLinetable)?;
    let first_line = c.need(Fact::CodeFirstLine)?;
    let bytecode = c.need(Fact::CodeAdaptive)?;
    Ok(Code {
        size: prefix(&[(filename, 8), (name, 8), (qualname, 8), (lines, 8), (first_line, 4), (bytecode, 0)]),
        filename: Field::at(filename),
        name: Field::at(name),
        qualname: Some(Field::at(qualname)),
        lines: Field::at(lines),
        first_line: Field::at(first_line),
        bytecode: Bytecode::Inline(bytecode),
        line_format: LineFormat::Locations,
    })
}

fn object(c: &Checked, rest: &Rest) -> Result<Object, LayoutError> {
    let ascii = c.need(Fact::UnicodeAsciiSize)?;
    Ok(Object {
        type_: Field::at(c.need(Fact::ObjectType)?),
        bytes_size: Field::at(c.need(Fact::BytesLength)?),
        bytes_data: c.need(Fact::BytesData)?,
        unicode_length: Field::at(c.need(Fact::UnicodeLength)?),
        unicode_state: Field::at(c.need(Fact::UnicodeState)?),
        unicode_kind_shift: rest.unicode.kind_shift,
        unicode_compact_bit: rest.unicode.compact_bit,
        unicode_ascii_bit: rest.unicode.ascii_bit,
        unicode_ascii_data: ascii,
        unicode_compact_data: c.get(Fact::UnicodeCompactSize).unwrap_or(ascii + rest.unicode.compact_after_ascii),
    })
}

fn containers(c: &Checked, rest: &Rest) -> Result<Containers, LayoutError> {
    let header = c.need(Fact::ObjectSize)?;
    let keys = c.need(Fact::DictKeys)?;
    let values = c.need(Fact::DictValues)?;
    inside(c, Fact::DictSize, Fact::ObjectSize, header)?;
    Ok(Containers {
        dict: Dict {
            size: prefix(&[(header, 8), (keys, 8), (values, 8)]),
            used: Field::at(header),
            keys: Field::at(keys),
            values: Field::at(values),
        },
        type_: type_(c, &rest.containers.type_)?,
        int: Int { digits: Digits::Tag(Field::at(c.need(Fact::IntTag)?)), data: c.need(Fact::IntDigits)? },
        module_dict: Field::at(header),
        ..rest.containers
    })
}

fn type_(c: &Checked, probed: &Type) -> Result<Type, LayoutError> {
    let name = c.need(Fact::TypeName)?;
    let flags = c.need(Fact::TypeFlags)?;
    let moved = |offset: usize| (name + offset as u32).saturating_sub(probed.name.offset() as u32);
    let basicsize = c.get(Fact::TypeBasicsize).unwrap_or_else(|| moved(probed.basicsize.offset()));
    let dictoffset = c.get(Fact::TypeDictoffset).unwrap_or_else(|| moved(probed.dictoffset.offset()));
    inside(c, Fact::TypeSize, Fact::TypeBasicsize, basicsize)?;
    inside(c, Fact::TypeSize, Fact::TypeDictoffset, dictoffset)?;
    let cached_keys = c.get(Fact::HeapTypeCachedKeys).unwrap_or_else(|| moved(probed.cached_keys.offset()));
    Ok(Type {
        size: prefix(&[(name, 8), (flags, 8), (basicsize, 8), (dictoffset, 8)]),
        name: Field::at(name),
        basicsize: Field::at(basicsize),
        flags: Field::at(flags),
        dictoffset: Field::at(dictoffset),
        cached_keys: Field::at(cached_keys),
        heap_flag: probed.heap_flag,
    })
}

/// Refuses a word that was put at `at` by rule, not published there, unless its struct has room for it.
fn inside(c: &Checked, size: Fact, fact: Fact, at: u32) -> Result<(), LayoutError> {
    let size = c.need(size)?;
    if at + 8 > size {
        return Err(LayoutError::Outside { fact, value: at.into(), size: size.into() });
    }
    Ok(())
}

/// The smallest length that holds all of these (offset, width).
fn prefix(fields: &[(u32, u32)]) -> u32 {
    fields.iter().map(|(at, width)| at + width).max().unwrap_or(0)
}
