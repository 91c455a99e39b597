//! A target's published layout is untrusted: every value is checked here once, from one list,
//! before any read uses it.
//!
//! Two rules hold for a value that passes. A field lies, whole and aligned, inside the published
//! size of its struct, clear of its neighbours; and that size is at most a cap named here. So no
//! read that a published layout leads to exceeds these caps, whatever the target wrote.

use super::Minor;

/// `_PyRuntimeState`, some 400 kB in real builds; read field by field.
pub const RUNTIME_CAP: u64 = 16 << 20;
/// `PyInterpreterState`, some 300 kB in real builds; read field by field.
pub const INTERPRETER_CAP: u64 = 16 << 20;
/// `PyThreadState`, under 1 kB in real builds; read per thread and sample.
pub const THREAD_CAP: u64 = 16 << 10;
/// `_PyInterpreterFrame` without its locals, about 90 bytes in real builds; read per frame and
/// sample.
pub const FRAME_CAP: u64 = 1 << 10;
/// Every other struct: objects, types, code, the collector's state (about 1 kB at most in real
/// builds).
pub const OBJECT_CAP: u64 = 16 << 10;

/// Why a target's layout cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// No `_Py_DebugOffsets` at this address.
    #[error("no debug offsets: the runtime does not start with their cookie")]
    NoCookie,
    /// The bytes end too early.
    #[error("the debug offsets end after {len} bytes, {need} are needed")]
    TooShort {
        /// Bytes given.
        len: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A version without a table, or one whose table needs no debug offsets.
    #[error("Python {}.{} has no table for its debug offsets", .0.0, .0.1)]
    UnknownVersion(Minor),
    /// An alpha or beta: the layout still moved then.
    #[error("Python {0} is a pre-release, whose layout was not final")]
    PreRelease(String),
    /// A size that no real build has.
    #[error("{field:?} is {value}, which no real build has (at most {cap})")]
    TooLarge {
        /// The field.
        field: PublishedField,
        /// The published value.
        value: u64,
        /// The largest accepted value.
        cap: u64,
    },
    /// A field outside its struct, or not aligned.
    #[error("{field:?} is {value}, which is not a place inside its struct of {size} bytes")]
    Outside {
        /// The field.
        field: PublishedField,
        /// The published value.
        value: u64,
        /// The struct's published size.
        size: u64,
    },
    /// Two fields that overlap.
    #[error("{0:?} and {1:?} overlap")]
    Overlap(PublishedField, PublishedField),
    /// The published and the probed values of one struct contradict each other, so the unpublished
    /// ones cannot be trusted.
    #[error("{0:?} is not where this version has it: the build differs in ways that it does not publish")]
    Disagrees(PublishedField),
    /// A value that the reader needs and this version does not publish.
    #[error("{0:?} is not published")]
    Missing(PublishedField),
}

/// A value of `_Py_DebugOffsets` that gilprof uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is named after the struct and member of `_Py_DebugOffsets` that it is")]
pub enum PublishedField {
    RuntimeSize,
    RuntimeInterpretersHead,
    InterpreterSize,
    InterpreterNext,
    InterpreterThreadsHead,
    InterpreterGc,
    InterpreterModules,
    InterpreterGil,
    InterpreterOwnGil,
    InterpreterOwnGilLocked,
    InterpreterOwnGilHolder,
    GcSize,
    GcCollecting,
    ThreadSize,
    ThreadNext,
    ThreadInterp,
    ThreadCurrentFrame,
    ThreadId,
    ThreadNativeId,
    ThreadDatastackChunk,
    ThreadGilRequested,
    FrameSize,
    FramePrevious,
    FrameExecutable,
    FrameInstrPtr,
    FrameOwner,
    CodeSize,
    CodeFilename,
    CodeName,
    CodeQualname,
    CodeLinetable,
    CodeFirstLine,
    CodeAdaptive,
    ObjectSize,
    ObjectType,
    TypeSize,
    TypeName,
    TypeFlags,
    TypeBasicsize,
    TypeDictoffset,
    HeapTypeSize,
    HeapTypeCachedKeys,
    DictSize,
    DictKeys,
    DictValues,
    IntSize,
    IntTag,
    IntDigits,
    BytesSize,
    BytesLength,
    BytesData,
    UnicodeSize,
    UnicodeState,
    UnicodeLength,
    UnicodeAsciiSize,
    UnicodeCompactSize,
}

/// The rule that a published value must satisfy.
#[derive(Clone, Copy)]
enum Rule {
    /// The size of a struct, at most this.
    Size(u64),
    /// A field of the struct of this size, with its width in bytes, aligned to that. Width 0 is an
    /// end: it may equal the size.
    Field(PublishedField, u64),
    /// A struct of the second size inside one of the first.
    Part(PublishedField, PublishedField),
}

/// The list of rules. `_gil` and `collecting` are the only values counted through two structs;
/// `debug_offsets` combines them.
const RULES: &[(PublishedField, Rule)] = {
    use PublishedField::*;
    use Rule::*;
    &[
        (RuntimeSize, Size(RUNTIME_CAP)),
        (RuntimeInterpretersHead, Field(RuntimeSize, 8)),
        (InterpreterSize, Size(INTERPRETER_CAP)),
        (InterpreterNext, Field(InterpreterSize, 8)),
        (InterpreterThreadsHead, Field(InterpreterSize, 8)),
        (InterpreterGc, Part(InterpreterSize, GcSize)),
        (InterpreterModules, Field(InterpreterSize, 8)),
        (InterpreterGil, Field(InterpreterSize, 8)),
        (InterpreterOwnGil, Field(InterpreterSize, 0)),
        (InterpreterOwnGilLocked, Field(InterpreterSize, 4)),
        (InterpreterOwnGilHolder, Field(InterpreterSize, 8)),
        (GcSize, Size(OBJECT_CAP)),
        (GcCollecting, Field(GcSize, 4)),
        (ThreadSize, Size(THREAD_CAP)),
        (ThreadNext, Field(ThreadSize, 8)),
        (ThreadInterp, Field(ThreadSize, 8)),
        (ThreadCurrentFrame, Field(ThreadSize, 8)),
        (ThreadId, Field(ThreadSize, 8)),
        (ThreadNativeId, Field(ThreadSize, 8)),
        (ThreadDatastackChunk, Field(ThreadSize, 8)),
        (ThreadGilRequested, Field(ThreadSize, 4)),
        (FrameSize, Size(FRAME_CAP)),
        (FramePrevious, Field(FrameSize, 8)),
        (FrameExecutable, Field(FrameSize, 8)),
        (FrameInstrPtr, Field(FrameSize, 8)),
        (FrameOwner, Field(FrameSize, 1)),
        (CodeSize, Size(OBJECT_CAP)),
        (CodeFilename, Field(CodeSize, 8)),
        (CodeName, Field(CodeSize, 8)),
        (CodeQualname, Field(CodeSize, 8)),
        (CodeLinetable, Field(CodeSize, 8)),
        (CodeFirstLine, Field(CodeSize, 4)),
        (CodeAdaptive, Field(CodeSize, 1)),
        (ObjectSize, Size(OBJECT_CAP)),
        (ObjectType, Field(ObjectSize, 8)),
        (TypeSize, Size(OBJECT_CAP)),
        (TypeName, Field(TypeSize, 8)),
        (TypeFlags, Field(TypeSize, 8)),
        (TypeBasicsize, Field(TypeSize, 8)),
        (TypeDictoffset, Field(TypeSize, 8)),
        (HeapTypeSize, Size(OBJECT_CAP)),
        (HeapTypeCachedKeys, Field(HeapTypeSize, 8)),
        (DictSize, Size(OBJECT_CAP)),
        (DictKeys, Field(DictSize, 8)),
        (DictValues, Field(DictSize, 8)),
        (IntSize, Size(OBJECT_CAP)),
        (IntTag, Field(IntSize, 8)),
        (IntDigits, Field(IntSize, 4)),
        (BytesSize, Size(OBJECT_CAP)),
        (BytesLength, Field(BytesSize, 8)),
        (BytesData, Field(BytesSize, 1)),
        (UnicodeSize, Size(OBJECT_CAP)),
        (UnicodeState, Field(UnicodeSize, 4)),
        (UnicodeLength, Field(UnicodeSize, 8)),
        (UnicodeAsciiSize, Field(UnicodeSize, 0)),
        (UnicodeCompactSize, Field(UnicodeSize, 0)),
    ]
};

/// The number of published values.
const COUNT: usize = PublishedField::UnicodeCompactSize as usize + 1;

/// Published values before the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedFields([Option<u64>; COUNT]);

/// Values that passed [`PublishedFields::check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedFields([Option<u32>; COUNT]);

impl PublishedFields {
    /// Reads each value from its place in `_Py_DebugOffsets`.
    pub fn read(bytes: &[u8], places: &[(PublishedField, u16)]) -> Result<PublishedFields, LayoutError> {
        let mut values = [None; COUNT];
        for &(field, place) in places {
            let place = usize::from(place);
            let short = LayoutError::TooShort { len: bytes.len(), need: place + 8 };
            let value = bytes.get(place..).and_then(|rest| rest.first_chunk()).ok_or(short)?;
            values[field as usize] = Some(u64::from_le_bytes(*value));
        }
        Ok(PublishedFields(values))
    }

    /// Checks every value against its rule, and the fields of a struct against each other.
    pub fn check(&self) -> Result<CheckedFields, LayoutError> {
        let mut checked = [None; COUNT];
        for &(field, rule) in RULES {
            if let Some(value) = self.0[field as usize] {
                self.check_rule(field, value, rule)?;
                checked[field as usize] = u32::try_from(value).ok();
            }
        }
        self.check_disjoint()?;
        Ok(CheckedFields(checked))
    }

    fn check_rule(&self, field: PublishedField, value: u64, rule: Rule) -> Result<(), LayoutError> {
        let (inside, width) = match rule {
            Rule::Size(cap) if value <= cap => return Ok(()),
            Rule::Size(cap) => return Err(LayoutError::TooLarge { field, value, cap }),
            Rule::Field(inside, width) => (inside, width),
            Rule::Part(inside, part) => (inside, self.require(part)?),
        };
        let aligned = matches!(rule, Rule::Part(..)) || value.is_multiple_of(width.max(1));
        let size = self.require(inside)?;
        match value.checked_add(width) {
            Some(end) if end <= size && aligned => Ok(()),
            _ => Err(LayoutError::Outside { field, value, size }),
        }
    }

    fn check_disjoint(&self) -> Result<(), LayoutError> {
        let fields = RULES.iter().filter_map(|&(field, rule)| match (rule, self.0[field as usize]) {
            (Rule::Field(inside, width), Some(at)) if width > 0 => Some((field, inside, at, width)),
            _ => None,
        });
        for (i, (a, inside, at, width)) in fields.clone().enumerate() {
            for (b, other, place, len) in fields.clone().skip(i + 1) {
                if inside == other && at < place + len && place < at + width {
                    return Err(LayoutError::Overlap(a, b));
                }
            }
        }
        Ok(())
    }

    fn require(&self, field: PublishedField) -> Result<u64, LayoutError> {
        self.0[field as usize].ok_or(LayoutError::Missing(field))
    }
}

impl CheckedFields {
    /// A value; `None` where this version does not publish it.
    pub fn get(&self, field: PublishedField) -> Option<u32> {
        self.0[field as usize]
    }

    /// A value, or an error where this version does not publish it.
    pub fn require(&self, field: PublishedField) -> Result<u32, LayoutError> {
        self.get(field).ok_or(LayoutError::Missing(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `check` would drop a value without a rule, and check a value with two rules by either.
    #[test]
    fn every_published_field_has_one_rule_in_order() {
        assert_eq!(RULES.len(), COUNT);
        assert!(RULES.iter().enumerate().all(|(i, &(field, _))| field as usize == i));
    }

    #[test]
    fn caps_fit_in_the_offsets_of_a_table() {
        for &(_, rule) in RULES {
            if let Rule::Size(cap) = rule {
                assert!(u32::try_from(cap).is_ok());
            }
        }
    }
}
