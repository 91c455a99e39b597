//! What the diagnoses use: the times of every process on one clock, with intervals for those of the
//! service as a whole.

use super::member::Member;
use super::times::Times;
use super::tree::TreeCpu;
use crate::analysis::bootstrap::Bootstrap;
use crate::analysis::file_names::FileNames;
use crate::analysis::phrases;
use crate::analysis::report::{Estimate, FunctionRow, Place, ProcessRole};
use crate::analysis::scaling::{self, Machine, Program};
use crate::analysis::shares::on_cpu;
use crate::sample::{State, StateTimes};

/// A process that was measured for this share of the service's window or more was there all the
/// time.
const STAYS: f64 = 0.8;

/// The processes that follow each other in one slot, in thread-seconds per second.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) role: ProcessRole,
    /// Index of the process that was measured for longest.
    pub(super) member: usize,
    pub(super) work: f64,
    pub(super) on_cpu: f64,
    pub(super) waiting: f64,
    /// All that is not asleep.
    pub(super) active: f64,
    /// Threads that do some work.
    pub(super) threads: usize,
    /// Share of the time of those threads for which they wait for the GIL.
    pub(super) waiting_share: f64,
}

/// ServiceFigures of the service, in thread-seconds per second.
struct ServiceSums {
    waiting: f64,
    on_cpu: f64,
    starvation: f64,
    shortage: f64,
}

pub(super) struct ServiceFigures<'a> {
    pub(super) members: &'a [Member<'a>],
    pub(super) times: Times,
    pub(super) program: Program,
    pub(super) tree: Option<TreeCpu>,
    pub(super) slots: Vec<Slot>,
    pub(super) whole: Vec<StateTimes>,
    pub(super) waiting: Estimate,
    pub(super) on_cpu: Estimate,
    /// Time without a core, as a share of the time in which threads had a core or could have used
    /// one.
    pub(super) starvation: Estimate,
    /// The same time, as a share of the time of threads that work, without their waiting for the
    /// GIL and for locks.
    pub(super) shortage: Estimate,
    names: FileNames,
}

impl<'a> ServiceFigures<'a> {
    pub(super) fn new(members: &'a [Member<'a>]) -> ServiceFigures<'a> {
        let times = Times::new(members);
        let whole = times.whole();
        let program = times.program(machine(members, times.seconds));
        let drawn = Bootstrap::of_blocks(times.blocks(), times.threads.len(), |blocks| ServiceSums::of(&times.rates(blocks), &program));
        let files = members.iter().flat_map(|member| &member.report.functions);
        let files = files.flat_map(|f| std::iter::once(f.file.as_str()).chain(f.called_from.as_ref().map(|caller| caller.file.as_str())));
        ServiceFigures {
            slots: slots(members, &times, &whole),
            tree: TreeCpu::of(members, times.seconds),
            waiting: drawn.interval(|sums| sums.waiting),
            on_cpu: drawn.interval(|sums| sums.on_cpu),
            starvation: drawn.interval(|sums| sums.starvation),
            shortage: drawn.interval(|sums| sums.shortage),
            names: FileNames::new(files),
            members,
            times,
            program,
            whole,
        }
    }

    pub(super) fn cores(&self) -> f64 {
        self.program.cores
    }

    /// Whether a process was measured for most of the time. Otherwise the recordings are of
    /// different times.
    pub(super) fn are_of_one_time(&self) -> bool {
        self.members.iter().any(|member| member.presence(self.times.seconds) >= STAYS)
    }

    /// Slots of workers.
    pub(super) fn workers(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.role == ProcessRole::Worker)
    }

    /// The work of all processes.
    pub(super) fn work(&self) -> f64 {
        self.slots.iter().map(|slot| slot.work).sum()
    }

    /// The member of a slot.
    pub(super) fn member(&self, slot: &Slot) -> &'a Member<'a> {
        &self.members[slot.member]
    }

    /// The slot's process in a sentence: "4243".
    pub(super) fn pid(&self, slot: &Slot) -> i32 {
        self.member(slot).report.target.pid
    }

    /// The user's function with the most of a figure in these slots, and its share of that figure.
    pub(super) fn top(&self, slots: &[&Slot], figure: impl Fn(&FunctionRow) -> f64) -> Option<(Place, f64)> {
        let mut sums: Vec<(Place, f64)> = Vec::new();
        let rows = slots.iter().flat_map(|slot| self.member(slot).report.functions.iter());
        for row in rows.filter(|row| figure(row) > 0.0) {
            let place = row.place();
            let own = phrases::own_caller(&place).unwrap_or(Place { called_from: None, ..place });
            match sums.iter_mut().find(|(known, _)| *known == own) {
                Some((_, sum)) => *sum += figure(row),
                None => sums.push((own, figure(row))),
            }
        }
        let all: f64 = sums.iter().map(|(_, sum)| sum).sum();
        let most = sums.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((most.0, most.1 / all))
    }

    /// A function as "burn (app.py:12)".
    pub(super) fn place(&self, place: &Place) -> String {
        phrases::place(&self.names, place)
    }
}

impl ServiceSums {
    fn of(threads: &[StateTimes], program: &Program) -> ServiceSums {
        let used: f64 = threads.iter().map(on_cpu).sum();
        let without_core = |t: &StateTimes| t.get(State::Starved) + t.get(State::HoldingStarved);
        let lacked = threads.iter().map(without_core).sum::<f64>() * (1.0 - program.woken(threads));
        let most = threads.iter().map(scaling::work).fold(0.0, f64::max);
        let works = |t: &&StateTimes| scaling::work(t) > WORKER * most || without_core(t) > 0.5 * t.total();
        let own: f64 = threads.iter().filter(works).map(|t| t.total() - t.get(State::Waiting) - t.get(State::Lock)).sum();
        let ratio = |of: f64| if lacked > 0.0 && of > 0.0 { lacked / of } else { 0.0 };
        let waiting = threads.iter().map(|t| t.get(State::Waiting)).sum();
        ServiceSums { waiting, on_cpu: used, starvation: ratio(lacked + used), shortage: ratio(own) }
    }
}

/// The cores of the machine: what the processes may use, and what nobody uses.
fn machine(members: &[Member<'_>], seconds: f64) -> Machine {
    let rate = |member: &Member<'_>| {
        let measured = member.profile.seconds().max(1e-9);
        member.cpu_seconds() / if member.presence(seconds) >= STAYS { measured } else { seconds }
    };
    let used: f64 = members.iter().map(rate).sum();
    // Processes bound to different cores use more of them together than each may.
    let cores = members.iter().map(|member| member.report.target.cpus).fold(1.0, f64::max).max(used.floor());
    let idle = || members.iter().filter_map(|member| Some((member.profile.window.idle_cpus?, member.profile.seconds())));
    let weight: f64 = idle().map(|(_, seconds)| seconds).sum();
    let mean = idle().map(|(idle, seconds)| idle * seconds).sum::<f64>() / weight;
    let switches = |member: &Member<'_>| member.report.gil.switches_per_s.unwrap_or(0.0) * member.presence(seconds);
    Machine {
        cores,
        idle: (weight > 0.0).then_some(mean),
        used: Some(used).filter(|used| *used > 0.0),
        switches_per_s: members.iter().map(switches).sum(),
    }
}

/// Share of the busiest thread's work below which a thread is no worker.
const WORKER: f64 = 0.01;

fn slots(members: &[Member<'_>], times: &Times, whole: &[StateTimes]) -> Vec<Slot> {
    let most = whole.iter().map(scaling::work).fold(0.0, f64::max);
    let one = |slot: usize| {
        let of_slot = || (0..members.len()).filter(|n| times.slot_of[*n] == slot);
        let longest = of_slot().max_by(|a, b| members[*a].profile.seconds().total_cmp(&members[*b].profile.seconds()));
        let threads: Vec<&StateTimes> = times.threads.iter().zip(whole).filter(|(t, _)| t.slot == slot).map(|(_, times)| times).collect();
        let working: Vec<&&StateTimes> = threads.iter().filter(|t| most > 0.0 && scaling::work(t) > WORKER * most).collect();
        let sum = |of: &dyn Fn(&StateTimes) -> f64| threads.iter().map(|t| of(t)).sum::<f64>();
        let waiting = sum(&|t| t.get(State::Waiting));
        let total: f64 = working.iter().map(|t| t.total()).sum();
        let member = longest.unwrap_or(0);
        Slot {
            role: members[member].role,
            member,
            work: sum(&scaling::work),
            on_cpu: sum(&on_cpu),
            waiting,
            active: sum(&|t| t.holding() + t.get(State::Waiting) + t.get(State::Native) + t.get(State::Starved)),
            threads: working.len(),
            waiting_share: working.iter().map(|t| t.get(State::Waiting)).sum::<f64>() / total.max(1e-9),
        }
    };
    (0..times.slots).map(one).collect()
}
