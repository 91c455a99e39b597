//! Records the memory that one sample read, so that the sample can be replayed without the process:
//! the file of `gilprof dump --record-memory`.
//!
//! The file, schema `gilprof.memory/1`, is one line of JSON (the sample's data from `/proc`, and
//! the address of the runtime), then the memory. Each range has its address (8 bytes), its length
//! (4 bytes) and its bytes. Numbers are little-endian; ranges are in order of address, without gaps
//! between the entries.
//!
//! Ranges cover the bytes that were read and a margin behind them, widened to whole blocks where
//! those are readable, and joined where they touch. So a later version of gilprof, which reads
//! slightly more or less, still finds what it needs. The file also contains the bytes beside those
//! that were read: treat it like a core dump.

use super::c_library::Abi;
use super::memory::{split_parts, Memory, Part, ReadError};
use super::procfs::TaskStatus;
use super::target::ProcessAccess;
use super::threads::{TaskFileContents, TaskFiles};
use crate::ids::{Addr, Pid, Tid};
use crate::sample::StopCause;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

/// Name of the schema.
pub const SCHEMA: &str = "gilprof.memory/1";
/// Memory is recorded in blocks of this many bytes. No page is smaller, so a block is readable
/// either completely or not at all.
const BLOCK: usize = 64;
/// Bytes behind a read that are recorded too, if they can be read.
const MARGIN: u64 = 32;
/// Most blocks that are recorded: 64 MiB.
const MAX_BLOCKS: usize = 1 << 18;
/// Most threads that a file may list.
#[cfg(any(test, feature = "internals"))]
const MAX_TASKS: usize = 1 << 16;

/// The kernel's data of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpedTask {
    /// Its thread id.
    pub tid: i32,
    /// Its id in the process's own PID namespace, if that is not gilprof's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner_tid: Option<i32>,
    /// The kernel's name of the thread.
    pub name: Option<String>,
    /// The text of its `syscall` file; `None` if it could not be read.
    pub syscall: Option<String>,
    /// The text of its `schedstat` file.
    pub schedstat: Option<String>,
    /// The text of its `stack` file: `None` if it could not be read, empty for a thread on a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

/// The line of JSON before the memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpHead {
    /// [`SCHEMA`].
    pub schema: String,
    /// The process id.
    pub pid: i32,
    /// The interpreter's version, which selects its layout.
    pub python: String,
    /// The machine and the C library of the interpreter.
    #[serde(flatten)]
    pub abi: Abi,
    /// The address of `_PyRuntime`.
    pub runtime: u64,
    /// The threads that the sample read or listed.
    pub threads: Vec<DumpedTask>,
}

/// The contents of a dump file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryDump {
    /// Everything except the memory.
    pub head: DumpHead,
    /// The memory: sorted by address, without overlaps.
    pub ranges: Vec<(Addr, Vec<u8>)>,
}

/// Why bytes are not a memory dump.
#[cfg(any(test, feature = "internals"))]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryDumpError {
    /// Not a file of this kind.
    #[error("it does not begin with a header of schema {SCHEMA}")]
    Head,
    /// The memory is cut off or out of order.
    #[error("its memory range {0} is cut off or out of order")]
    Range(usize),
}

impl MemoryDump {
    /// Encodes the file.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&self.head)?;
        bytes.push(b'\n');
        for (at, range) in &self.ranges {
            bytes.extend(at.0.to_le_bytes());
            bytes.extend((range.len() as u32).to_le_bytes());
            bytes.extend(range);
        }
        Ok(bytes)
    }

    /// Parses a file, which may hold anything.
    #[cfg(any(test, feature = "internals"))]
    pub fn parse(bytes: &[u8]) -> Result<MemoryDump, MemoryDumpError> {
        let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(MemoryDumpError::Head)?;
        let (head, mut rest) = bytes.split_at(end);
        let head: DumpHead = serde_json::from_slice(head).map_err(|_| MemoryDumpError::Head)?;
        if head.schema != SCHEMA || head.threads.len() > MAX_TASKS {
            return Err(MemoryDumpError::Head);
        }
        rest = rest.get(1..).unwrap_or_default();
        let (mut ranges, mut past): (Vec<(Addr, Vec<u8>)>, u64) = (Vec::new(), 0);
        while !rest.is_empty() {
            let (at, range, after) = next_range(rest).filter(|(at, ..)| *at >= past).ok_or(MemoryDumpError::Range(ranges.len()))?;
            past = at.checked_add(range.len() as u64).ok_or(MemoryDumpError::Range(ranges.len()))?;
            ranges.push((Addr(at), range.to_vec()));
            rest = after;
        }
        Ok(MemoryDump { head, ranges })
    }
}

/// Splits off the first range. An empty range is refused, so that the number of ranges is bounded.
#[cfg(any(test, feature = "internals"))]
fn next_range(bytes: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (at, rest) = bytes.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (range, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    (!range.is_empty()).then_some((u64::from_le_bytes(*at), range, rest))
}

/// The bytes of a block, and which of them are known.
#[derive(Clone, Debug)]
struct Block {
    bytes: [u8; BLOCK],
    known: [bool; BLOCK],
}

/// Reads from another target, and records what it reads.
pub struct DumpRecorder {
    target: Box<dyn ProcessAccess>,
    /// By block number: address divided by [`BLOCK`].
    blocks: RefCell<BTreeMap<u64, Block>>,
    tasks: RefCell<BTreeMap<Tid, DumpedTask>>,
}

impl DumpRecorder {
    /// Records what is read from `target`.
    pub fn new(target: Box<dyn ProcessAccess>) -> DumpRecorder {
        DumpRecorder { target, blocks: RefCell::default(), tasks: RefCell::default() }
    }

    /// The dump of everything read so far. The other bytes of its blocks are read now.
    pub fn finish(&self, abi: Abi, python: &str, runtime: Addr) -> MemoryDump {
        let mut dump = MemoryDump {
            head: DumpHead {
                schema: SCHEMA.to_owned(),
                pid: self.target.pid().0,
                python: python.to_owned(),
                abi,
                runtime: runtime.0,
                threads: self.tasks.borrow().values().cloned().collect(),
            },
            ranges: Vec::new(),
        };
        for (number, block) in self.blocks.borrow_mut().iter_mut() {
            let start = number * BLOCK as u64;
            self.complete(Addr(start), block);
            for (i, byte) in block.bytes.iter().enumerate().filter(|(i, _)| block.known[*i]) {
                let at = start + i as u64;
                match dump.ranges.last_mut() {
                    Some((from, range)) if from.0 + range.len() as u64 == at => range.push(*byte),
                    _ => dump.ranges.push((Addr(at), vec![*byte])),
                }
            }
        }
        dump
    }

    /// Reads the unknown bytes of a block, as far as they are readable.
    fn complete(&self, at: Addr, block: &mut Block) {
        let mut bytes = [0; BLOCK];
        if block.known.contains(&false) && self.target.memory().read(at, &mut bytes).is_ok() {
            for (i, known) in block.known.iter_mut().enumerate().filter(|(_, known)| !**known) {
                (block.bytes[i], *known) = (bytes[i], true);
            }
        }
    }

    /// Records the bytes of a read. The last read of a byte counts, because the sample used that
    /// one.
    fn record(&self, at: Addr, bytes: &[u8]) {
        let mut blocks = self.blocks.borrow_mut();
        for (i, &byte) in bytes.iter().enumerate() {
            let at = at.offset(i as u64).0;
            let Some(block) = block(&mut blocks, at) else { return };
            let inside = (at % BLOCK as u64) as usize;
            (block.bytes[inside], block.known[inside]) = (byte, true);
        }
        let _ = block(&mut blocks, at.offset(bytes.len() as u64 + MARGIN - 1).0);
    }

    /// Records data of a thread.
    fn update_task(&self, tid: Tid, what: impl FnOnce(&mut DumpedTask)) {
        what(self.tasks.borrow_mut().entry(tid).or_insert_with(|| DumpedTask { tid: tid.0, ..DumpedTask::default() }));
    }
}

/// The block that contains an address; `None` if there are too many.
fn block(blocks: &mut BTreeMap<u64, Block>, at: u64) -> Option<&mut Block> {
    let number = at / BLOCK as u64;
    if blocks.len() >= MAX_BLOCKS && !blocks.contains_key(&number) {
        return None;
    }
    Some(blocks.entry(number).or_insert_with(|| Block { bytes: [0; BLOCK], known: [false; BLOCK] }))
}

impl Memory for DumpRecorder {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.target.memory().read(at, into)?;
        self.record(at, into);
        Ok(())
    }

    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.target.memory().read_batch(parts, into)?;
        split_parts(parts, into).filter(|(part, _)| part.ok).for_each(|(part, bytes)| self.record(part.at, bytes));
        Ok(())
    }
}

impl ProcessAccess for std::rc::Rc<DumpRecorder> {
    fn pid(&self) -> Pid {
        self.target.pid()
    }
    fn memory(&self) -> &dyn Memory {
        self.as_ref()
    }
    fn tids(&self, into: &mut Vec<Tid>, check_leader: bool) -> io::Result<()> {
        self.target.tids(into, check_leader)?;
        into.iter().for_each(|&tid| self.update_task(tid, |_| {}));
        Ok(())
    }
    /// All files are read once, now, and have the same contents from then on, so that the dump
    /// contains what the sample read.
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        let TaskFileContents { syscall, schedstat, stack } = self.target.open(tid)?.contents()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.update_task(tid, |task| {
            (task.syscall, task.schedstat, task.stack) = (Some(text(&syscall)), schedstat.as_deref().map(text), stack.as_deref().map(text));
        });
        Ok(TaskFiles::from_backend(TaskFileContents { syscall, schedstat, stack }))
    }
    fn comm(&self, tid: Tid) -> Option<String> {
        let name = self.target.comm(tid);
        self.update_task(tid, |task| task.name.clone_from(&name));
        name
    }
    fn status(&self, thread: Option<Tid>) -> Option<TaskStatus> {
        self.target.status(thread)
    }
    fn frozen(&self, refresh: bool) -> Option<StopCause> {
        self.target.frozen(refresh)
    }
    fn is_in_inner_namespace(&self) -> bool {
        self.target.is_in_inner_namespace()
    }
    fn inner_tid(&self, tid: Tid) -> Option<i32> {
        let inner = self.target.inner_tid(tid);
        self.update_task(tid, |task| task.inner_tid = inner);
        inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::c_library::CLibrary;
    use crate::process::elf::Machine;
    use crate::process::replay::{ReplayMemory, ReplayTarget};
    use proptest::prelude::*;
    use std::rc::Rc;

    fn source(ranges: &[(u64, usize)]) -> ReplayTarget<ReplayMemory> {
        let task = DumpedTask {
            tid: 7,
            inner_tid: Some(1),
            name: Some("a\nb".into()),
            syscall: Some("running\n".into()),
            schedstat: None,
            stack: Some(String::new()),
        };
        let head =
            DumpHead { schema: SCHEMA.into(), pid: 7, python: "3.8.0".into(), abi: Abi::default(), runtime: 0x1000, threads: vec![task] };
        let bytes = |at: u64, len: usize| (0..len).map(|i| (at as usize + i * 3) as u8).collect();
        let ranges = ranges.iter().map(|&(at, len)| (Addr(at), bytes(at, len))).collect();
        ReplayTarget::from_dump(&MemoryDump { head, ranges })
    }

    #[test]
    fn a_replay_has_the_bytes_read_and_their_neighbours() {
        let recorder = Rc::new(DumpRecorder::new(Box::new(source(&[(0x1000, 0x1000), (0x3000, 20)]))));
        let (mut a, mut b) = ([0; 300], [0; 16]);
        recorder.read(Addr(0x10f0), &mut a).unwrap();
        let mut parts = [Part::new(Addr(0x3004), 8), Part::new(Addr(0x9000), 8)];
        recorder.read_batch(&mut parts, &mut b).unwrap();
        let dump = recorder.finish(Abi { machine: Machine::Aarch64, c_library: CLibrary::Musl }, "3.8.0", Addr(0x1000));
        // Whole blocks where they are readable; elsewhere only the bytes that were read.
        let places: Vec<(u64, usize)> = dump.ranges.iter().map(|(at, bytes)| (at.0, bytes.len())).collect();
        assert_eq!(places, [(0x10c0, 0x180), (0x3004, 8)]);
        let again = MemoryDump::parse(&dump.to_bytes().unwrap()).unwrap();
        assert_eq!(again, dump);
        let mut same = [0; 300];
        ReplayTarget::from_dump(&again).memory().read(Addr(0x10f0), &mut same).unwrap();
        assert_eq!(a, same);
    }

    #[test]
    fn the_kernels_data_are_recorded() {
        // A dump contains stacks only after this process has seen a thread without one.
        crate::process::kernel_stack::once_proven(crate::sample::RunnableState::OnCpu);
        let recorder = Rc::new(DumpRecorder::new(Box::new(source(&[]))));
        let mut tids = Vec::new();
        recorder.tids(&mut tids, true).unwrap();
        assert_eq!((recorder.comm(Tid(7)).as_deref(), recorder.inner_tid(Tid(7))), (Some("a\nb"), Some(1)));
        recorder.open(Tid(7)).unwrap().syscall_state().unwrap();
        assert!(recorder.open(Tid(8)).is_err());
        let dump = MemoryDump::parse(&recorder.finish(Abi::default(), "3.8.0", Addr(0)).to_bytes().unwrap()).unwrap();
        assert_eq!(dump.head.threads, source(&[]).head.threads);
    }

    #[test]
    fn malformed_files_are_refused() {
        let good = source(&[(16, 4), (32, 4)]).head;
        let good = MemoryDump { head: good, ranges: vec![(Addr(16), vec![1; 4]), (Addr(32), vec![2; 4])] }.to_bytes().unwrap();
        for cut in 0..good.len() {
            let parsed = MemoryDump::parse(&good[..cut]);
            assert!(parsed.is_err() || parsed.is_ok_and(|r| r.ranges.len() < 2), "{cut} bytes");
        }
        let mut out_of_order = good.clone();
        let second = good.len() - 16;
        out_of_order[second..second + 8].copy_from_slice(&17u64.to_le_bytes());
        assert_eq!(MemoryDump::parse(&out_of_order), Err(MemoryDumpError::Range(1)));
        assert_eq!(MemoryDump::parse(b"{\"schema\":\"gilprof.memory/2\",\"pid\":1}\n"), Err(MemoryDumpError::Head));
    }

    proptest! {
        #[test]
        fn any_bytes_after_a_head_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = serde_json::to_vec(&source(&[]).head).unwrap();
            file.push(b'\n');
            file.extend(&bytes);
            let total = MemoryDump::parse(&file).map_or(0, |r| r.ranges.iter().map(|(_, bytes)| bytes.len()).sum());
            prop_assert!(total <= bytes.len());
        }
    }
}
