//! Events of the kernel about watched processes: every run of every thread on a CPU, and a sample
//! of the threads that are on one.
//!
//! The programs (`programs.bpf.c`, compiled by `scripts/build-bpf`) run in the kernel at every
//! switch and wakeup, and at each tick of a clock on each CPU. They keep a table of the watched
//! threads and write records to a ring, which is read here. They have the thread's memory and
//! registers at hand, so gilprof neither wakes up for a sample nor asks for it, and nothing can
//! move while it is read.
//!
//! A thread is in the table from its first switch or tick on. So a thread that sleeps all the time
//! has no record at all, and only /proc tells where. A thread that was on a CPU when its process
//! was watched has a first run of no length, or one that begins at the first tick.
//!
//! Nothing is pinned: all programs and tables end with their descriptors, also when gilprof is
//! killed.

mod abi;
mod config;
mod refusal;
#[cfg(any(test, feature = "internals"))]
mod sums;

pub use abi::{Record, WalkedFrame, WalkedStack};
pub use config::{FrameOffsets, GilOffsets, TargetConfig, ThreadIdentity, ThreadOffsets};
pub use refusal::NoKernelEvents;
#[cfg(any(test, feature = "internals"))]
pub use sums::{GilSums, ProcessSums, Sums, ThreadSums};

use crate::ids::{Addr, Pid, Tid};
use crate::sample::ThreadNow;
use crate::units::Nanos;
use abi::{ThreadEntry, THREAD_WORDS};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{BtfTracePoint, PerfEvent, Program, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;

static OBJECT: &[u8] = aya::include_bytes_aligned!("programs.bpf.o");
/// The inode of the root PID namespace (`PROC_PID_INIT_INO`).
const ROOT_NAMESPACE: u64 = 0xEFFF_FFFC;
/// The largest rate of the clock: a tick takes some microseconds.
const MAX_RATE_HZ: f64 = 50_000.0;
/// Entries of a table that are read again when they changed meanwhile.
const MAX_READS: usize = 4;
/// No more records are in the ring of 4 MB.
const MAX_RECORDS: usize = (4 << 20) / abi::RECORD;
/// The words of `struct counters`.
const COUNTERS: usize = 8;
/// The limits of the tables.
const MAX_THREADS: usize = 16384;
const MAX_TARGETS: u32 = 1024;
const HINTS: u32 = 4096;

/// What the programs have cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramCost {
    /// The number of records that they made, lost ones included.
    pub events: u64,
    /// The number of times that a watched thread lost its CPU.
    pub switches: u64,
    /// The time that they took at switches and wakeups of all programs of the machine, on all CPUs
    /// together. One of 31 is timed, and counts for all of them.
    pub time: Nanos,
    /// The time that they took at the ticks of the clocks.
    pub clock_time: Nanos,
}

/// What the programs make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Product {
    Records,
    #[cfg(any(test, feature = "internals"))]
    Sums,
}

impl Product {
    fn needs_no_wakeups(self) -> bool {
        match self {
            Product::Records => false,
            #[cfg(any(test, feature = "internals"))]
            Product::Sums => sums::queue_is_counted(),
        }
    }
}

/// Loaded and attached programs.
pub struct KernelEvents {
    records: RingBuf<MapData>,
    /// The place of each watched process in `targets` and `processes`.
    places: BTreeMap<Pid, u32>,
    targets: Array<MapData, [u64; config::WORDS]>,
    watched: HashMap<MapData, u32, u32>,
    hints: Array<MapData, u32>,
    slots: Array<MapData, [u32; MAX_THREADS]>,
    threads: Array<MapData, [u64; THREAD_WORDS]>,
    tstates: HashMap<MapData, u32, u64>,
    counts: PerCpuArray<MapData, [u64; COUNTERS]>,
    #[cfg(any(test, feature = "internals"))]
    processes: Array<MapData, [u64; sums::PROCESS_WORDS]>,
    frames: Vec<WalkedFrame>,
    /// Records that this version of gilprof cannot read.
    unknown: u64,
    /// Holds the programs and what attaches them.
    _programs: Ebpf,
}

impl fmt::Debug for KernelEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelEvents").field("cost", &self.cost()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// Names the failed step.
fn step<T, E: Error + 'static>(what: &'static str, result: Result<T, E>) -> Result<T, NoKernelEvents> {
    result.map_err(|error| NoKernelEvents::new(what, &error))
}

/// A part of the object that must be there.
fn part<T>(found: Option<T>) -> io::Result<T> {
    found.ok_or_else(|| io::Error::other("the object lacks a part"))
}

impl KernelEvents {
    /// Loads the programs, with a clock of this rate on each CPU, and attaches them. No process is
    /// watched yet. Takes 0.1 - 0.2 s.
    pub fn open(rate_hz: f64) -> Result<KernelEvents, NoKernelEvents> {
        KernelEvents::load(rate_hz, Product::Records)
    }

    /// As [`open`](KernelEvents::open), for [`sums`](KernelEvents::sums) and no records.
    #[cfg(any(test, feature = "internals"))]
    pub fn open_sums(rate_hz: f64) -> Result<KernelEvents, NoKernelEvents> {
        KernelEvents::load(rate_hz, Product::Sums)
    }

    fn load(rate_hz: f64, product: Product) -> Result<KernelEvents, NoKernelEvents> {
        let own = step("read gilprof's PID namespace", std::fs::metadata("/proc/self/ns/pid"))?.ino();
        let own = if own == ROOT_NAMESPACE { 0 } else { own as u32 };
        let only_sums = u32::from(product != Product::Records);
        let queue_is_counted = product.needs_no_wakeups();
        let mut programs = {
            // It has all types of the kernel, some 17 MB. They are gone before they are read again.
            let mut loader = EbpfLoader::new();
            loader.override_global("own_namespace", &own, true).override_global("only_sums", &only_sums, true);
            let counted = u32::from(queue_is_counted);
            loader.override_global("queue_is_counted", &counted, true);
            step("create the tables of kernel events", loader.load(OBJECT))?
        };
        let btf = step("read the types of the kernel", Btf::from_sys_fs())?;
        attach(&mut programs, &btf, rate_hz, !queue_is_counted)?;
        drop(btf);
        let mut map = |name| step("find a table of kernel events", part(programs.take_map(name)));
        let wrong = "use a table of kernel events";
        Ok(KernelEvents {
            records: step(wrong, map("records")?.try_into())?,
            places: BTreeMap::new(),
            targets: step(wrong, map("targets")?.try_into())?,
            watched: step(wrong, map("watched")?.try_into())?,
            hints: step(wrong, map("hints")?.try_into())?,
            slots: step(wrong, map("slots")?.try_into())?,
            threads: step(wrong, map("threads")?.try_into())?,
            tstates: step(wrong, map("tstates")?.try_into())?,
            counts: step(wrong, map("counts")?.try_into())?,
            #[cfg(any(test, feature = "internals"))]
            processes: step(wrong, map("processes")?.try_into())?,
            frames: Vec::new(),
            unknown: 0,
            _programs: programs,
        })
    }

    /// Watches a process from now on, or by another configuration than before.
    pub fn watch(&mut self, pid: Pid, config: &TargetConfig) -> io::Result<()> {
        let words = config.words(pid);
        if let Some(place) = self.places.get(&pid) {
            return self.targets.set(*place, words, 0).map_err(io::Error::other);
        }
        let taken: BTreeSet<u32> = self.places.values().copied().collect();
        let free = (0..MAX_TARGETS).find(|place| !taken.contains(place));
        let place = free.ok_or_else(|| io::Error::other("too many processes are watched"))?;
        #[cfg(any(test, feature = "internals"))]
        self.processes.set(place, [0; sums::PROCESS_WORDS], 0).map_err(io::Error::other)?;
        self.targets.set(place, words, 0).map_err(io::Error::other)?;
        self.watched.insert(pid.0.cast_unsigned(), place, 0).map_err(io::Error::other)?;
        self.places.insert(pid, place);
        self.set_hint(pid)
    }

    /// The programs find a process only if its hint is set.
    fn set_hint(&mut self, pid: Pid) -> io::Result<()> {
        let hint = |pid: Pid| pid.0.cast_unsigned() % HINTS;
        let count = self.places.keys().filter(|other| hint(**other) == hint(pid)).count();
        self.hints.set(hint(pid), count as u32, 0).map_err(io::Error::other)
    }

    /// Watches a process no longer. Records that were made before may still come.
    #[cfg(any(test, feature = "internals"))]
    pub fn forget(&mut self, pid: Pid) {
        let Some(place) = self.places.remove(&pid) else { return };
        // Errors would only mean that it is not in a table.
        let _ = self.targets.set(place, [0; config::WORDS], 0);
        let _ = self.watched.remove(&pid.0.cast_unsigned());
        let _ = self.set_hint(pid);
        let entries: Vec<(u32, Tid)> =
            self.entries().filter(|(_, entry)| entry.tgid == pid).map(|(slot, entry)| (slot, entry.tid)).collect();
        for (slot, tid) in entries {
            // The program frees the slot when the thread ends.
            let _ = self.threads.set(slot, [0; THREAD_WORDS], 0);
            let _ = self.tstates.remove(&tid.0.cast_unsigned());
        }
    }

    /// The `PyThreadState` of a thread, for its stacks until it first holds a GIL. One that is not
    /// the thread's is ignored.
    pub fn set_tstate(&mut self, tid: Tid, tstate: Addr) -> io::Result<()> {
        self.tstates.insert(tid.0.cast_unsigned(), tstate.0, 0).map_err(io::Error::other)
    }

    /// Passes on the records since the last call, in order for each thread.
    pub fn drain(&mut self, take: &mut dyn FnMut(Pid, Tid, Record<'_>)) {
        // A writer that is faster than this loop must not keep it busy.
        for _ in 0..MAX_RECORDS {
            let Some(bytes) = self.records.next() else { break };
            match abi::parse(&bytes, &mut self.frames) {
                Some((pid, tid, record)) => take(pid, tid, record),
                None => self.unknown += 1,
            }
        }
    }

    /// Where each thread is that is in the table.
    pub fn now(&self, take: &mut dyn FnMut(Pid, Tid, ThreadNow)) {
        for (_, entry) in self.entries() {
            take(entry.tgid, entry.tid, entry.now);
        }
    }

    /// The number of records of a thread that were lost, if it is in the table.
    #[cfg(any(test, feature = "internals"))]
    pub fn lost_by_thread(&self, take: &mut dyn FnMut(Pid, Tid, u64)) {
        for (_, entry) in self.entries().filter(|(_, entry)| entry.lost > 0) {
            take(entry.tgid, entry.tid, entry.lost);
        }
    }

    /// The number of records lost so far, because the ring or the table of threads was full; `None`
    /// if the count could not be read.
    pub fn lost(&self) -> Option<u64> {
        Some(self.counters()?[1] + self.unknown)
    }

    /// What the programs have cost so far; `None` if that could not be read.
    pub fn cost(&self) -> Option<ProgramCost> {
        let [events, _, _, switches, time, clock_time, ..] = self.counters()?;
        Some(ProgramCost { events, switches, time: Nanos::from_nanos(time), clock_time: Nanos::from_nanos(clock_time) })
    }

    /// The number of events that the kernel did not report. A begin that is missing is assumed to
    /// be the thread's wakeup or the last switch on that CPU, whichever was later: the earliest
    /// that is possible. A wakeup that is missing is assumed to be the begin of the run after it.
    #[cfg(any(test, feature = "internals"))]
    pub fn assumed(&self) -> Option<u64> {
        Some(self.counters()?[2])
    }

    fn counters(&self) -> Option<[u64; COUNTERS]> {
        let each = self.counts.get(&0, 0).ok()?;
        Some(each.iter().fold([0; COUNTERS], |sum, one| std::array::from_fn(|i| sum[i] + one[i])))
    }

    fn entries(&self) -> impl Iterator<Item = (u32, ThreadEntry)> + '_ {
        let pids = self.slots.get(&0, 0);
        let taken = move |slot: &u32| pids.as_ref().is_ok_and(|pids| pids.get(*slot as usize).is_some_and(|pid| *pid != 0));
        (0..MAX_THREADS as u32).filter(taken).filter_map(|slot| Some((slot, self.entry(slot)?)))
    }

    /// An entry that did not change while it was read.
    fn entry(&self, slot: u32) -> Option<ThreadEntry> {
        let mut last = self.threads.get(&slot, 0).ok()?;
        for _ in 0..MAX_READS {
            let again = self.threads.get(&slot, 0).ok()?;
            if again == last {
                break;
            }
            last = again;
        }
        ThreadEntry::parse(&last)
    }
}

fn attach(programs: &mut Ebpf, btf: &Btf, rate_hz: f64, wakeups: bool) -> Result<(), NoKernelEvents> {
    let what = "load the programs for kernel events";
    // The order of the tracepoint's arguments changed with 5.18; the verifier refuses the wrong
    // one.
    let switch = match load(programs, "switch_with_state", "sched_switch", btf) {
        Ok(()) => "switch_with_state",
        Err(first) => {
            let older = load(programs, "switch_before_5_18", "sched_switch", btf);
            older.map_err(|_| NoKernelEvents::new(what, &first))?;
            "switch_before_5_18"
        }
    };
    if wakeups {
        step(what, load(programs, "waking", "sched_waking", btf))?;
    }
    step(what, load(programs, "executes", "sched_process_exec", btf))?;
    for name in ["executes", switch].into_iter().chain(wakeups.then_some("waking")) {
        let program: &mut BtfTracePoint = step(what, tracepoint(programs, name))?;
        step("attach to the tracepoints of the scheduler", program.attach())?;
    }
    let clock: &mut PerfEvent =
        step(what, part(programs.program_mut("tick")).map_err(ProgramError::from).and_then(|program: &mut Program| program.try_into()))?;
    step(what, clock.load())?;
    let period = SamplePolicy::Period((1e9 / rate_hz.clamp(1.0, MAX_RATE_HZ)) as u64);
    let cpus = aya::util::online_cpus().map_err(|(_, error)| error);
    for cpu in step("list the CPUs", cpus)? {
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        let attached = clock.attach(PerfEventConfig::Software(SoftwareEvent::CpuClock), scope, period, false);
        step("start a clock on each CPU", attached)?;
    }
    Ok(())
}

fn tracepoint<'a>(programs: &'a mut Ebpf, name: &str) -> Result<&'a mut BtfTracePoint, ProgramError> {
    part(programs.program_mut(name))?.try_into()
}

fn load(programs: &mut Ebpf, name: &str, point: &str, btf: &Btf) -> Result<(), ProgramError> {
    tracepoint(programs, name)?.load(point, btf)
}

#[cfg(test)]
mod tests;
