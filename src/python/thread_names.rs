//! `threading.Thread.name` of every thread, found as Python code would find it:
//! `sys.modules['threading']._active[ident]._name`.
//!
//! Names are optional: a name that cannot be read is left out, and nothing here is an error. The
//! target may change any of these dicts while they are read, so every object is checked for its
//! type, every count is bounded, and no loop follows links. Not for the hot path: a walk makes some
//! ten reads per thread.

use super::layout::containers::{DictEntry, Indices, Managed, Values};
use super::layout::Layout;
use super::objects::{
    expect_type, field_i64, field_ptr, field_u32, field_u64, max_int_size, parse_u64_int, read_str, read_u64_int, ObjectError, TypeFlag,
};
use crate::ids::Addr;
use crate::process::memory::{split_parts, Memory, Part};
use std::cell::Cell;
use std::collections::HashMap;

/// The longest name kept, in characters.
const MAX_NAME: usize = 128;
/// The largest number of entries read of one dict.
const MAX_ENTRIES: usize = 1 << 16;
/// The longest index table accepted, as a power of two in bytes.
const MAX_INDEX_LOG2: u8 = 30;
/// The largest number of entries read in one call, over all dicts of all interpreters: a hostile
/// target could give each of its threads a dict of [`MAX_ENTRIES`].
const WALK_BUDGET: usize = 1 << 20;
/// The part of the budget that one thread costs, besides its dict's entries.
const THREAD_COST: usize = 16;
/// Entries read at once.
const BLOCK: usize = 256;
/// The size of a pointer, in bytes.
const POINTER: u64 = 8;

/// Names by `ident` (`PyThreadState.thread_id`, which is `pthread_self()`), as far as they can be
/// read.
#[cfg(any(test, feature = "internals"))]
pub fn read<M: Memory + ?Sized>(mem: &M, layout: &Layout, interpreter: Addr) -> HashMap<u64, String> {
    read_missing(mem, layout, [interpreter], |_| true)
}

/// As [`read`], of several interpreters, and of those threads only whose ident is `wanted`. Of a
/// thread that several interpreters know, the first one's name counts.
pub fn read_missing<M: Memory + ?Sized>(
    mem: &M,
    layout: &Layout,
    interpreters: impl IntoIterator<Item = Addr>,
    wanted: impl Fn(u64) -> bool,
) -> HashMap<u64, String> {
    let reader = Reader { mem, layout, budget: Cell::new(WALK_BUDGET) };
    let mut names = HashMap::new();
    for interpreter in interpreters {
        let Ok(active) = reader.active(interpreter) else { continue };
        // A thread nearly always has the class of the thread before it.
        let mut last_class = None;
        reader.each_block(&active, |entries| {
            for (ident, &(_, thread)) in reader.idents(entries).into_iter().zip(entries) {
                let Some(ident) = ident.filter(|ident| wanted(*ident) && !names.contains_key(ident)) else { continue };
                if let Ok(name) = reader.thread_name(thread, &mut last_class) {
                    names.insert(ident, name);
                }
            }
            None::<()>
        });
    }
    names
}

/// A dict's table: the address of its keys, and of its values if they are separate.
#[derive(Clone, Copy, Debug)]
struct DictTable {
    entries: Addr,
    count: usize,
    entry: DictEntry,
    /// The first value of a split table.
    values: Option<Addr>,
}

/// The facts of a type that lead to an attribute of its instances.
#[derive(Clone, Copy, Debug)]
struct ThreadClass {
    type_: Addr,
    flags: u64,
    basicsize: i64,
    dictoffset: i64,
    /// The index of `_name` among the keys that instances share.
    shared_name: Option<usize>,
}

/// Where an instance keeps its attributes.
enum Attributes {
    Dict(Addr),
    /// The first value, and the largest number of values.
    Values(Addr, usize),
}

struct Reader<'a, M: ?Sized> {
    mem: &'a M,
    layout: &'a Layout,
    /// The rest of [`WALK_BUDGET`].
    budget: Cell<usize>,
}

fn garbage(expected: &'static str, at: Addr) -> ObjectError {
    ObjectError::Garbage { expected, at }
}

impl<M: Memory + ?Sized> Reader<'_, M> {
    /// An error once the walk's budget is spent.
    fn spend(&self, work: usize, at: Addr) -> Result<(), ObjectError> {
        let left = self.budget.get().checked_sub(work).ok_or(garbage("a program of a plausible size", at))?;
        self.budget.set(left);
        Ok(())
    }

    fn ptr(&self, at: Addr) -> Result<Addr, ObjectError> {
        match self.mem.read_ptr(at)? {
            Addr(0) => Err(garbage("a pointer", at)),
            found => Ok(found),
        }
    }

    fn type_of(&self, object: Addr) -> Result<Addr, ObjectError> {
        self.ptr(object.offset(self.layout.object.type_.offset() as u64))
    }

    /// The table of `threading._active`.
    fn active(&self, interpreter: Addr) -> Result<DictTable, ObjectError> {
        let field = self.layout.interpreter.modules.ok_or(garbage("a known offset of sys.modules", interpreter))?;
        let modules = self.dict(self.ptr(interpreter.offset(field.offset() as u64))?)?;
        let threading = self.lookup(&modules, "threading").ok_or(garbage("a loaded threading module", interpreter))?;
        let globals = self.ptr(threading.offset(self.layout.containers.module_dict.offset() as u64))?;
        let active = self.lookup(&self.dict(globals)?, "_active").ok_or(garbage("a module with _active", threading))?;
        self.dict(active)
    }

    fn dict(&self, at: Addr) -> Result<DictTable, ObjectError> {
        expect_type(self.mem, self.layout, at, self.type_of(at)?, TypeFlag::Dict)?;
        let dict = &self.layout.containers.dict;
        let keys = self.ptr(at.offset(dict.keys.offset() as u64))?;
        let values = self.mem.read_ptr(at.offset(dict.values.offset() as u64))?;
        let values = (!values.is_null()).then(|| values.offset(u64::from(self.layout.containers.values_header)));
        Ok(DictTable { values, ..self.keys(keys)? })
    }

    /// A keys object, read as a combined table.
    fn keys(&self, at: Addr) -> Result<DictTable, ObjectError> {
        let garbage = garbage("a dict's keys", at);
        let keys = &self.layout.containers.keys;
        let mut head = vec![0; keys.header as usize];
        self.mem.read(at, &mut head)?;
        let indices = match keys.indices {
            Indices::Slots(field) => field_i64(&head, field).and_then(index_bytes).ok_or(garbage)?,
            Indices::Log2Bytes(field) => match head.get(field.offset()) {
                Some(&log2) if log2 <= MAX_INDEX_LOG2 => 1 << log2,
                _ => return Err(garbage),
            },
        };
        let unicode = keys.kind.is_some_and(|field| head.get(field.offset()).is_some_and(|&kind| kind != 0));
        let count = field_i64(&head, keys.entries).and_then(|n| usize::try_from(n).ok()).ok_or(garbage)?;
        // An index takes at least one byte, and there are more indices than entries.
        if count as u64 > indices {
            return Err(garbage);
        }
        Ok(DictTable {
            entries: at.offset(u64::from(keys.header) + indices),
            count: count.min(MAX_ENTRIES),
            entry: if unicode { keys.unicode } else { keys.general },
            values: None,
        })
    }

    /// Calls `visit` with the (key, value) pairs, a block at a time and without holes, until it
    /// returns a value or a read fails.
    fn each_block<R>(&self, table: &DictTable, mut visit: impl FnMut(&[(Addr, Addr)]) -> Option<R>) -> Option<R> {
        for first in (0..table.count).step_by(BLOCK) {
            let pairs = self.block(table, first, BLOCK.min(table.count - first)).ok()?;
            if let Some(found) = visit(&pairs) {
                return Some(found);
            }
        }
        None
    }

    fn block(&self, table: &DictTable, first: usize, count: usize) -> Result<Vec<(Addr, Addr)>, ObjectError> {
        self.spend(count, table.entries)?;
        let size = table.entry.size as usize;
        let mut entries = vec![0; count * size];
        self.mem.read(table.entries.offset((first * size) as u64), &mut entries)?;
        let mut values = Vec::new();
        if let Some(start) = table.values {
            values.resize(count * POINTER as usize, 0);
            self.mem.read(start.offset(first as u64 * POINTER), &mut values)?;
        }
        let pairs = entries.chunks_exact(size).enumerate().filter_map(|(i, entry)| {
            let value = match table.values {
                Some(_) => pointer_at(&values, i)?,
                None => field_ptr(entry, table.entry.value)?,
            };
            let key = field_ptr(entry, table.entry.key)?;
            (!key.is_null() && !value.is_null()).then_some((key, value))
        });
        Ok(pairs.collect())
    }

    /// The value of the key that equals this ASCII string.
    fn lookup(&self, table: &DictTable, name: &str) -> Option<Addr> {
        self.each_block(table, |pairs| {
            let keys: Vec<Addr> = pairs.iter().map(|&(key, _)| key).collect();
            self.position(&keys, name).and_then(|i| pairs.get(i)).map(|&(_, value)| value)
        })
    }

    /// The index of the string that equals `name`, which is ASCII. All strings are read in one
    /// batch, only as far as `name` would reach.
    fn position(&self, strings: &[Addr], name: &str) -> Option<usize> {
        let size = self.layout.object.unicode_ascii_data as usize + name.len();
        let mut bytes = vec![0; strings.len() * size];
        let mut parts: Vec<Part> = strings.iter().map(|&at| Part::new(at, size)).collect();
        self.mem.read_batch(&mut parts, &mut bytes).ok()?;
        let found = split_parts(&parts, &bytes).position(|(part, bytes)| part.ok && self.is_ascii(bytes, name));
        found
    }

    /// Whether the start of an object, as far as `name` would reach, is that string.
    fn is_ascii(&self, object: &[u8], name: &str) -> bool {
        let o = &self.layout.object;
        let flags = field_u32(object, o.unicode_state).unwrap_or(0);
        flags >> o.unicode_compact_bit & flags >> o.unicode_ascii_bit & 1 == 1
            && field_i64(object, o.unicode_length) == Some(name.len() as i64)
            && object.ends_with(name.as_bytes())
    }

    /// The keys of a block's entries, as far as they are ints. All are read in one batch; one whose
    /// longest form reaches into memory that is not there is read alone.
    fn idents(&self, entries: &[(Addr, Addr)]) -> Vec<Option<u64>> {
        let size = max_int_size(self.layout);
        let mut bytes = vec![0; entries.len() * size];
        let mut parts: Vec<Part> = entries.iter().map(|&(key, _)| Part::new(key, size)).collect();
        if self.mem.read_batch(&mut parts, &mut bytes).is_err() {
            return Vec::new();
        }
        // All keys have the same type, unless the dict is damaged.
        let mut int_type = None;
        let is_int = |at: Addr, type_: Addr, known: &mut Option<Addr>| {
            *known == Some(type_) || expect_type(self.mem, self.layout, at, type_, TypeFlag::Int).map(|()| *known = Some(type_)).is_ok()
        };
        let ident = |(part, bytes): (&Part, &[u8])| match field_ptr(bytes, self.layout.object.type_).filter(|_| part.ok) {
            Some(type_) => is_int(part.at, type_, &mut int_type).then(|| parse_u64_int(self.layout, bytes))?,
            None => read_u64_int(self.mem, self.layout, part.at).ok(),
        };
        split_parts(&parts, &bytes).map(ident).collect()
    }

    fn thread_name(&self, thread: Addr, last_class: &mut Option<ThreadClass>) -> Result<String, ObjectError> {
        self.spend(THREAD_COST, thread)?;
        let type_ = self.type_of(thread)?;
        let class = match *last_class {
            Some(class) if class.type_ == type_ => class,
            _ => *last_class.insert(self.class(type_)?),
        };
        let missing = garbage("an instance with a _name", thread);
        let name = match self.attributes(thread, &class)? {
            Attributes::Dict(dict) => self.lookup(&self.dict(dict)?, "_name").ok_or(missing)?,
            Attributes::Values(first, count) => {
                let index = class.shared_name.filter(|&i| i < count).ok_or(missing)?;
                self.ptr(first.offset(index as u64 * POINTER))?
            }
        };
        read_str(self.mem, self.layout, name, MAX_NAME)
    }

    fn class(&self, type_: Addr) -> Result<ThreadClass, ObjectError> {
        let garbage = garbage("a type", type_);
        let fields = &self.layout.containers.type_;
        let mut head = vec![0; fields.size as usize];
        self.mem.read(type_, &mut head)?;
        let flags = field_u64(&head, fields.flags).ok_or(garbage)?;
        let shared_name = if flags & fields.heap_flag != 0 { self.shared_name(type_) } else { None };
        Ok(ThreadClass {
            type_,
            flags,
            basicsize: field_i64(&head, fields.basicsize).ok_or(garbage)?,
            dictoffset: field_i64(&head, fields.dictoffset).ok_or(garbage)?,
            shared_name,
        })
    }

    /// The index of `_name` among the keys that a heap type's instances share. Values follow the
    /// order of the keys, holes included.
    fn shared_name(&self, type_: Addr) -> Option<usize> {
        let cached = self.ptr(type_.offset(self.layout.containers.type_.cached_keys.offset() as u64)).ok()?;
        let table = self.keys(cached).ok()?;
        let (size, count) = (table.entry.size as usize, table.count.min(BLOCK));
        self.spend(count, type_).ok()?;
        let mut entries = vec![0; count * size];
        self.mem.read(table.entries, &mut entries).ok()?;
        let keys: Vec<Addr> = entries.chunks_exact(size).map(|entry| field_ptr(entry, table.entry.key).unwrap_or_default()).collect();
        self.position(&keys, "_name")
    }

    fn attributes(&self, object: Addr, class: &ThreadClass) -> Result<Attributes, ObjectError> {
        match self.layout.containers.managed {
            Some(managed) if class.flags & managed.type_flag != 0 => self.managed_attributes(object, class, &managed),
            _ if class.dictoffset > 0 => Ok(Attributes::Dict(self.ptr(object.offset(class.dictoffset as u64))?)),
            _ => Err(garbage("an instance with a dict", object)),
        }
    }

    fn managed_attributes(&self, object: Addr, class: &ThreadClass, managed: &Managed) -> Result<Attributes, ObjectError> {
        let header = u64::from(self.layout.containers.values_header);
        let dict_at = object.offset(i64::from(managed.dict) as u64);
        match managed.values {
            Values::Pointer(offset) => {
                let values = self.mem.read_ptr(object.offset(i64::from(offset) as u64))?;
                if !values.is_null() {
                    return Ok(Attributes::Values(values.offset(header), MAX_ENTRIES));
                }
            }
            Values::TaggedDict => {
                let tagged = self.ptr(dict_at)?;
                if tagged.0 & 1 == 1 {
                    return Ok(Attributes::Values(tagged.offset(1 + header), MAX_ENTRIES));
                }
            }
            Values::Inline { type_flag, capacity, valid } if class.flags & type_flag != 0 => {
                let values = object.offset(class.basicsize as u64);
                let mut head = vec![0; header as usize];
                self.mem.read(values, &mut head)?;
                let byte = |offset: usize| head.get(offset).copied().unwrap_or(0);
                if byte(valid.offset()) != 0 {
                    return Ok(Attributes::Values(values.offset(header), usize::from(byte(capacity.offset()))));
                }
            }
            Values::Inline { .. } => {}
        }
        Ok(Attributes::Dict(self.ptr(dict_at)?))
    }
}

fn pointer_at(values: &[u8], i: usize) -> Option<Addr> {
    values.get(i * POINTER as usize..)?.first_chunk().map(|&bytes| Addr(u64::from_le_bytes(bytes)))
}

/// The size in bytes of an index table of `slots` slots (up to 3.10).
fn index_bytes(slots: i64) -> Option<u64> {
    let slots = u64::try_from(slots).ok().filter(|n| n.is_power_of_two() && *n <= 1 << MAX_INDEX_LOG2)?;
    let width = match slots {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    };
    Some(slots * width)
}
