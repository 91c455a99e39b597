//! The times of all threads of the service on one clock, cut into blocks for the bootstrap.
//!
//! Workers that replace each other (`maxtasksperchild`, `max_requests`) share a *slot*: each goes
//! to the first slot of its kind whose last process had ended before. A slot stands for one process
//! with one GIL, and its threads are those of its processes, matched by name. So the number of
//! slots is the number of workers that exist at one time.

use super::member::Member;
use crate::analysis::bootstrap::divided;
use crate::analysis::name_pattern::name_pattern;
use crate::analysis::report::ProcessRole;
use crate::analysis::scaling::{self, Machine, Program};
use crate::profile::{Profile, ThreadProfile};
use crate::sample::StateTimes;
use std::collections::HashMap;

/// Blocks of the service's window.
const BLOCKS: usize = 32;
/// A process that was measured for this share of the service's window or more was there all the
/// time: only the measurement of one may begin a moment after that of another.
const STAYS: f64 = 0.8;
/// Seconds for which a process may end after its successor began.
const OVERLAP: f64 = 0.02;
/// Threads in all slots together; the rest is left out.
const MAX_THREADS: usize = 4096;

/// One thread of a slot.
#[derive(Clone, Debug)]
pub(super) struct SlotThread {
    pub(super) slot: usize,
    pub(super) role: ProcessRole,
    name: String,
    python: bool,
    gil: usize,
}

/// The times of all slots.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) threads: Vec<SlotThread>,
    /// Thread-seconds per second in each block.
    blocks: Vec<Vec<StateTimes>>,
    /// The slot of each member.
    pub(super) slot_of: Vec<usize>,
    pub(super) slots: usize,
    /// Length of the service's window.
    pub(super) seconds: f64,
}

impl Times {
    pub(super) fn new(members: &[Member<'_>]) -> Times {
        let (begin, end) = window(members);
        let seconds = ((end - begin) / 1e9).max(1e-9);
        let (slot_of, slots) = slots(members);
        let mut times = Times { threads: Vec::new(), blocks: vec![Vec::new(); BLOCKS], slot_of, slots, seconds };
        let mut index: HashMap<(usize, String, usize), usize> = HashMap::new();
        for (member, slot) in members.iter().zip(times.slot_of.clone()) {
            let of_thread = times.threads_of(member, slot, &mut index);
            times.add_blocks(member.profile, &of_thread, begin, member.presence(seconds));
        }
        times
    }

    /// The index of each thread of a process.
    fn threads_of(&mut self, member: &Member<'_>, slot: usize, index: &mut HashMap<(usize, String, usize), usize>) -> Vec<Option<usize>> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut one = |thread: &ThreadProfile| {
            let name = name_pattern(&thread.info.name);
            let nth = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(0);
            let known = index.get(&(slot, name.clone(), *nth)).copied();
            if known.is_some() || self.threads.len() >= MAX_THREADS {
                return known;
            }
            let gil = thread.info.gil.map_or(0, |id| member.profile.gils.iter().position(|gil| gil.id == id).unwrap_or(0));
            index.insert((slot, name.clone(), *nth), self.threads.len());
            self.threads.push(SlotThread { slot, role: member.role, name, python: thread.info.python, gil });
            self.blocks.iter_mut().for_each(|block| block.push(StateTimes::default()));
            Some(self.threads.len() - 1)
        };
        member.profile.threads.iter().map(&mut one).collect()
    }

    /// Adds the blocks of a process, each to those of the service that it overlaps.
    fn add_blocks(&mut self, profile: &Profile, of_thread: &[Option<usize>], begin: f64, presence: f64) {
        let length = self.seconds * 1e9 / BLOCKS as f64;
        let mut at = profile.window.begin.as_nanos() as f64 - begin;
        // A process that was there all the time, and measured for a part of it, is stretched.
        let (scale, stretch) = if presence >= STAYS { (1.0 / presence, 1.0 / presence) } else { (1.0, 1.0) };
        if presence >= STAYS {
            at = 0.0;
        }
        for block in &profile.blocks {
            let nanos = block.nanos * stretch;
            let (first, last) = (at, at + nanos);
            let range = (first / length).max(0.0) as usize..=((last / length).max(0.0) as usize).min(BLOCKS - 1);
            for n in range {
                let overlap = (last.min((n + 1) as f64 * length) - first.max(n as f64 * length)).max(0.0);
                if nanos <= 0.0 || overlap <= 0.0 {
                    continue;
                }
                for (thread, times) in &block.threads {
                    let Some(Some(to)) = of_thread.get(*thread) else { continue };
                    self.blocks[n][*to].merge(&divided(times, length * nanos / (overlap * scale)));
                }
            }
            at = last;
        }
    }

    /// Thread-seconds per second of each thread over some blocks.
    pub(super) fn rates(&self, blocks: &[usize]) -> Vec<StateTimes> {
        let mut sums = vec![StateTimes::default(); self.threads.len()];
        for block in blocks {
            sums.iter_mut().zip(&self.blocks[*block]).for_each(|(sum, times)| sum.merge(times));
        }
        sums.iter().map(|sum| divided(sum, blocks.len() as f64)).collect()
    }

    pub(super) fn whole(&self) -> Vec<StateTimes> {
        self.rates(&(0..BLOCKS).collect::<Vec<_>>())
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// All processes as one program, for the prediction.
    pub(super) fn program(&self, machine: Machine) -> Program {
        let whole = self.whole();
        let named = |(thread, times): (&SlotThread, &StateTimes)| {
            let kind = if thread.role == ProcessRole::Worker { "worker" } else { "other" };
            (format!("{kind} {}", thread.name), scaling::work(times), thread.python)
        };
        let most = self.threads.iter().map(|thread| thread.gil).max().unwrap_or(0) + 1;
        let gils = self.threads.iter().map(|thread| thread.slot * most + thread.gil).collect();
        Program::of_processes(&self.threads.iter().zip(&whole).map(named).collect::<Vec<_>>(), gils, machine)
    }
}

/// The begin and the end of the service's window, in nanoseconds.
fn window(members: &[Member<'_>]) -> (f64, f64) {
    let begin = |member: &Member<'_>| member.profile.window.begin.as_nanos() as f64;
    let end = |member: &Member<'_>| begin(member) + member.profile.seconds() * 1e9;
    let first = members.iter().map(begin).fold(f64::INFINITY, f64::min);
    let last = members.iter().map(end).fold(0.0, f64::max);
    if first < last {
        (first, last)
    } else {
        (0.0, 0.0)
    }
}

/// The slot of each process, and the number of slots.
fn slots(members: &[Member<'_>]) -> (Vec<usize>, usize) {
    let begin = |n: usize| members[n].profile.window.begin.as_nanos() as f64 / 1e9;
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by(|a, b| begin(*a).total_cmp(&begin(*b)).then(a.cmp(b)));
    let mut slot_of = vec![0; members.len()];
    // The kind of each slot, and when its last process ended.
    let mut slots: Vec<((ProcessRole, Option<i32>), f64)> = Vec::new();
    for n in order {
        let kind = (members[n].role, members[n].report.target.parent);
        let free = slots.iter().position(|(of, until)| *of == kind && kind.1.is_some() && *until <= begin(n) + OVERLAP);
        let slot = free.unwrap_or_else(|| {
            slots.push((kind, 0.0));
            slots.len() - 1
        });
        slots[slot].1 = begin(n) + members[n].profile.seconds();
        slot_of[n] = slot;
    }
    (slot_of, slots.len())
}
