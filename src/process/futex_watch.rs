//! The target's futex calls on its GILs, as they happen: what exact mode is made of.
//!
//! Two tracepoints, two kernel programs (`futex_program`) and a ring. Nothing of it touches the target; all of it ends with the descriptors.

use super::futex_program::{self as program, Maps, Target, MAX_GILS, RECORD};
use super::sys_linux::bpf::{Attachment, Map, MapKind, Program};
use super::sys_linux::ring::Ring;
use super::{facts, pod, tracepoints};
use crate::ids::{Addr, Pid, Tid};
use crate::units::Nanos;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;

/// Room for 32 768 records: a third of a second of a program that does nothing but wait, a second of an ordinary one.
const RING_BYTES: u32 = 1 << 20;
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
    pub call: Call,
}

/// What a thread does on a futex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
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
pub struct FutexWatch {
    pid: Pid,
    ring: Ring,
    gils: Map,
    lost: Map,
    watched: Vec<Addr>,
    /// The target's own thread ids to ours, when it lives in another PID namespace.
    inner: Option<BTreeMap<i32, Tid>>,
    _held: (Map, Map, [Program; 2], [Attachment; 2]),
}

impl FutexWatch {
    /// Begins to watch a process, no address yet. `span` is the length of the part of a GIL in which its waiters sleep.
    pub fn open(pid: Pid, span: u32) -> Result<FutexWatch, Unavailable> {
        let found = step("read the tracepoints of futex(2)", tracepoints::find(&["syscalls/sys_enter_futex", "syscalls/sys_exit_futex"]))?;
        let map = |kind, value, entries| step("make a map for kernel events", Map::create(kind, value, entries));
        let gils = map(MapKind::Array, 8 * MAX_GILS, 1)?;
        let marks = map(MapKind::Hash, 4, MARKS)?;
        let lost = map(MapKind::Array, 8, 1)?;
        let records = map(MapKind::Ring, 0, RING_BYTES)?;
        let ring = step("map the ring of kernel events", Ring::map(&records, RING_BYTES as usize))?;
        let target = step("make out the target's PID namespace", target(pid, span, &found))?;
        let maps = Maps { gils: gils.fd(), marks: marks.fd(), lost: lost.fd(), ring: records.fd() };
        let load = |code: Vec<u64>| step("load a program for kernel events", Program::load(&code));
        let programs = [load(program::enter(&target, &maps))?, load(program::exit(&target, &maps))?];
        let attach = |n: usize| step("attach to the tracepoints of futex(2)", Attachment::new(&programs[n], found[n].id));
        // The exit first: an entry that is seen has its exit seen.
        let exit = attach(1)?;
        let attachments = [attach(0)?, exit];
        let inner = (facts::inner_namespace(pid) == Some(true)).then(BTreeMap::new);
        Ok(FutexWatch { pid, ring, gils, lost, watched: Vec::new(), inner, _held: (marks, records, programs, attachments) })
    }

    /// Watches these addresses from now on, each the beginning of a GIL's span. Those beyond [`MAX_GILS`] are left out.
    pub fn set_gils(&mut self, starts: &[Addr]) -> io::Result<()> {
        if starts != self.watched {
            let mut value = [0u64; MAX_GILS];
            for (slot, start) in value.iter_mut().zip(starts.iter().filter(|a| !a.is_null())) {
                *slot = start.0;
            }
            self.gils.set(0, &value)?;
            self.watched = starts.to_vec();
        }
        Ok(())
    }

    /// Everything since the last time, in order for each thread.
    pub fn drain(&mut self, take: &mut dyn FnMut(FutexEvent)) {
        let (pid, inner) = (self.pid, &mut self.inner);
        self.ring.drain::<RECORD>(&mut |record| {
            if let Some((at, tid, call)) = parse(record) {
                let tid = match inner {
                    None => Some(Tid(tid)),
                    Some(known) => outer(pid, known, tid),
                };
                if let Some(tid) = tid {
                    take(FutexEvent { at, tid, call });
                }
            }
        });
    }

    /// How many events found no room so far; `None` when the kernel does not say.
    pub fn lost(&self) -> Option<u64> {
        self.lost.get(0).ok()
    }
}

/// The thread's id as gilprof sees it. All ids are read again when one is not known.
fn outer(pid: Pid, known: &mut BTreeMap<i32, Tid>, inner: i32) -> Option<Tid> {
    if !known.contains_key(&inner) {
        *known = facts::outer_tids(pid);
    }
    known.get(&inner).copied()
}

fn target(pid: Pid, span: u32, found: &[tracepoints::Tracepoint]) -> io::Result<Target> {
    let namespace = std::fs::metadata(format!("/proc/{pid}/ns/pid"))?;
    let missing = || io::Error::from(io::ErrorKind::InvalidData);
    let field = |n: usize, name: &str| found.get(n)?.word(name).and_then(|offset| i16::try_from(offset).ok());
    Ok(Target {
        dev: namespace.dev(),
        inode: namespace.ino(),
        tgid: facts::inner_tid(Tid(pid.0)).ok_or_else(missing)?,
        span: i32::try_from(span).map_err(|_| missing())?,
        uaddr: field(0, "uaddr").ok_or_else(missing)?,
        op: field(0, "op").ok_or_else(missing)?,
        ret: field(1, "ret").ok_or_else(missing)?,
    })
}

/// A record of the programs. `None` for calls that say nothing here.
fn parse(record: &[u8]) -> Option<(Nanos, i32, Call)> {
    let (time, word): (u64, u64) = (pod::at(record, 0)?, pod::at(record, 8)?);
    let (tid, op): (i32, u32) = (pod::at(record, 16)?, pod::at(record, 20)?);
    let call = match op {
        program::EXIT => Call::Return { timed_out: word as i64 == TIMED_OUT },
        _ if WAITS.contains(&(op & OP_MASK)) => Call::Wait(Addr(word)),
        _ if op & OP_MASK == WAKE => Call::Wake(Addr(word)),
        _ => return None,
    };
    Some((Nanos::from_nanos(time), tid, call))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(time: u64, word: u64, tid: i32, op: u32) -> Vec<u8> {
        [&time.to_ne_bytes()[..], &word.to_ne_bytes(), &tid.to_ne_bytes(), &op.to_ne_bytes()].concat()
    }

    #[test]
    fn records() {
        let of = |word, op| parse(&record(5, word, 7, op)).map(|(at, tid, call)| (at.as_nanos(), tid, call));
        // FUTEX_WAIT_BITSET | PRIVATE | CLOCK_REALTIME and FUTEX_WAKE | PRIVATE, as glibc calls them.
        assert_eq!(of(0x1000, 393), Some((5, 7, Call::Wait(Addr(0x1000)))));
        assert_eq!(of(0x1000, 128), Some((5, 7, Call::Wait(Addr(0x1000)))));
        assert_eq!(of(0x1000, 129), Some((5, 7, Call::Wake(Addr(0x1000)))));
        assert_eq!(of(-110i64 as u64, u32::MAX), Some((5, 7, Call::Return { timed_out: true })));
        assert_eq!(of(0, u32::MAX), Some((5, 7, Call::Return { timed_out: false })));
        assert_eq!(of(0x1000, 131), None);
        assert_eq!(parse(&[0; 23]), None);
    }

    #[test]
    fn a_refusal_names_what_helps() {
        let refused = Unavailable { what: "load", source: io::Error::from_raw_os_error(libc::EPERM) }.to_string();
        assert!(refused.contains("CAP_PERFMON") && refused.contains("perf_event_paranoid"), "{refused}");
    }

    /// The kernel's own word on the programs; std's condition variable sleeps on a futex inside itself.
    #[test]
    fn own_sleeps_are_seen() {
        let (mutex, condition) = (std::sync::Mutex::new(()), std::sync::Condvar::new());
        let at = Addr(&condition as *const _ as u64);
        let mut watch = match FutexWatch::open(Pid(std::process::id() as i32), std::mem::size_of_val(&condition) as u32) {
            Ok(watch) => watch,
            Err(why) => return eprintln!("skipped: own_sleeps_are_seen: {why}"),
        };
        let nap = || drop(condition.wait_timeout(mutex.lock().unwrap(), std::time::Duration::from_millis(2)).unwrap());
        nap();
        watch.set_gils(&[Addr(8), at]).unwrap();
        let before = crate::process::sys_linux::monotonic();
        nap();
        let mut seen = Vec::new();
        watch.drain(&mut |event| seen.push(event));
        let calls: Vec<Call> = seen.iter().map(|e| e.call).collect();
        assert_eq!(calls, [Call::Wait(at), Call::Return { timed_out: true }]);
        assert!(seen[0].at >= before && seen[1].at.since(seen[0].at) >= Nanos::from_millis(2));
        assert_eq!(watch.lost(), Some(0));
        watch.drain(&mut |event| panic!("{event:?} twice"));
    }

    proptest! {
        #[test]
        fn any_record_parses_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&bytes);
        }
    }
}
