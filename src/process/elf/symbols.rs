//! Finds symbols by name: exported ones through the image's own hash table, with a few reads each;
//! the others by one pass over `.symtab`.

use super::image::{Image, ImageSource, Section};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Longest chain of a hash table that is followed.
const MAX_CHAIN: u32 = 1 << 16;
/// Most entries of `PT_DYNAMIC` that are read.
const MAX_DYNAMIC: u64 = 512;
/// Largest `.symtab` or `.strtab` that is searched.
const MAX_TABLE: u64 = 1 << 30;
/// Bytes read at a time; a multiple of a symbol's size.
const CHUNK: usize = SYMBOL as usize * 16384;
/// `sizeof(Elf64_Sym)`.
const SYMBOL: u64 = 24;
/// Most strings that end like a wanted name and so may contain it.
const MAX_TAILS: usize = 64;
/// Longest name that can be searched for.
const MAX_NAME: usize = 64;

/// How far to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Exported symbols only: microseconds.
    Exported,
    /// `.symtab` too, in the file: up to a second for the largest files.
    All,
}

/// The location of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Address before the load bias.
    pub vaddr: u64,
    /// Size in bytes; 0 if the linker did not record it.
    pub size: u64,
}

/// The tables that `PT_DYNAMIC` names, as addresses before the load bias.
#[derive(Clone, Copy, Debug, Default)]
struct Tables {
    symbols: u64,
    strings: u64,
    gnu_hash: u64,
    hash: u64,
}

impl Image<'_> {
    /// Finds each name; the results are in the order of the names.
    pub fn symbols(&self, names: &[&str], depth: Depth) -> Vec<Option<Symbol>> {
        let tables = self.tables();
        let mut found: Vec<Option<Symbol>> = names.iter().map(|name| tables.and_then(|t| self.exported(&t, name))).collect();
        if let (Depth::All, ImageSource::File(file), Some(symtab)) = (depth, &self.source, self.symtab) {
            if found.iter().any(Option::is_none) {
                all(file, symtab, names, &mut found);
            }
        }
        found
    }

    fn tables(&self) -> Option<Tables> {
        let dynamic = self.dynamic?;
        let mut tables = Tables::default();
        let mut entry = [0; 16];
        for i in 0..(dynamic.size / 16).min(MAX_DYNAMIC) {
            if !self.read(dynamic.vaddr.wrapping_add(i * 16), &mut entry) {
                break;
            }
            let value = self.unrelocated(word(&entry, 8));
            match word(&entry, 0) {
                0 => break,
                4 => tables.hash = value,
                5 => tables.strings = value,
                6 => tables.symbols = value,
                0x6fff_fef5 => tables.gnu_hash = value,
                _ => {}
            }
        }
        (tables.symbols != 0 && tables.strings != 0).then_some(tables)
    }

    /// glibc adds the load bias to the addresses in the dynamic section of a loaded image; musl
    /// does not.
    fn unrelocated(&self, value: u64) -> u64 {
        let inside = |at: u64| self.segments.iter().any(|s| at.wrapping_sub(s.vaddr) < s.mem_size);
        match self.source {
            ImageSource::Memory(_, bias) if !inside(value) => value.wrapping_sub(bias),
            _ => value,
        }
    }

    fn exported(&self, tables: &Tables, name: &str) -> Option<Symbol> {
        if tables.gnu_hash != 0 {
            return self.by_gnu_hash(tables, name);
        }
        if tables.hash != 0 {
            return self.by_hash(tables, name);
        }
        None
    }

    /// `DT_GNU_HASH`: nbuckets, first symbol, bloom words, shift; bloom filter; buckets; chains,
    /// whose last entry has bit 0 set.
    fn by_gnu_hash(&self, tables: &Tables, name: &str) -> Option<Symbol> {
        let hash = object::elf::gnu_hash(name.as_bytes());
        let at = tables.gnu_hash;
        let buckets = self.u32(at).filter(|&n| n != 0)?;
        let (first, bloom) = (self.u32(at.wrapping_add(4))?, self.u32(at.wrapping_add(8))?);
        let bucket_table = at.wrapping_add(16).wrapping_add(u64::from(bloom) * 8);
        let chain_table = bucket_table.wrapping_add(u64::from(buckets) * 4);
        let mut index = self.u32(bucket_table.wrapping_add(u64::from(hash % buckets) * 4))?;
        for _ in 0..MAX_CHAIN {
            let chain = self.u32(chain_table.wrapping_add(u64::from(index.checked_sub(first)?) * 4))?;
            if chain | 1 == hash | 1 {
                if let Some(symbol) = self.named(tables, index, name) {
                    return Some(symbol);
                }
            }
            if chain & 1 == 1 {
                return None;
            }
            index = index.checked_add(1)?;
        }
        None
    }

    /// `DT_HASH`: nbucket, nchain, buckets, chains.
    fn by_hash(&self, tables: &Tables, name: &str) -> Option<Symbol> {
        let at = tables.hash.wrapping_add(8);
        let buckets = self.u32(tables.hash).filter(|&n| n != 0)?;
        let chains = at.wrapping_add(u64::from(buckets) * 4);
        let mut index = self.u32(at.wrapping_add(u64::from(object::elf::hash(name.as_bytes()) % buckets) * 4))?;
        for _ in 0..MAX_CHAIN {
            if index == 0 {
                return None;
            }
            if let Some(symbol) = self.named(tables, index, name) {
                return Some(symbol);
            }
            index = self.u32(chains.wrapping_add(u64::from(index) * 4))?;
        }
        None
    }

    /// The symbol with this index, if it has this name and is defined here.
    fn named(&self, tables: &Tables, index: u32, name: &str) -> Option<Symbol> {
        let mut entry = [0; SYMBOL as usize];
        let at = tables.symbols.wrapping_add(u64::from(index) * SYMBOL);
        let mut text = [0; MAX_NAME + 1];
        let text = text.get_mut(..=name.len())?;
        if !self.read(at, &mut entry) || !self.read(tables.strings.wrapping_add(u64::from(half(&entry, 0))), text) {
            return None;
        }
        (text.split_last() == Some((&0, name.as_bytes()))).then(|| defined(&entry)).flatten()
    }

    fn u32(&self, vaddr: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.read(vaddr, &mut bytes).then(|| u32::from_le_bytes(bytes))
    }
}

/// Fills the gaps in `found` from `.symtab`. First finds the offsets of the names in the strings,
/// then the symbols that refer to them: neither table is ever held as a whole.
fn all(file: &File, (table, strings): (Section, Section), names: &[&str], found: &mut [Option<Symbol>]) {
    if table.size > MAX_TABLE || strings.size > MAX_TABLE {
        return;
    }
    let wanted: Vec<usize> = (0..names.len()).filter(|&i| found[i].is_none()).collect();
    // A linker may store one name as the tail of another, so any string that *ends* with the name
    // will do.
    let mut places: Vec<(u32, usize)> = Vec::new();
    let mut carry: Vec<u8> = Vec::new();
    chunks(file, strings, |at, chunk| {
        let base = at - carry.len() as u64;
        carry.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(len) = carry[start..].iter().position(|&byte| byte == 0) {
            let end = start + len;
            for &i in wanted.iter().filter(|&&i| carry[start..end].ends_with(names[i].as_bytes())) {
                if let (true, Ok(place)) = (places.len() < MAX_TAILS, u32::try_from(base + (end - names[i].len()) as u64)) {
                    places.push((place, i));
                }
            }
            start = end + 1;
        }
        // Of a string cut by the chunk's end, only the tail can matter.
        let keep = start.max(carry.len().saturating_sub(MAX_NAME));
        carry.drain(..keep);
    });
    if places.is_empty() {
        return;
    }
    chunks(file, table, |_, chunk| {
        for entry in chunk.chunks_exact(SYMBOL as usize) {
            let name = half(entry, 0);
            for &(_, i) in places.iter().filter(|place| place.0 == name) {
                found[i] = found[i].or_else(|| defined(entry));
            }
        }
    });
}

/// Calls `each` with pieces of a section and their offsets in it, up to the first that cannot be
/// read.
fn chunks(file: &File, section: Section, mut each: impl FnMut(u64, &[u8])) {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < section.size {
        let len = (section.size - done).min(CHUNK as u64) as usize;
        let Some(at) = section.offset.checked_add(done) else { return };
        if file.read_exact_at(&mut buffer[..len], at).is_err() {
            return;
        }
        each(done, &buffer[..len]);
        done += len as u64;
    }
}

fn defined(entry: &[u8]) -> Option<Symbol> {
    let section = u16::from_le_bytes([entry[6], entry[7]]);
    (section != 0).then(|| Symbol { vaddr: word(entry, 8), size: word(entry, 16) })
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}
