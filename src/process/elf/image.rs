//! An ELF image: its segments and symbol tables, and where it is loaded.
//!
//! It is read from the file, or from the target's memory if no file is available (deleted, another
//! mount namespace). Both are untrusted: every count is limited and nothing is read as a whole,
//! because a library may have 500 MB. Only 64-bit little-endian images are read.

use super::Machine;
use crate::ids::Addr;
use crate::process::maps::Mapping;
use crate::process::memory::{Memory, ReadError};
use object::elf::{FileHeader64, NoteHeader64, PT_DYNAMIC, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader};
use object::{LittleEndian, ReadCache, ReadRef};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Most program headers that are read; linkers make about a dozen.
const MAX_SEGMENTS: usize = 128;
/// Most section headers that are read.
const MAX_SECTIONS: usize = 4096;
/// Most note segments that are read.
const MAX_NOTE_SEGMENTS: usize = 8;
/// Longest note segment that is read.
const MAX_NOTES: u64 = 16 << 10;
/// Bytes of an image in memory that must contain its header and program headers.
const HEAD: usize = 4096;
const PAGE: u64 = 4096;

/// Why an image cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// Not an ELF file, or a broken one.
    #[error("it is not a readable ELF image")]
    Malformed,
    /// 32-bit, or big-endian.
    #[error("it is not a 64-bit little-endian program")]
    Foreign,
}

/// A `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Address before the load bias.
    pub vaddr: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Bytes that come from the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub mem_size: u64,
    /// `PF_X`.
    pub executable: bool,
    /// `PF_W`.
    pub writable: bool,
}

/// A section that is searched by name, or a symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Address before the load bias; 0 for one that is not loaded.
    pub vaddr: u64,
    /// Offset in the file.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

pub(super) enum ImageSource<'m> {
    File(File),
    Memory(&'m dyn Memory, u64),
}

/// A parsed image.
pub struct Image<'m> {
    pub(super) source: ImageSource<'m>,
    fixed: bool,
    /// The ELF header: the offset of the section table in it alone distinguishes most builds.
    header: Vec<u8>,
    pub(super) segments: Vec<Segment>,
    /// `PT_NOTE`s with their alignment. The build id is not always in the first.
    notes: Vec<(Section, u64)>,
    pub(super) dynamic: Option<Section>,
    runtime_section: Option<Section>,
    rodata: Option<Section>,
    /// `.symtab` and its strings.
    pub(super) symtab: Option<(Section, Section)>,
    build_id: Option<Vec<u8>>,
}

impl<'m> Image<'m> {
    /// Parses a file.
    pub fn from_file(file: File) -> Result<Image<'m>, ElfError> {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).map_err(|_| ElfError::Malformed)?;
        let cache = ReadCache::new(&file);
        let mut image = parse(&cache, &head)?;
        image.sections(&cache);
        drop(cache);
        image.finish(ImageSource::File(file))
    }

    /// Parses an image where it is mapped; `start` is the mapping of the file's beginning.
    pub fn from_memory(mem: &'m dyn Memory, start: Addr) -> Result<Image<'m>, ElfError> {
        let mut head = vec![0; HEAD];
        mem.read(start, &mut head).map_err(|_| ElfError::Malformed)?;
        let image = parse(head.as_slice(), &head)?;
        let first = image.segments.iter().find(|segment| segment.offset < PAGE).ok_or(ElfError::Malformed)?;
        let bias = if image.fixed { 0 } else { start.0.wrapping_sub(first.vaddr - first.offset.min(first.vaddr)) };
        image.finish(ImageSource::Memory(mem, bias))
    }

    fn finish<'s>(self, source: ImageSource<'s>) -> Result<Image<'s>, ElfError> {
        let mut image = Image { source, ..self };
        let build_id = image.note_bytes().find_map(|(note, bytes)| build_id(&bytes, note.1));
        image.build_id = build_id;
        Ok(image)
    }

    /// The loadable segments.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// `.PyRuntime`: 3.10+ put `_PyRuntime`, and nothing else, there. Files only.
    pub fn runtime_section(&self) -> Option<Section> {
        self.runtime_section
    }

    /// Where constants are: `.rodata`, or the first segment that is neither writable nor executable
    /// and does not contain the headers.
    pub fn rodata(&self) -> Option<(u64, u64)> {
        let plain = |s: &&Segment| !s.writable && !s.executable && s.offset >= PAGE;
        let segment = || self.segments.iter().find(plain).map(|s| (s.vaddr, s.file_size));
        self.rodata.map(|s| (s.vaddr, s.size)).or_else(segment)
    }

    /// The machine that it is built for, if its structs are known.
    pub fn machine(&self) -> Option<Machine> {
        Machine::from_header(&self.header)
    }

    /// The linker's build id.
    #[cfg(any(test, feature = "internals"))]
    pub fn build_id(&self) -> Option<&[u8]> {
        self.build_id.as_deref()
    }

    /// Reads image bytes by their address before the load bias.
    pub fn read(&self, vaddr: u64, into: &mut [u8]) -> bool {
        match &self.source {
            ImageSource::Memory(mem, bias) => mem.read(Addr(bias.wrapping_add(vaddr)), into).is_ok(),
            ImageSource::File(file) => match self.file_offset(vaddr, into.len() as u64) {
                Some(offset) => file.read_exact_at(into, offset).is_ok(),
                None => false,
            },
        }
    }

    fn file_offset(&self, vaddr: u64, len: u64) -> Option<u64> {
        self.segments.iter().find_map(|s| {
            let inside = vaddr.checked_sub(s.vaddr)?;
            (inside.checked_add(len)? <= s.file_size).then(|| s.offset.checked_add(inside))?
        })
    }

    /// Where the image is loaded, as the difference between address and `vaddr`: the differences
    /// that most of its segments agree on. There are several if a library is loaded twice. `maps`
    /// are the mappings of this file.
    pub fn biases(&self, maps: &[&Mapping]) -> Vec<u64> {
        if self.fixed {
            return vec![0];
        }
        let mut votes: Vec<(u64, u32)> = Vec::new();
        for mapping in maps {
            for segment in &self.segments {
                let (first, last) = (segment.offset & !(PAGE - 1), segment.offset.saturating_add(segment.file_size));
                if !(first..last).contains(&mapping.offset) || mapping.executable != segment.executable {
                    continue;
                }
                let vaddr = segment.vaddr.wrapping_sub(segment.offset).wrapping_add(mapping.offset);
                let bias = mapping.start.0.wrapping_sub(vaddr);
                if bias % PAGE != 0 {
                    continue;
                }
                if let Some(vote) = votes.iter_mut().find(|vote| vote.0 == bias) {
                    vote.1 += 1;
                } else if votes.len() < MAX_SEGMENTS {
                    votes.push((bias, 1));
                }
            }
        }
        let most = votes.iter().map(|vote| vote.1).max().unwrap_or(0);
        votes.into_iter().filter(|vote| vote.1 == most).map(|vote| vote.0).take(4).collect()
    }

    /// Whether the image in memory is the same build: header and notes (the build id) agree. `None`
    /// if the memory cannot be read.
    pub fn same_as_loaded(&self, mem: &dyn Memory, bias: u64) -> Option<bool> {
        let first = self.segments.iter().find(|s| s.offset == 0)?;
        let mut loaded = vec![0; self.header.len()];
        mem.read(Addr(bias.wrapping_add(first.vaddr)), &mut loaded).ok()?;
        if loaded != self.header {
            return Some(false);
        }
        for ((section, _), bytes) in self.note_bytes() {
            let mut loaded = vec![0; bytes.len()];
            mem.read(Addr(bias.wrapping_add(section.vaddr)), &mut loaded).ok()?;
            if loaded != bytes {
                return Some(false);
            }
        }
        Some(true)
    }

    fn note_bytes(&self) -> impl Iterator<Item = ((Section, u64), Vec<u8>)> + '_ {
        self.notes.iter().filter(|note| (1..=MAX_NOTES).contains(&note.0.size)).filter_map(|&note| {
            let mut bytes = vec![0; note.0.size as usize];
            self.read(note.0.vaddr, &mut bytes).then_some((note, bytes))
        })
    }

    fn sections<'d, R: ReadRef<'d>>(&mut self, data: R) {
        let Ok(header) = FileHeader64::<LittleEndian>::parse(data) else { return };
        // A count of zero means more than 65 279 entries, which only object files have.
        if header.e_shnum(LittleEndian) == 0 {
            return;
        }
        let Ok(table) = header.sections(LittleEndian, data) else { return };
        let plain = |s: &object::elf::SectionHeader64<LittleEndian>| Section {
            vaddr: s.sh_addr(LittleEndian),
            offset: s.sh_offset(LittleEndian),
            size: s.sh_size(LittleEndian),
        };
        for section in table.iter().take(MAX_SECTIONS) {
            if section.sh_type(LittleEndian) == object::elf::SHT_SYMTAB {
                let strings = table.iter().nth(section.sh_link(LittleEndian) as usize);
                self.symtab = strings.map(|strings| (plain(section), plain(strings)));
            }
            match table.section_name(LittleEndian, section) {
                Ok(b".PyRuntime") => self.runtime_section = Some(plain(section)),
                Ok(b".rodata") => self.rodata = Some(plain(section)),
                _ => {}
            }
        }
    }
}

/// Parses header and program headers, the part that a loaded image contains too. `head` is at least
/// the header.
fn parse<'d, R: ReadRef<'d>>(data: R, head: &[u8]) -> Result<Image<'static>, ElfError> {
    if head.get(..4) != Some(b"\x7fELF") {
        return Err(ElfError::Malformed);
    }
    if head.get(4..6) != Some(&[2, 1]) {
        return Err(ElfError::Foreign);
    }
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| ElfError::Malformed)?;
    if usize::from(header.e_phnum(LittleEndian)) > MAX_SEGMENTS {
        return Err(ElfError::Malformed);
    }
    let programs = header.program_headers(LittleEndian, data).map_err(|_| ElfError::Malformed)?;
    let mut image = Image {
        source: ImageSource::Memory(&NoMemory, 0),
        fixed: header.e_type(LittleEndian) == object::elf::ET_EXEC,
        header: head.get(..64).ok_or(ElfError::Malformed)?.to_vec(),
        segments: Vec::new(),
        notes: Vec::new(),
        dynamic: None,
        runtime_section: None,
        rodata: None,
        symtab: None,
        build_id: None,
    };
    for program in programs {
        let vaddr = program.p_vaddr(LittleEndian);
        let (offset, size) = (program.p_offset(LittleEndian), program.p_filesz(LittleEndian));
        let flags = program.p_flags(LittleEndian).0;
        match program.p_type(LittleEndian) {
            PT_LOAD => image.segments.push(Segment {
                vaddr,
                offset,
                file_size: size,
                mem_size: program.p_memsz(LittleEndian),
                executable: flags & object::elf::PF_X.0 != 0,
                writable: flags & object::elf::PF_W.0 != 0,
            }),
            PT_NOTE if image.notes.len() < MAX_NOTE_SEGMENTS => {
                image.notes.push((Section { vaddr, offset, size }, program.p_align(LittleEndian)));
            }
            PT_DYNAMIC => image.dynamic = Some(Section { vaddr, offset, size }),
            _ => {}
        }
    }
    Ok(image)
}

fn build_id(notes: &[u8], align: u64) -> Option<Vec<u8>> {
    let mut iter = NoteIterator::<FileHeader64<LittleEndian>>::new(LittleEndian, align, notes).ok()?;
    // Each note takes at least its header, so the bytes bound the walk.
    let bound = notes.len() / std::mem::size_of::<NoteHeader64<LittleEndian>>();
    for _ in 0..bound {
        let note = iter.next().ok()??;
        if note.name() == b"GNU" && note.n_type(LittleEndian) == object::elf::NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

/// Stands in for the source while an image is being built.
struct NoMemory;

impl Memory for NoMemory {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        Err(ReadError::Unmapped { at, len: into.len() })
    }
}
