//! Where dicts, types, instances and ints keep what thread names need: `threading._active` is a
//! dict of int to instance, and a name is an instance's attribute. This file holds only the layout;
//! the reader walks the objects and bounds each walk.

use super::field::Field;
use crate::ids::Addr;

/// Everything beyond `str` and `bytes` that is read out of Python objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Containers {
    /// `PyDictObject`.
    pub dict: Dict,
    /// `PyDictKeysObject` and its entries.
    pub keys: DictKeys,
    /// `PyDictValues`: bytes before the first value, both where a split dict's `ma_values` points
    /// and for values inside an instance. 0 up to 3.12 (a bare array), 8 from 3.13 (capacity, size,
    /// embedded, valid: a byte each).
    pub values_header: u32,
    /// `PyTypeObject`.
    pub type_: Type,
    /// Instances whose type has [`Managed::type_flag`], 3.11+. Any other instance's dict pointer is
    /// at its type's `tp_dictoffset`, if positive.
    pub managed: Option<Managed>,
    /// `PyLongObject`, digits of 30 bits.
    pub int: Int,
    /// `PyModuleObject.md_dict`.
    pub module_dict: Field<Addr>,
}

/// `PyDictObject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dict {
    /// `ma_keys`: a `PyDictKeysObject`.
    pub keys: Field<Addr>,
    /// `ma_values`: null for a combined table, else the value of entry `i` is the `i`th pointer
    /// after [`Containers::values_header`].
    pub values: Field<Addr>,
}

/// `PyDictKeysObject`: a header, the index table, then the entries in insertion order (deleted ones
/// have a null value).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DictKeys {
    /// The size of the header in bytes, which is the offset of the index table (`dk_indices`).
    pub header: u32,
    /// The length of the index table.
    pub indices: Indices,
    /// `dk_nentries`: the number of entries used, holes included.
    pub entries: Field<i64>,
    /// `dk_kind` (byte): 0 has general entries, anything else unicode ones. `None`: always general
    /// (up to 3.10).
    pub kind: Option<Field<u8>>,
    /// `PyDictKeyEntry`.
    pub general: DictEntry,
    /// `PyDictUnicodeEntry`; the same as `general` in versions without it.
    pub unicode: DictEntry,
}

/// How the length of `dk_indices` is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indices {
    /// `dk_size` slots, each of 1 byte up to 0xff of them, 2 up to 0xffff, 4 up to 0xffffffff, else
    /// 8 (up to 3.10).
    Slots(Field<i64>),
    /// `dk_log2_index_bytes`: 1 shifted by it is the length in bytes (3.11+).
    Log2Bytes(Field<u8>),
}

/// One entry of a dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DictEntry {
    /// Bytes from one entry to the next.
    pub size: u32,
    /// `me_key`.
    pub key: Field<Addr>,
    /// `me_value`; meaningless in a split table.
    pub value: Field<Addr>,
}

/// `PyTypeObject`, and `PyHeapTypeObject` behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    /// The size that holds every field named here but `cached_keys`, in bytes.
    pub size: u32,
    /// `tp_name`: a C string.
    pub name: Field<Addr>,
    /// `tp_basicsize`.
    pub basicsize: Field<i64>,
    /// `tp_flags`.
    pub flags: Field<u64>,
    /// `tp_dictoffset`.
    pub dictoffset: Field<i64>,
    /// `PyHeapTypeObject.ht_cached_keys`: the keys that its instances' values share. Only of a type
    /// with [`Type::heap_flag`].
    pub cached_keys: Field<Addr>,
    /// `Py_TPFLAGS_HEAPTYPE`, as a mask.
    pub heap_flag: u64,
}

/// Instances that keep their attributes before or inside themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Managed {
    /// `Py_TPFLAGS_MANAGED_DICT`, as a mask.
    pub type_flag: u64,
    /// Where the dict pointer is, from the object's address (negative: before it). May be null.
    pub dict: i32,
    /// Where the values are while there is no dict.
    pub values: Values,
}

/// Where an instance without a dict has its values. Value `i` belongs to entry `i` of its type's
/// `ht_cached_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// 3.11: a pointer to the values, this far from the object; null when there is a dict.
    Pointer(i32),
    /// 3.12: [`Managed::dict`] itself holds the values' address minus 1 when its bit 0 is set, else
    /// the dict.
    TaggedDict,
    /// 3.13+: in the object itself, `tp_basicsize` bytes from its start, if the type has
    /// `type_flag` (`Py_TPFLAGS_INLINE_VALUES`) and the byte `valid` of the header is not 0. They
    /// are current even while a dict exists that was made from them.
    Inline {
        /// `Py_TPFLAGS_INLINE_VALUES`, as a mask.
        type_flag: u64,
        /// `PyDictValues.capacity`: how many values there are room for.
        capacity: Field<u8>,
        /// `PyDictValues.valid`.
        valid: Field<u8>,
    },
}

/// `PyLongObject`: digit `i` counts 2^(30 i).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// The field that holds the number of digits.
    pub digits: Digits,
    /// `ob_digit`: the first of the `u32` digits.
    pub data: u32,
}

/// How a `PyLongObject` encodes its number of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digits {
    /// `ob_size`, negative for a negative number (up to 3.11).
    Signed(Field<i64>),
    /// `lv_tag`: the number in the bits from 3 up; the low two bits are 0 positive, 1 zero, 2
    /// negative (3.12+).
    Tag(Field<u64>),
}
