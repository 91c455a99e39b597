//! Finds the interpreter in a process: which of the mapped images holds it, the address of
//! `_PyRuntime`, the version.
//!
//! The image may be the executable (static builds, embedding programs, under any name) or a
//! library, stripped or not, deleted or in another root. Likely files are tried first, then all
//! others, and last the unexported symbols of the likely files.

use super::diagnose;
use super::layout::Minor;
use super::version::{self, Published, Version, VersionSupport};
use crate::error::{Error, Result};
use crate::ids::{Addr, Pid};
use crate::process::c_library::{Abi, CLibrary};
use crate::process::elf::{Depth, ElfError, Image, Machine};
use crate::process::mapped_file;
use crate::process::maps::{Mapping, Maps};
use crate::process::memory::Memory;

/// The largest number of a process's files that are examined.
const MAX_MODULES: usize = 4096;
/// Symbols that are searched in one pass; `SYMBOLS[0]` decides.
const SYMBOLS: [&str; 5] = ["_PyRuntime", "Py_Version", "_PyThreadState_Current", "Py_GetVersion", "PyType_Type"];

/// An interpreter that gilprof reads itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedPython {
    /// `_PyRuntime`.
    pub runtime: Addr,
    /// The machine and the C library that it was built for.
    pub abi: Abi,
    /// Its feature release.
    pub minor: Minor,
    /// Its version, such as `3.11.7`; only `3.11` where the patch level could not be read.
    pub version: String,
    /// The file that holds the interpreter, as the target names it: the executable or a library.
    pub path: String,
    /// The offset from that file's addresses to the process's addresses.
    pub bias: u64,
    /// `PyType_Type`.
    pub type_type: Option<Addr>,
}

/// The result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// 3.7 and later.
    Python(LocatedPython),
    /// 2.7 or 3.3 - 3.6: for py-spy.
    Legacy {
        /// Such as `2.7.18`.
        version: String,
        /// The file that holds the interpreter.
        path: String,
    },
}

/// An image that may be an interpreter.
struct Candidate {
    path: String,
    bias: u64,
    machine: Option<Machine>,
    runtime: Option<Addr>,
    type_type: Option<Addr>,
    version: Option<Version>,
    /// Whether its runtime has been started. The runtime of a library that is linked in but not
    /// used, or whose variables were copied into the executable, has not.
    live: bool,
}

impl Candidate {
    /// Completes the version: an executable into which the linker copied `_PyRuntime` has the
    /// variable, but the library has the banner with the patch level.
    fn complete(&mut self, others: &[Candidate]) {
        let known = self.version.clone();
        let fits = |other: &&Version| other.is_full() && known.as_ref().is_none_or(|known| known.minor == other.minor);
        if !known.as_ref().is_some_and(Version::is_full) {
            let full = others.iter().filter_map(|other| other.version.as_ref()).find(fits).cloned();
            self.version = full.or(known);
        }
    }

    /// Whether this is a runtime in use, in addition to that of `best`.
    fn is_second(&self, best: &Candidate) -> bool {
        self.live && self.runtime.is_some() && self.runtime != best.runtime && best.live && best.runtime.is_some()
    }
}

struct Search<'a> {
    pid: Pid,
    mem: &'a dyn Memory,
    maps: &'a Maps,
}

/// Finds the interpreter of a process: the first of [`locate_all`] that gilprof can name.
#[cfg(any(test, feature = "internals"))]
pub fn locate(pid: Pid, mem: &dyn Memory) -> Result<Located> {
    let mut all = locate_all(pid, mem)?;
    all.swap_remove(all.iter().position(Result::is_ok).unwrap_or(0))
}

/// Finds the runtime of a process, and further ones that were started in it: a program may load
/// several libpythons. Only files that are named like Python's are searched for further ones. Never
/// empty; an [`Error::UnsupportedVersion`] for each that gilprof cannot read.
pub fn locate_all(pid: Pid, mem: &dyn Memory) -> Result<Vec<Result<Located>>> {
    let maps = Maps::from_pid(pid).map_err(|error| diagnose::unreadable(pid, &error))?;
    diagnose::probe(pid, mem, &maps)?;
    let search = Search { pid, mem, maps: &maps };
    let (likely, others) = search.modules();
    let mut foreign = false;
    for (modules, depth) in [(&likely, Depth::Exported), (&others, Depth::Exported), (&likely, Depth::All)] {
        let mut candidates = Vec::new();
        for module in modules {
            match search.inspect(module, depth) {
                Ok(candidate) => candidates.extend(candidate),
                Err(ElfError::Foreign) => foreign = true,
                Err(ElfError::Malformed) => {}
            }
        }
        candidates.sort_by_key(|candidate| (!candidate.live, candidate.runtime.is_none()));
        if candidates.is_empty() {
            continue;
        }
        let (mut best, c_library) = (candidates.remove(0), CLibrary::of(mem, &maps));
        best.complete(&candidates);
        candidates.retain(|candidate| candidate.is_second(&best));
        candidates.dedup_by_key(|candidate| candidate.runtime);
        return Ok(std::iter::once(best).chain(candidates).map(|candidate| finish(pid, candidate, c_library)).collect());
    }
    Err(diagnose::not_python(pid, &maps, foreign))
}

fn finish(pid: Pid, found: Candidate, c_library: CLibrary) -> Result<Located> {
    let path = diagnose::printable_path(&found.path);
    let Some(version) = found.version else {
        let why = format!("{path} does not contain its version");
        return Err(Error::UnsupportedVersion { pid, version: "of an unknown version".to_owned(), why });
    };
    match (version::support(version), found.runtime, found.machine) {
        (VersionSupport::Readable(version), Some(runtime), Some(machine)) => Ok(Located::Python(LocatedPython {
            runtime,
            abi: Abi { machine, c_library },
            minor: version.minor,
            version: version.text,
            path: found.path,
            bias: found.bias,
            type_type: found.type_type,
        })),
        (VersionSupport::Legacy(version), ..) => Ok(Located::Legacy { version: version.text, path: found.path }),
        (VersionSupport::Readable(version), Some(_), None) => {
            let why = format!("{path} is for a machine other than x86-64 and aarch64, the two that gilprof supports");
            Err(Error::UnsupportedVersion { pid, version: version.text, why })
        }
        (VersionSupport::Readable(version), None, _) => {
            let why = format!("{path} has no symbol _PyRuntime and no section .PyRuntime");
            Err(Error::UnsupportedVersion { pid, version: version.text, why })
        }
    }
}

impl<'a> Search<'a> {
    /// The first mapping of each image: images that are likely to hold the interpreter, and all
    /// others.
    fn modules(&self) -> (Vec<&'a Mapping>, Vec<&'a Mapping>) {
        let mut all: Vec<&Mapping> = Vec::new();
        for mapping in self.maps.mappings.iter().filter(|mapping| mapping.file().is_some()) {
            // Mappings of one file are usually adjacent, so the latest files are compared first.
            let known = all.iter().rev().any(|first| first.same_file(mapping));
            if !known && all.len() < MAX_MODULES {
                all.push(mapping);
            }
        }
        all.retain(|first| self.maps.of_file(first).any(|mapping| mapping.executable));
        let exe = all.iter().position(|first| mapped_file::is_exe(self.pid, first)).map(|at| all.remove(at));
        let (named, others) = all.into_iter().partition(|first: &&Mapping| first.file_name().is_some_and(diagnose::is_python_name));
        let named: Vec<&Mapping> = named;
        (exe.into_iter().chain(named).collect(), others)
    }

    /// Examines one image, in its file or, where no file fits, in memory.
    fn inspect(&self, first: &Mapping, depth: Depth) -> std::result::Result<Option<Candidate>, ElfError> {
        let mappings: Vec<&Mapping> = self.maps.of_file(first).collect();
        let mut error = ElfError::Malformed;
        for found in mapped_file::open(self.pid, first).unwrap_or_default() {
            match Image::from_file(found.file) {
                Ok(image) => {
                    for bias in image.biases(&mappings) {
                        if image.same_as_loaded(self.mem, bias).unwrap_or(found.same_inode) {
                            if let Some(candidate) = self.candidate(&image, bias, first, depth) {
                                return Ok(Some(candidate));
                            }
                            error = ElfError::Malformed;
                        }
                    }
                    if found.same_inode {
                        return Ok(None);
                    }
                }
                Err(other) => error = other,
            }
        }
        let Some(start) = mappings.iter().find(|mapping| mapping.offset == 0) else { return Err(error) };
        let image = Image::from_memory(self.mem, start.start).map_err(|other| if error == ElfError::Foreign { error } else { other })?;
        Ok(image.biases(&mappings).first().and_then(|&bias| self.candidate(&image, bias, first, depth)))
    }

    fn candidate(&self, image: &Image<'_>, bias: u64, first: &Mapping, depth: Depth) -> Option<Candidate> {
        let symbols = image.symbols(&SYMBOLS, depth);
        let [runtime, constant, legacy, banner, type_type] = symbols.as_slice() else { return None };
        let section = image.runtime_section().map(|section| section.vaddr);
        let runtime = runtime.map(|symbol| symbol.vaddr).or(section).map(|vaddr| Addr(bias.wrapping_add(vaddr)));
        if runtime.is_none() && (legacy.is_none() || banner.is_none()) {
            return None;
        }
        let published = runtime.and_then(|runtime| version::published(self.mem, runtime).ok().flatten());
        let version = published.as_ref().map(|published| published.version.clone());
        let version = version.or_else(|| version::detect(self.mem, image, bias, *constant, &self.names(first)));
        let live = match runtime {
            Some(runtime) => self.live(runtime, published.as_ref()),
            // `_PyThreadState_Current` is null whenever no thread holds the GIL, so it does not
            // show whether the runtime was started.
            None => true,
        };
        let path = first.path.clone().unwrap_or_default();
        let type_type = type_type.map(|symbol| Addr(bias.wrapping_add(symbol.vaddr)));
        Some(Candidate { path, bias, machine: image.machine(), runtime, type_type, version, live })
    }

    /// File names that may contain a version: the image's own, the executable's, the extension
    /// modules'.
    fn names(&self, first: &'a Mapping) -> Vec<&'a str> {
        let mut names: Vec<&str> = first.file_name().into_iter().collect();
        names.extend(
            self.maps
                .mappings
                .iter()
                .filter_map(Mapping::file_name)
                .filter(|name| name.contains("cpython-") || diagnose::is_python_name(name)),
        );
        names
    }

    /// Whether the runtime has been started.
    fn live(&self, runtime: Addr, published: Option<&Published>) -> bool {
        if let Some(published) = published {
            return self.mem.read_ptr(runtime.offset(published.interpreters_head)).is_ok_and(|head| !head.is_null());
        }
        // The runtime of 3.7 - 3.12 begins with four or five flags such as `preinitialized`,
        // `core_initialized` and `initialized`, all 0 before start-up.
        let mut flags = [0; 16];
        self.mem.read(runtime, &mut flags).is_ok() && flags != [0; 16]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_printed_without_control_characters() {
        let version = |text| Version::from_text(text);
        for (version, runtime) in [(None, None), (version("3.9.18"), Some(Addr(16))), (version("3.9.18"), None)] {
            let path = "/tmp/\x1b[2J\nx".to_owned();
            let found = Candidate { path, bias: 0, machine: None, runtime, type_type: None, version, live: true };
            let error = finish(Pid(1), found, CLibrary::Glibc).unwrap_err().to_string();
            assert!(error.contains("/tmp/ [2J x") && !error.contains(char::is_control), "{error:?}");
        }
    }
}
