//! The structs that the programs write, parsed: `struct record` of the ring, with its frames, and
//! `struct thread` of their table. Nothing in them is trusted to be in range.

use super::config::MAX_FRAMES;
use crate::ids::{Addr, GilId, Pid, Tid};
use crate::process::pod;
use crate::sample::{CpuRun, GilView, OffCpu, ThreadNow, Wakeup};
use crate::units::Nanos;

/// The size of `struct record`, and of a frame after it.
pub(super) const RECORD: usize = 64;
const FRAME: usize = 24;
/// `position` of an entry frame.
const ENTRY_FRAME: i64 = i64::MIN;
const NO_GIL: u32 = u32::MAX;

/// The words of `struct thread`.
pub(super) const THREAD_WORDS: usize = 40;

/// Bits of `flags`.
mod flag {
    pub const LOCKED: u8 = 1;
    pub const BY_PEER: u8 = 2;
    pub const HAS_STACK: u8 = 4;
    pub const TRUNCATED: u8 = 8;
    pub const UNREADABLE: u8 = 16;
}

/// One Python frame, as the programs found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkedFrame {
    /// The address of the frame.
    pub at: Addr,
    /// Its code object.
    pub code: Addr,
    /// `f_lasti`, or the address of the current instruction.
    pub position: i64,
}

/// A stack of a thread at an instant at which it did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkedStack<'a> {
    /// Leaf first. Empty: the thread runs no Python.
    pub frames: &'a [WalkedFrame],
    /// Frames are missing at the root: there were more than are read.
    pub truncated: bool,
    /// Frames are missing at the root: their memory could not be read, for example because it was
    /// swapped out, or was no frame.
    pub unreadable: bool,
    /// Frames are missing at the leaf: the thread was just leaving them.
    pub leaving: bool,
}

/// A record of a thread. Those of one thread come in order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Record<'a> {
    /// It lost its CPU. A sleep has its stack unless that of the same call was read just before.
    Run(CpuRun, Option<WalkedStack<'a>>),
    /// The clock of its CPU interrupted it.
    Tick {
        /// The number of the run in which it was.
        number: u32,
        /// When.
        at: Nanos,
        /// The GIL at that moment.
        view: GilView,
        /// `None`: the thread's state is not known.
        stack: Option<WalkedStack<'a>>,
    },
    /// Its id is gone without a last run, because it took over the id of its process by execve(2).
    /// Any other thread ends with a run that [`OffCpu::Exited`] ended.
    Exited {
        /// When.
        at: Nanos,
    },
}

fn off_cpu(number: u8) -> Option<OffCpu> {
    Some(match number {
        0 => OffCpu::Preempted,
        1 => OffCpu::PreemptedInGilCall,
        2 => OffCpu::GilFutex,
        3 => OffCpu::SwitchFutex,
        4 => OffCpu::SignalFutex,
        5 => OffCpu::OtherFutex,
        6 => OffCpu::Syscall,
        7 => OffCpu::Fault,
        8 => OffCpu::Stopped,
        9 => OffCpu::Exited,
        _ => return None,
    })
}

fn wakeup(at: u64, by_peer: bool) -> Option<Wakeup> {
    (at != 0).then_some(Wakeup { at: Nanos::from_nanos(at), by_peer })
}

/// How the walk of a stack went, beyond its frames.
#[derive(Default)]
struct WalkFaults {
    leaving: bool,
    circular: bool,
}

/// Parses the frames of a record into `frames`. Entry frames are left out. Frames above one that
/// was left were called from a frame that no longer exists; they are left out too.
fn parse_frames(bytes: &[u8], count: usize, frames: &mut Vec<WalkedFrame>) -> WalkFaults {
    frames.clear();
    let (mut faults, mut last) = (WalkFaults::default(), Addr(0));
    for bytes in bytes.chunks_exact(FRAME).take(count) {
        let (Some(at), Some(code), Some(position)) = (pod::at(bytes, 0), pod::at::<Addr>(bytes, 8), pod::at(bytes, 16)) else { continue };
        if at == last {
            faults.circular = true;
            break;
        }
        last = at;
        if !code.is_null() {
            frames.push(WalkedFrame { at, code, position });
        } else if position != ENTRY_FRAME {
            frames.clear();
            faults.leaving = true;
        }
    }
    faults
}

/// Parses a record of the ring. `frames` is memory for its stack. `None`: no such record exists.
pub(super) fn parse<'a>(bytes: &[u8], frames: &'a mut Vec<WalkedFrame>) -> Option<(Pid, Tid, Record<'a>)> {
    let [kind, off, flags, count] = *bytes.first_chunk()?;
    let (tid, tgid, number): (i32, i32, u32) = (pod::at(bytes, 4)?, pod::at(bytes, 8)?, pod::at(bytes, 12)?);
    let time = |offset| pod::at(bytes, offset).map(Nanos::from_nanos);
    let (at, begin, woken) = (time(16)?, time(24)?, pod::at::<u64>(bytes, 32)?);
    let (holds, gil): (u32, u32) = (pod::at(bytes, 56)?, pod::at(bytes, 60)?);
    let has = |flag: u8| flags & flag != 0;
    let view = GilView {
        holds: (holds != NO_GIL).then_some(GilId(holds)),
        gil: GilId(if gil == NO_GIL { 0 } else { gil }),
        locked: has(flag::LOCKED),
        last_holder: pod::at(bytes, 40)?,
        switches: pod::at(bytes, 48)?,
    };
    let faults = parse_frames(bytes.get(RECORD..)?, usize::from(count).min(MAX_FRAMES as usize), frames);
    let truncated = has(flag::TRUNCATED) && !faults.circular;
    let unreadable = has(flag::UNREADABLE) || faults.circular;
    let stack = has(flag::HAS_STACK).then_some(WalkedStack { frames, truncated, unreadable, leaving: faults.leaving });
    let record = match kind {
        0 => {
            let (wakeup, off) = (wakeup(woken, has(flag::BY_PEER)), off_cpu(off)?);
            // Clocks read on two CPUs may disagree by a few nanoseconds.
            Record::Run(CpuRun { number, wakeup, begin: begin.min(at), end: at, off, view }, stack)
        }
        1 => Record::Tick { number, at, view, stack },
        2 => Record::Exited { at },
        _ => return None,
    };
    Some((Pid(tgid), Tid(tid), record))
}

/// An entry of the table of threads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ThreadEntry {
    pub tid: Tid,
    pub tgid: Pid,
    pub now: ThreadNow,
    /// Its records that were lost.
    pub lost: u64,
    /// Why it left its CPU last; `None`: it has been on one since it is known.
    #[cfg(any(test, feature = "internals"))]
    pub left: Option<(OffCpu, Nanos)>,
    /// With sums: up to its last switch.
    #[cfg(any(test, feature = "internals"))]
    pub sums: super::sums::Sums,
    /// The part of its waits that is not in the sums of the GIL of this index, which it last slept
    /// for.
    #[cfg(any(test, feature = "internals"))]
    pub of_gil: (usize, super::sums::GilSums),
}

impl ThreadEntry {
    /// `None`: the entry is free, or not complete yet.
    pub(super) fn parse(words: &[u64; THREAD_WORDS]) -> Option<ThreadEntry> {
        let low = |word: u64| word as u32;
        let high = |word: u64| (word >> 32) as u32;
        let number = low(words[4]);
        let wakeup = wakeup(words[1] & !1, words[1] & 1 == 1);
        let now = match words[0] {
            0 => ThreadNow::OffCpu { number, wakeup },
            begin => ThreadNow::OnCpu { number, wakeup, begin: Nanos::from_nanos(begin) },
        };
        #[cfg(any(test, feature = "internals"))]
        let sums = super::sums::Sums::parse(words[9..].first_chunk().unwrap_or(&[0; super::sums::WORDS]));
        (low(words[5]) != 0).then_some(ThreadEntry {
            tid: Tid(low(words[22]) as i32),
            tgid: Pid(high(words[22]) as i32),
            now,
            lost: words[20],
            #[cfg(any(test, feature = "internals"))]
            left: off_cpu(high(words[4]) as u8).filter(|_| words[3] != 0).map(|off| (off, Nanos::from_nanos(words[3]))),
            #[cfg(any(test, feature = "internals"))]
            sums,
            #[cfg(any(test, feature = "internals"))]
            of_gil: (usize::try_from(words[6]).unwrap_or(usize::MAX), sums.waits_beyond(&words[17..])),
        })
    }
}

#[cfg(test)]
mod tests;
