//! The layout that a target from 3.13 on publishes at the start of `_PyRuntime`
//! (`_Py_DebugOffsets`), completed from the version's table.
//!
//! The bytes come from the target and are untrusted: `validate` checks them before they are used.
//! Published values take precedence over probed ones. An unpublished value is used only if its
//! published neighbours are where they were probed, or moved together with them:
//!
//! - the GIL's spans, interval and switch number only if `locked` and `last_holder` agree, else the
//!   layout is refused (it is of another build);
//! - the top of the datastack only if `datastack_chunk` agrees, else there is none and frames are
//!   read one by one;
//! - the dict of a module follows the object header, whose size is published; members of types move
//!   with `tp_name`.

use super::containers::{Containers, Dict, Digits, Int, Type};
use super::field::Field;
use super::unpublished::Unpublished;
use super::validate::{CheckedFields, LayoutError, PublishedField, PublishedFields};
use super::{
    for_version, Anchor, Bytecode, CodeLayout, FrameLayout, GilLayout, InterpreterLayout, Layout, LayoutTable, LineFormat, Minor,
    ObjectLayout, Owner, Position, RuntimeLayout, ThreadLayout,
};

/// The first bytes of `_PyRuntime` from 3.13 on.
pub const COOKIE: &[u8; 8] = b"xdebugpy";

/// How many bytes of `_PyRuntime` to read: more than any version's `_Py_DebugOffsets` (888 bytes in
/// 3.15), far less than `_PyRuntime` has.
pub const READ_LEN: usize = 2048;

/// What the target publishes about its build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedBuild {
    /// Its version as text, such as `3.14.10` or `3.15.0rc1`.
    pub version: String,
    /// Its feature release.
    pub minor: Minor,
    /// Whether the build is free-threaded (its GIL may be off or on).
    pub free_threaded: bool,
}

/// Reads only the head, enough to name a version that cannot be read. Only the cookie is checked.
pub fn published_build(bytes: &[u8]) -> Result<PublishedBuild, LayoutError> {
    let word = |i: usize| bytes.get(i * 8..).and_then(|rest| rest.first_chunk::<8>());
    if word(0) != Some(COOKIE) {
        return Err(LayoutError::NoCookie);
    }
    let short = LayoutError::TooShort { len: bytes.len(), need: 24 };
    let (Some(version), Some(free_threaded)) = (word(1), word(2)) else { return Err(short) };
    let version = u64::from_le_bytes(*version);
    let minor = Minor((version >> 24) as u8, (version >> 16) as u8);
    Ok(PublishedBuild { version: version_text(version), minor, free_threaded: u64::from_le_bytes(*free_threaded) != 0 })
}

/// The whole layout of a target, from the first [`READ_LEN`] bytes of its `_PyRuntime`; somewhat
/// fewer are enough.
pub fn layout_from_target(bytes: &[u8]) -> Result<(Layout, PublishedBuild), LayoutError> {
    let build = published_build(bytes)?;
    let Some(LayoutTable::Partial { default, free_threaded }) = for_version(build.minor) else {
        return Err(LayoutError::UnknownVersion(build.minor));
    };
    if build.version.contains(['a', 'b']) {
        return Err(LayoutError::PreRelease(build.version));
    }
    let unpublished = if build.free_threaded { free_threaded } else { default };
    let checked = PublishedFields::read(bytes, unpublished.published)?.check()?;
    Ok((complete(&checked, unpublished)?, build))
}

/// `PY_VERSION_HEX` as text. Four bytes that are no version give a text that names none.
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

fn complete(c: &CheckedFields, unpublished: &Unpublished) -> Result<Layout, LayoutError> {
    Ok(Layout {
        minor: unpublished.minor,
        runtime: runtime(c, unpublished)?,
        interpreter: interpreter(c)?,
        gil: gil(c, unpublished)?,
        thread: thread(c, unpublished)?,
        frame: frame(c, unpublished)?,
        code: code(c)?,
        object: object(c, unpublished)?,
        containers: containers(c, unpublished)?,
        call_opcodes: unpublished.call_opcodes,
    })
}

fn runtime(c: &CheckedFields, unpublished: &Unpublished) -> Result<RuntimeLayout, LayoutError> {
    let head = c.require(PublishedField::RuntimeInterpretersHead)?;
    let main = head + unpublished.main_after_head;
    inside(c, PublishedField::RuntimeSize, PublishedField::RuntimeInterpretersHead, main)?;
    Ok(RuntimeLayout { interpreters_head: Field::at(head), interpreters_main: Field::at(main), gil: None, gc_collecting: None })
}

fn interpreter(c: &CheckedFields) -> Result<InterpreterLayout, LayoutError> {
    Ok(InterpreterLayout {
        next: Field::at(c.require(PublishedField::InterpreterNext)?),
        threads_head: Field::at(c.require(PublishedField::InterpreterThreadsHead)?),
        gil: Some(Field::at(c.require(PublishedField::InterpreterGil)?)),
        modules: Some(Field::at(c.require(PublishedField::InterpreterModules)?)),
        gc_collecting: Some(Field::at(c.require(PublishedField::InterpreterGc)? + c.require(PublishedField::GcCollecting)?)),
    })
}

/// The two published members are offsets from the interpreter, whose own GIL is inside it.
/// `enabled` is not used, because its published 0 means both "first" in a free-threaded build and
/// "none" in any other.
fn gil(c: &CheckedFields, unpublished: &Unpublished) -> Result<GilLayout, LayoutError> {
    let own = c.require(PublishedField::InterpreterOwnGil)?;
    let members = [
        (PublishedField::InterpreterOwnGilLocked, unpublished.gil.locked.offset()),
        (PublishedField::InterpreterOwnGilHolder, unpublished.gil.last_holder.offset()),
    ];
    for (field, probed) in members {
        if c.require(field)?.checked_sub(own).map(|at| at as usize) != Some(probed) {
            return Err(LayoutError::Disagrees(field));
        }
    }
    Ok(unpublished.gil)
}

fn thread(c: &CheckedFields, unpublished: &Unpublished) -> Result<ThreadLayout, LayoutError> {
    let next = c.require(PublishedField::ThreadNext)?;
    let interp = c.require(PublishedField::ThreadInterp)?;
    let current_frame = c.require(PublishedField::ThreadCurrentFrame)?;
    let thread_id = c.require(PublishedField::ThreadId)?;
    let native_thread_id = c.require(PublishedField::ThreadNativeId)?;
    let end = c.require(PublishedField::ThreadSize)?;
    let top = unpublished.datastack.top.offset() as u32;
    let as_probed = c.require(PublishedField::ThreadDatastackChunk)? as usize == unpublished.datastack.chunk.offset() && top + 8 <= end;
    let datastack = as_probed.then_some(unpublished.datastack);
    let gil_requested = c.get(PublishedField::ThreadGilRequested).map(Field::at);
    let eval_breaker = Some(unpublished.eval_breaker).filter(|field| field.offset() == interp as usize + 8);
    let mut size = prefix(&[(next, 8), (interp, 8), (current_frame, 8), (thread_id, 8), (native_thread_id, 8)]);
    let optional = [(datastack.map(|d| d.top.offset()), 8), (gil_requested.map(Field::offset), 4), (eval_breaker.map(Field::offset), 8)];
    for (at, width) in optional {
        size = size.max(at.map_or(0, |at| at as u32 + width));
    }
    Ok(ThreadLayout {
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

fn frame(c: &CheckedFields, unpublished: &Unpublished) -> Result<FrameLayout, LayoutError> {
    let back = c.require(PublishedField::FramePrevious)?;
    let code = c.require(PublishedField::FrameExecutable)?;
    let position = c.require(PublishedField::FrameInstrPtr)?;
    let owner = c.require(PublishedField::FrameOwner)?;
    Ok(FrameLayout {
        size: prefix(&[(back, 8), (code, 8), (position, 8), (owner, 1)]),
        back: Field::at(back),
        code: Field::at(code),
        code_tag_mask: unpublished.code_tag_mask,
        position: Position::Pointer(Field::at(position)),
        owner: Some(Owner { field: Field::at(owner), first_not_python: unpublished.first_not_python }),
    })
}

fn code(c: &CheckedFields) -> Result<CodeLayout, LayoutError> {
    let filename = c.require(PublishedField::CodeFilename)?;
    let name = c.require(PublishedField::CodeName)?;
    let qualname = c.require(PublishedField::CodeQualname)?;
    let lines = c.require(PublishedField::CodeLinetable)?;
    let first_line = c.require(PublishedField::CodeFirstLine)?;
    let bytecode = c.require(PublishedField::CodeAdaptive)?;
    Ok(CodeLayout {
        filename: Field::at(filename),
        name: Field::at(name),
        qualname: Some(Field::at(qualname)),
        lines: Field::at(lines),
        first_line: Field::at(first_line),
        bytecode: Bytecode::Inline(bytecode),
        line_format: LineFormat::Locations,
    })
}

fn object(c: &CheckedFields, unpublished: &Unpublished) -> Result<ObjectLayout, LayoutError> {
    let ascii = c.require(PublishedField::UnicodeAsciiSize)?;
    Ok(ObjectLayout {
        type_: Field::at(c.require(PublishedField::ObjectType)?),
        bytes_size: Field::at(c.require(PublishedField::BytesLength)?),
        bytes_data: c.require(PublishedField::BytesData)?,
        unicode_length: Field::at(c.require(PublishedField::UnicodeLength)?),
        unicode_state: Field::at(c.require(PublishedField::UnicodeState)?),
        unicode_kind_shift: unpublished.unicode.kind_shift,
        unicode_compact_bit: unpublished.unicode.compact_bit,
        unicode_ascii_bit: unpublished.unicode.ascii_bit,
        unicode_ascii_data: ascii,
        unicode_compact_data: c.get(PublishedField::UnicodeCompactSize).unwrap_or(ascii + unpublished.unicode.compact_after_ascii),
    })
}

fn containers(c: &CheckedFields, unpublished: &Unpublished) -> Result<Containers, LayoutError> {
    let header = c.require(PublishedField::ObjectSize)?;
    let keys = c.require(PublishedField::DictKeys)?;
    let values = c.require(PublishedField::DictValues)?;
    Ok(Containers {
        dict: Dict { keys: Field::at(keys), values: Field::at(values) },
        type_: type_(c, &unpublished.containers.type_)?,
        int: Int { digits: Digits::Tag(Field::at(c.require(PublishedField::IntTag)?)), data: c.require(PublishedField::IntDigits)? },
        module_dict: Field::at(header),
        ..unpublished.containers
    })
}

fn type_(c: &CheckedFields, probed: &Type) -> Result<Type, LayoutError> {
    let name = c.require(PublishedField::TypeName)?;
    let flags = c.require(PublishedField::TypeFlags)?;
    let moved = |offset: usize| (name + offset as u32).saturating_sub(probed.name.offset() as u32);
    let basicsize = c.get(PublishedField::TypeBasicsize).unwrap_or_else(|| moved(probed.basicsize.offset()));
    let dictoffset = c.get(PublishedField::TypeDictoffset).unwrap_or_else(|| moved(probed.dictoffset.offset()));
    inside(c, PublishedField::TypeSize, PublishedField::TypeBasicsize, basicsize)?;
    inside(c, PublishedField::TypeSize, PublishedField::TypeDictoffset, dictoffset)?;
    let cached_keys = c.get(PublishedField::HeapTypeCachedKeys).unwrap_or_else(|| moved(probed.cached_keys.offset()));
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

/// Refuses a word that this version places at `at` without publishing it, unless its struct has
/// room for it.
fn inside(c: &CheckedFields, size: PublishedField, field: PublishedField, at: u32) -> Result<(), LayoutError> {
    let size = c.require(size)?;
    if at + 8 > size {
        return Err(LayoutError::Outside { field, value: at.into(), size: size.into() });
    }
    Ok(())
}

/// The smallest length that covers all of these (offset, width).
fn prefix(fields: &[(u32, u32)]) -> u32 {
    fields.iter().map(|(at, width)| at + width).max().unwrap_or(0)
}
