//! Traces the target's futex calls on its GILs as they happen: the event source of exact mode.
//!
//! It consists of two tracepoints, two kernel programs (`futex_program`) and a ring buffer. None of
//! them touches the target, and all end with their descriptors.

use super::futex_program::{self as program, GilFields, MapFds, TracedProcess, MARK_LEN, MAX_GILS, RECORD_LEN};
use super::sys_linux::bpf::{Attachment, Map, MapKind, Program};
use super::sys_linux::ring::Ring;
use super::{c_library::CLibrary, inner_tids::InnerTids, pod, proc_info, task_list::TaskList, tracepoints};
use crate::ids::{Addr, Pid, Tid};
use crate::units::Nanos;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Room for 43 690 records: a third of a second of a program that only waits, a second of an
/// ordinary program.
const RING_BYTES: u32 = 1 << 21;
/// Threads that can wait at once.
const MARKS: u32 = 16_384;
/// FUTEX_WAIT and FUTEX_WAIT_BITSET.
const WAITS: [u32; 2] = [0, 9];
/// FUTEX_WAKE.
const WAKE: u32 = 1;
const OP_MASK: u32 = 0x7f;
const TIMED_OUT: i64 = -(libc::ETIMEDOUT as i64);

/// A futex call, or its return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexEvent {
    /// Time on the monotonic clock.
    pub at: Nanos,
    /// The calling thread.
    pub tid: Tid,
    /// The call.
    pub call: FutexCall,
    /// The GIL at that moment; `None` if it could not be read.
    pub gil: Option<GilSnapshot>,
}

/// The holder fields of a GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GilSnapshot {
    /// `last_holder`: the `PyThreadState` that holds the GIL or was the last to hold it.
    pub last_holder: Addr,
    /// `switch_number`: the number of GIL switches, that is of acquisitions by a thread that was
    /// not the last holder.
    pub switch_number: u64,
}

/// A thread's operation on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexCall {
    /// It goes to sleep.
    Wait(Addr),
    /// It wakes sleepers.
    Wake(Addr),
    /// Its sleep has ended and it runs again.
    Return {
        /// Whether the sleep ended by its timeout and not by a wakeup.
        timed_out: bool,
    },
}

/// Why exact mode is unavailable.
#[derive(Debug)]
pub enum Unavailable {
    /// A step of the set-up failed.
    Failed {
        /// The step, after "failed to".
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The C library is not glibc, so a thread may wait for the GIL at an address outside of it.
    WaitsElsewhere(CLibrary),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, source) = match self {
            Unavailable::Failed { what, source } => (what, source),
            Unavailable::WaitsElsewhere(CLibrary::Musl) => {
                return f.write_str("the program uses musl, whose threads wait for the GIL at addresses on their stacks, not in the GIL");
            }
            Unavailable::WaitsElsewhere(_) => {
                return f.write_str("the program is not known to use glibc, whose threads wait for the GIL at addresses in it");
            }
        };
        write!(f, "failed to {what}: {source}")?;
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => f.write_str(
                "; kernel events need root, or CAP_BPF, CAP_PERFMON and, to read tracefs, CAP_SYS_ADMIN: run with sudo, or \
                 `sudo setcap cap_bpf,cap_perfmon,cap_sys_admin,cap_sys_ptrace+ep` on gilprof, or, where only perf is closed, \
                 `sudo sysctl kernel.perf_event_paranoid=-1`",
            ),
            Some(libc::EINVAL | libc::ENOSYS | libc::ENODEV | libc::ENOENT | libc::EOPNOTSUPP) => {
                f.write_str("; kernel events need Linux 5.8 with CONFIG_FTRACE_SYSCALLS and CONFIG_BPF_EVENTS")
            }
            _ => Ok(()),
        }
    }
}

/// Names the failed step.
fn step<T>(what: &'static str, result: io::Result<T>) -> Result<T, Unavailable> {
    result.map_err(|source| Unavailable::Failed { what, source })
}

/// A running tracer.
#[derive(Debug)]
pub struct FutexTracer {
    ring: Ring,
    gils: Map,
    lost: Map,
    gil_starts: Vec<Addr>,
    /// The threads' ids, if the target is in another PID namespace.
    inner: Option<Translation>,
    _held: (Map, Map, [Program; 2], [Attachment; 2]),
}

impl FutexTracer {
    /// Starts to trace a process, without any address yet.
    pub fn open(pid: Pid, fields: GilFields) -> Result<FutexTracer, Unavailable> {
        let found = step("read the tracepoints of futex(2)", tracepoints::find(&["syscalls/sys_enter_futex", "syscalls/sys_exit_futex"]))?;
        let map = |kind, value, entries| step("create a map for kernel events", Map::create(kind, value, entries));
        let gils = map(MapKind::Array, 8 * MAX_GILS, 1)?;
        let marks = map(MapKind::Hash, MARK_LEN, MARKS)?;
        let lost = map(MapKind::Array, 8, 1)?;
        let records = map(MapKind::Ring, 0, RING_BYTES)?;
        let ring = step("map the ring of kernel events", Ring::map(&records, RING_BYTES as usize))?;
        let target = step("read the target's PID namespace", target(pid, fields, &found))?;
        let maps = MapFds { gils: gils.fd(), marks: marks.fd(), lost: lost.fd(), ring: records.fd() };
        let load = |code: Vec<u64>| step("load a program for kernel events", Program::load(&code));
        let programs = [load(program::enter(&target, &maps))?, load(program::exit(&target, &maps))?];
        let attach = |n: usize| step("attach to the tracepoints of futex(2)", Attachment::new(&programs[n], found[n].id));
        // The exit is attached first, so that every traced entry has its exit traced.
        let exit = attach(1)?;
        let attachments = [attach(0)?, exit];
        let inner = (proc_info::is_in_inner_namespace(pid) == Some(true)).then(|| Translation::new(pid));
        Ok(FutexTracer { ring, gils, lost, gil_starts: Vec::new(), inner, _held: (marks, records, programs, attachments) })
    }

    /// Traces these addresses from now on, each the beginning of a GIL's traced part. Addresses
    /// beyond [`MAX_GILS`] are ignored.
    pub fn set_gils(&mut self, starts: &[Addr]) -> io::Result<()> {
        if starts != self.gil_starts {
            let mut value = [0u64; MAX_GILS];
            for (slot, start) in value.iter_mut().zip(starts.iter().filter(|a| !a.is_null())) {
                *slot = start.0;
            }
            self.gils.set(0, &value)?;
            self.gil_starts = starts.to_vec();
        }
        Ok(())
    }

    /// Passes on all events since the last call, in order for each thread.
    pub fn drain(&mut self, take: &mut dyn FnMut(FutexEvent)) {
        let inner = &mut self.inner;
        if let Some(inner) = inner {
            inner.is_current = false;
        }
        self.ring.drain::<RECORD_LEN>(&mut |record| {
            let Some(event) = parse(record) else { return };
            let tid = match inner {
                None => Some(event.tid),
                Some(inner) => inner.outer(event.tid.0),
            };
            if let Some(tid) = tid {
                take(FutexEvent { tid, ..event });
            }
        });
    }

    /// The number of events lost so far: because the ring was full, or because their threads had
    /// exited before their ids could be translated. `None` if it cannot be read.
    pub fn lost(&self) -> Option<u64> {
        Some(self.lost.get(0).ok()? + self.inner.as_ref().map_or(0, |inner| inner.unknown))
    }
}

/// Translates thread ids of the target's PID namespace.
#[derive(Debug)]
struct Translation {
    tasks: TaskList,
    tids: InnerTids,
    /// The list of threads was read since the events were last drained.
    is_current: bool,
    /// How many events had an unknown id.
    unknown: u64,
}

impl Translation {
    fn new(pid: Pid) -> Translation {
        Translation { tasks: TaskList::new(pid), tids: InnerTids::default(), is_current: false, unknown: 0 }
    }

    /// gilprof's id of a thread. The first unknown id causes the list of threads to be read again.
    fn outer(&mut self, inner: i32) -> Option<Tid> {
        let mut found = self.tids.outer(inner);
        if found.is_none() && !std::mem::replace(&mut self.is_current, true) {
            let mut listed = Vec::new();
            if self.tasks.read(&mut listed, false).is_ok() {
                self.tids.update(&listed, proc_info::inner_tid);
            }
            found = self.tids.outer(inner);
        }
        self.unknown += u64::from(found.is_none());
        found
    }
}

fn target(pid: Pid, gil: GilFields, found: &[tracepoints::Tracepoint]) -> io::Result<TracedProcess> {
    let namespace = std::fs::metadata(format!("/proc/{pid}/ns/pid"))?;
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    let field = |n: usize, name: &str| found.get(n)?.u64_offset(name).and_then(|offset| i16::try_from(offset).ok());
    Ok(TracedProcess {
        dev: namespace.dev(),
        inode: namespace.ino(),
        tgid: proc_info::inner_tid(Tid(pid.0)).ok_or_else(missing)?,
        gil,
        uaddr: field(0, "uaddr").ok_or_else(missing)?,
        op: field(0, "op").ok_or_else(missing)?,
        ret: field(1, "ret").ok_or_else(missing)?,
    })
}

/// Parses a record of the programs; the thread id is the one inside the target's PID namespace.
/// `None` for irrelevant calls.
fn parse(record: &[u8]) -> Option<FutexEvent> {
    let (time, word): (u64, u64) = (pod::at(record, 0)?, pod::at(record, 8)?);
    let (last_holder, switch_number): (u64, u64) = (pod::at(record, 16)?, pod::at(record, 24)?);
    let (tid, op): (i32, u32) = (pod::at(record, 32)?, pod::at(record, 36)?);
    let call = match op {
        program::EXIT => FutexCall::Return { timed_out: word as i64 == TIMED_OUT },
        _ if WAITS.contains(&(op & OP_MASK)) => FutexCall::Wait(Addr(word)),
        _ if op & OP_MASK == WAKE => FutexCall::Wake(Addr(word)),
        _ => return None,
    };
    // A zero means that the word could not be read: neither is zero once a thread has held the GIL.
    let gil = (last_holder != 0 && switch_number != 0).then_some(GilSnapshot { last_holder: Addr(last_holder), switch_number });
    Some(FutexEvent { at: Nanos::from_nanos(time), tid: Tid(tid), call, gil })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(words: [u64; 4], tid: i32, op: u32) -> Vec<u8> {
        let words: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        [&words[..], &tid.to_ne_bytes(), &op.to_ne_bytes()].concat()
    }

    #[test]
    fn records() {
        let gil = GilSnapshot { last_holder: Addr(9), switch_number: 11 };
        let event = |call, gil| Some(FutexEvent { at: Nanos::from_nanos(5), tid: Tid(7), call, gil });
        let of = |word, op| parse(&record([5, word, 9, 11], 7, op));
        // FUTEX_WAIT_BITSET | PRIVATE | CLOCK_REALTIME and FUTEX_WAKE | PRIVATE, as glibc passes
        // them.
        assert_eq!(of(0x1000, 393), event(FutexCall::Wait(Addr(0x1000)), Some(gil)));
        assert_eq!(of(0x1000, 128), event(FutexCall::Wait(Addr(0x1000)), Some(gil)));
        assert_eq!(of(0x1000, 129), event(FutexCall::Wake(Addr(0x1000)), Some(gil)));
        assert_eq!(of(-110i64 as u64, u32::MAX), event(FutexCall::Return { timed_out: true }, Some(gil)));
        assert_eq!(of(0, u32::MAX), event(FutexCall::Return { timed_out: false }, Some(gil)));
        assert_eq!(of(0x1000, 131), None);
        for unread in [[0, 0], [9, 0], [0, 11]] {
            let [holder, number] = unread;
            assert_eq!(parse(&record([5, 0x1000, holder, number], 7, 129)), event(FutexCall::Wake(Addr(0x1000)), None), "{unread:?}");
        }
        assert_eq!(parse(&[0; 39]), None);
    }

    #[test]
    fn a_refusal_names_what_helps() {
        let refused = Unavailable::Failed { what: "load", source: io::Error::from_raw_os_error(libc::EPERM) }.to_string();
        assert!(refused.contains("CAP_PERFMON") && refused.contains("perf_event_paranoid"), "{refused}");
        assert!(Unavailable::WaitsElsewhere(CLibrary::Musl).to_string().contains("musl"));
    }

    /// Runs the programs in the kernel; std's condition variable sleeps on a futex inside itself.
    #[test]
    fn own_sleeps_are_seen() {
        #[repr(C)]
        struct Like {
            last_holder: u64,
            switch_number: u64,
            condition: std::sync::Condvar,
        }
        let like = Like { last_holder: 42, switch_number: 43, condition: std::sync::Condvar::new() };
        let (mutex, condition) = (std::sync::Mutex::new(()), &like.condition);
        let at = Addr(condition as *const _ as u64);
        let watched = GilFields { len: std::mem::size_of_val(condition) as i32, last_holder: -16, switch_number: -8 };
        let mut tracer = match FutexTracer::open(Pid(std::process::id() as i32), watched) {
            Ok(tracer) => tracer,
            Err(why) => return eprintln!("skipped: own_sleeps_are_seen: {why}"),
        };
        let nap = || drop(condition.wait_timeout(mutex.lock().unwrap(), std::time::Duration::from_millis(2)).unwrap());
        nap();
        tracer.set_gils(&[Addr(8), at]).unwrap();
        let before = crate::process::sys_linux::monotonic();
        nap();
        let mut seen = Vec::new();
        tracer.drain(&mut |event| seen.push(event));
        let calls: Vec<FutexCall> = seen.iter().map(|e| e.call).collect();
        assert_eq!(calls, [FutexCall::Wait(at), FutexCall::Return { timed_out: true }]);
        let gil = GilSnapshot { last_holder: Addr(like.last_holder), switch_number: like.switch_number };
        assert!(seen.iter().all(|e| e.gil == Some(gil)), "{seen:?}");
        assert!(seen[0].at >= before && seen[1].at.saturating_since(seen[0].at) >= Nanos::from_millis(2));
        assert_eq!(tracer.lost(), Some(0));
        tracer.drain(&mut |event| panic!("{event:?} twice"));
    }

    #[test]
    fn events_of_unknown_threads_are_counted_and_read_the_list_once() {
        let own = std::process::id() as i32;
        let mut ids = Translation::new(Pid(own));
        assert_eq!((ids.outer(own), ids.is_current, ids.unknown), (Some(Tid(own)), true, 0));
        ids.tids = InnerTids::default();
        assert_eq!((ids.outer(own), ids.outer(-7), ids.unknown), (None, None, 2), "the list was read already");
        ids.is_current = false;
        assert_eq!((ids.outer(-7), ids.outer(own), ids.unknown), (None, Some(Tid(own)), 3));
    }

    proptest! {
        #[test]
        fn any_record_parses_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
