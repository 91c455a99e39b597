//! The target's futex calls on its GILs, as they happen: what exact mode is made of.
//!
//! Two tracepoints, two kernel programs (`futex_program`) and a ring. Nothing of it touches the target; all of it ends with the descriptors.

use super::futex_program::{self as program, GilFields, MapFds, TracedProcess, MARK_LEN, MAX_GILS, RECORD_LEN};
use super::sys_linux::bpf::{Attachment, Map, MapKind, Program};
use super::sys_linux::ring::Ring;
use super::{pod, proc_info, tracepoints};
use crate::ids::{Addr, Pid, Tid};
use crate::units::Nanos;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Room for 43 690 records: a third of a second of a program that does nothing but wait, a second of an ordinary one.
const RING_BYTES: u32 = 1 << 21;
/// Threads that can be in a wait at once.
const MARKS: u32 = 16_384;
/// FUTEX_WAIT and FUTEX_WAIT_BITSET.
const WAITS: [u32; 2] = [0, 9];
/// FUTEX_WAKE.
const WAKE: u32 = 1;
const OP_MASK: u32 = 0x7f;
const TIMED_OUT: i64 = -(libc::ETIMEDOUT as i64);

/// One call, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FutexEvent {
    /// When, on the monotonic clock.
    pub at: Nanos,
    /// The calling thread.
    pub tid: Tid,
    /// What.
    pub call: FutexCall,
    /// The GIL at that moment; `None` where it could not be read.
    pub gil: Option<GilSnapshot>,
}

/// Whose turn it is with a GIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GilSnapshot {
    /// `last_holder`: the `PyThreadState` that has the GIL, or had it last.
    pub last_holder: Addr,
    /// `switch_number`: how often one has taken it who did not have it last.
    pub switch_number: u64,
}

/// What a thread does on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FutexCall {
    /// Goes to sleep on it.
    Wait(Addr),
    /// Wakes sleepers.
    Wake(Addr),
    /// Its sleep is over and it runs again.
    Return {
        /// Because the time was over, not because it was woken.
        timed_out: bool,
    },
}

/// Why exact mode is not to be had.
#[derive(Debug)]
pub struct Unavailable {
    what: &'static str,
    source: io::Error,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.what, self.source)?;
        match self.source.raw_os_error() {
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

/// Names the step that failed.
fn step<T>(what: &'static str, result: io::Result<T>) -> Result<T, Unavailable> {
    result.map_err(|source| Unavailable { what, source })
}

/// A running watch.
#[derive(Debug)]
pub struct FutexTracer {
    pid: Pid,
    ring: Ring,
    gils: Map,
    lost: Map,
    gil_starts: Vec<Addr>,
    /// The target's own thread ids to ours, when it lives in another PID namespace.
    inner: Option<BTreeMap<i32, Tid>>,
    _held: (Map, Map, [Program; 2], [Attachment; 2]),
}

impl FutexTracer {
    /// Begins to watch a process, no address yet.
    pub fn open(pid: Pid, fields: GilFields) -> Result<FutexTracer, Unavailable> {
        let found = step("read the tracepoints of futex(2)", tracepoints::find(&["syscalls/sys_enter_futex", "syscalls/sys_exit_futex"]))?;
        let map = |kind, value, entries| step("make a map for kernel events", Map::create(kind, value, entries));
        let gils = map(MapKind::Array, 8 * MAX_GILS, 1)?;
        let marks = map(MapKind::Hash, MARK_LEN, MARKS)?;
        let lost = map(MapKind::Array, 8, 1)?;
        let records = map(MapKind::Ring, 0, RING_BYTES)?;
        let ring = step("map the ring of kernel events", Ring::map(&records, RING_BYTES as usize))?;
        let target = step("make out the target's PID namespace", target(pid, fields, &found))?;
        let maps = MapFds { gils: gils.fd(), marks: marks.fd(), lost: lost.fd(), ring: records.fd() };
        let load = |code: Vec<u64>| step("load a program for kernel events", Program::load(&code));
        let programs = [load(program::enter(&target, &maps))?, load(program::exit(&target, &maps))?];
        let attach = |n: usize| step("attach to the tracepoints of futex(2)", Attachment::new(&programs[n], found[n].id));
        // The exit first: an entry that is seen has its exit seen.
        let exit = attach(1)?;
        let attachments = [attach(0)?, exit];
        let inner = (proc_info::is_in_inner_namespace(pid) == Some(true)).then(BTreeMap::new);
        Ok(FutexTracer { pid, ring, gils, lost, gil_starts: Vec::new(), inner, _held: (marks, records, programs, attachments) })
    }

    /// Watches these addresses from now on, each the beginning of a GIL's watched part. Those beyond [`MAX_GILS`] are left out.
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

    /// Everything since the last time, in order for each thread.
    pub fn drain(&mut self, take: &mut dyn FnMut(FutexEvent)) {
        let (pid, inner) = (self.pid, &mut self.inner);
        self.ring.drain::<RECORD_LEN>(&mut |record| {
            let Some(event) = parse(record) else { return };
            let tid = match inner {
                None => Some(event.tid),
                Some(known) => our_tid(pid, known, event.tid.0),
            };
            if let Some(tid) = tid {
                take(FutexEvent { tid, ..event });
            }
        });
    }

    /// How many events found no room so far; `None` when the kernel does not say.
    pub fn lost(&self) -> Option<u64> {
        self.lost.get(0).ok()
    }
}

/// The thread's id as gilprof sees it. All ids are read again when one is not known.
fn our_tid(pid: Pid, known: &mut BTreeMap<i32, Tid>, inner: i32) -> Option<Tid> {
    if !known.contains_key(&inner) {
        *known = proc_info::outer_tids(pid);
    }
    known.get(&inner).copied()
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

/// A record of the programs, with the thread's id as the target has it. `None` for calls that say nothing here.
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
    // Either word is zero where it could not be read, and neither is once a thread has had the GIL.
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
        // FUTEX_WAIT_BITSET | PRIVATE | CLOCK_REALTIME and FUTEX_WAKE | PRIVATE, as glibc calls them.
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
        let refused = Unavailable { what: "load", source: io::Error::from_raw_os_error(libc::EPERM) }.to_string();
        assert!(refused.contains("CAP_PERFMON") && refused.contains("perf_event_paranoid"), "{refused}");
    }

    /// The kernel's own word on the programs; std's condition variable sleeps on a futex inside itself.
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

    proptest! {
        #[test]
        fn any_record_parses_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
