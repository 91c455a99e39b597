//! The builder: passes each slice and sample to the tables that need it.

use super::blame::{BlameTable, WaitedOnTable};
use super::blocks::Blocks;
use super::functions::{FunctionId, Functions};
use super::gils::GilProfile;
use super::stacks::Stacks;
use super::threads::ThreadProfile;
use super::{sanitize, HolderSleep, Losses, Profile};
use crate::ids::{GilId, ThreadId, Tid};
use crate::sample::{
    CaptureStats, Evidence, GilSample, MeasuredInterval, Sink, State, StateSlice, Stop, TargetInfo, ThreadInfo, ThreadTotals,
};
use rustc_hash::FxHashMap;

/// The largest number of threads with a row of their own.
const MAX_THREADS: usize = 8192;
/// The largest number of GILs with figures.
const MAX_GILS: usize = 256;

/// Builds a [`Profile`] from what the capture side emits.
#[derive(Clone, Debug)]
pub struct ProfileBuilder {
    threads: Vec<ThreadProfile>,
    index: FxHashMap<ThreadId, usize>,
    gils: Vec<GilProfile>,
    functions: Functions,
    stacks: Stacks,
    blocks: Blocks,
    blame: BlameTable,
    waited_on: WaitedOnTable,
    collecting: FxHashMap<FunctionId, f64>,
    holder_sleep: HolderSleep,
    losses: Losses,
}

/// Figures for the progress line on the terminal, of the GIL with the most waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LiveStats {
    /// Samples so far.
    pub samples: u64,
    /// Share of time in which some thread held the GIL.
    pub gil_busy: f64,
    /// Mean number of waiting threads, without time that is still ambiguous.
    pub waiters_mean: f64,
}

impl Default for ProfileBuilder {
    fn default() -> Self {
        let functions = Functions::default();
        ProfileBuilder {
            threads: Vec::new(),
            index: FxHashMap::default(),
            gils: Vec::new(),
            stacks: Stacks::new(&functions),
            functions,
            blocks: Blocks::default(),
            blame: BlameTable::default(),
            waited_on: WaitedOnTable::default(),
            collecting: FxHashMap::default(),
            holder_sleep: HolderSleep::default(),
            losses: Losses::default(),
        }
    }
}

impl ProfileBuilder {
    /// An empty builder.
    pub fn new() -> ProfileBuilder {
        ProfileBuilder::default()
    }

    /// The figures so far. Cheap enough for every progress line.
    pub fn live(&self) -> LiveStats {
        let Some(gil) = self.gils.iter().max_by(|a, b| a.waiting.total_cmp(&b.waiting)) else {
            return LiveStats::default();
        };
        let share = |nanos: f64| if gil.observed > 0.0 { nanos / gil.observed } else { 0.0 };
        LiveStats { samples: gil.samples, gil_busy: share(gil.busy), waiters_mean: share(gil.waiting) }
    }

    /// The profile.
    pub fn finish(mut self, target: TargetInfo, window: CaptureStats) -> Profile {
        self.threads.iter_mut().for_each(|t| t.close(window.exact));
        self.gils.sort_by_key(|g| g.id);
        let (stacks, leaves, stack_times) = self.stacks.finish();
        Profile {
            target: TargetInfo {
                cpus: zero_unless_plausible(target.cpus),
                quota: target.quota.map(zero_unless_plausible),
                machine_cpus: target.machine_cpus.map(zero_unless_plausible),
                ..target
            },
            window: CaptureStats {
                seconds: zero_unless_plausible(window.seconds),
                rate_hz: zero_unless_plausible(window.rate_hz),
                profiler_cpu: zero_unless_plausible(window.profiler_cpu),
                idle_cpus: window.idle_cpus.map(zero_unless_plausible),
                stops: window.stops.into_iter().map(|stop| Stop { seconds: zero_unless_plausible(stop.seconds), ..stop }).collect(),
                ..window
            },
            threads: self.threads,
            gils: self.gils,
            blocks: self.blocks.finish(),
            stack_times,
            blame: self.blame.finish(),
            waited_on: self.waited_on.finish(),
            collecting: collecting_functions(self.collecting),
            holder_sleep: self.holder_sleep,
            losses: self.losses,
            functions: self.functions.into_list(),
            stacks,
            leaves,
        }
    }

    /// The index of a thread's row, and whether the row is its own. Threads beyond the bound share
    /// the last row.
    fn row(&mut self, id: ThreadId) -> (usize, bool) {
        if let Some(&index) = self.index.get(&id) {
            return (index, true);
        }
        let own = self.threads.len() < MAX_THREADS;
        if self.threads.len() <= MAX_THREADS {
            let name = if own { "(not announced)" } else { "(other threads)" };
            let gil = Some(GilId::default());
            self.threads.push(ThreadProfile::new(ThreadInfo { id, tid: Tid(0), name: name.into(), python: false, main: false, gil }));
        }
        let index = self.threads.len() - 1;
        if own {
            self.index.insert(id, index);
        }
        (index, own)
    }

    fn gil_row(&mut self, id: GilId) -> Option<&mut GilProfile> {
        let index = match self.gils.iter().position(|g| g.id == id) {
            Some(index) => index,
            None if self.gils.len() >= MAX_GILS => return None,
            None => {
                self.gils.push(GilProfile::new(id));
                self.gils.len() - 1
            }
        };
        self.gils.get_mut(index)
    }
}

/// The functions in which collections ran, the longest first.
fn collecting_functions(nanos: FxHashMap<FunctionId, f64>) -> Vec<(FunctionId, f64)> {
    let mut rows: Vec<(FunctionId, f64)> = nanos.into_iter().collect();
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    rows
}

/// `n`, or zero where `n` is negative, enormous or not a number: a recording may hold any value.
fn zero_unless_plausible(n: f64) -> f64 {
    if (0.0..=1e12).contains(&n) {
        n
    } else {
        0.0
    }
}

impl Sink for ProfileBuilder {
    fn thread(&mut self, info: &ThreadInfo) {
        let (row, own) = self.row(info.id);
        if own {
            self.threads[row].info = info.clone();
        }
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let (times, lost) = sanitize(&slice.times);
        self.losses.invalid += u64::from(lost);
        let total = times.total();
        if total <= 0.0 {
            return;
        }
        let (row, own) = self.row(slice.thread);
        let stopped = slice.evidence == Evidence::Stopped;
        self.losses.threads += u64::from(!own);
        let thread = &mut self.threads[row];
        let gil = thread.info.gil.unwrap_or_default();
        thread.add(&times);
        // A stop interrupts nothing: what the program does goes on where it was.
        let mut gil_profile = self.gils.iter_mut().find(|row| row.id == gil);
        if own && !stopped {
            let gil = gil_profile.as_mut().into_iter();
            let unseen_turns = |of_waiter| gil.flat_map(move |gil| gil.unseen_turns(slice.end, total, of_waiter));
            thread.extend_run(&times, slice.evidence, unseen_turns);
        }
        self.holder_sleep.add(&times, slice.evidence);
        let collecting = gil_profile.map_or(0.0, |gil| gil.collecting_within(slice.end, times.holding()));
        let (stack, leaf) = self.stacks.intern(slice.stack, &mut self.functions, &mut self.losses);
        self.stacks.add_time(row, stack, &times, &mut self.losses);
        if stopped {
            self.blocks.add_stop(row, slice.end, total);
        } else {
            self.blocks.add(row, stack, slice.end, &times);
        }
        if collecting > 0.0 {
            *self.collecting.entry(leaf).or_default() += collecting;
        }
        let waiting = times.get(State::Waiting);
        if waiting > 0.0 {
            let holder = slice.holder.map(|(_, stack)| self.stacks.intern(stack, &mut self.functions, &mut self.losses));
            self.losses.blame += u64::from(self.blame.add(leaf, holder.map(|(_, leaf)| leaf), waiting));
            self.waited_on.add(row, stack, holder.map(|(stack, _)| stack), waiting);
            if let Some(gil) = self.gil_row(gil) {
                gil.add_wait(slice.end, waiting, total);
            }
        }
    }

    fn gil(&mut self, sample: &GilSample) {
        if let Some(gil) = self.gil_row(sample.gil) {
            gil.add_sample(sample);
        }
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        let nanos = measured.end.saturating_since(measured.begin).as_nanos() as f64;
        let (row, _) = self.row(measured.thread);
        self.threads[row].record_interval(measured.kind, nanos);
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        if let (row, true) = self.row(thread) {
            self.threads[row].totals = Some(totals);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Frame, Function, Holder, Stack, StackStatus, StateTimes};
    use crate::units::Nanos;
    use std::sync::Arc;

    fn stack(name: &str) -> Arc<Stack> {
        let function = Arc::new(Function { name: name.into(), file: "app.py".into(), first_line: 1 });
        Arc::new(Stack { frames: vec![Frame { function, line: 2 }], status: StackStatus::Complete })
    }

    fn slice<'a>(thread: u32, ms: u64, state: State, stack: &'a Arc<Stack>) -> StateSlice<'a> {
        let (end, times) = (Nanos::from_millis(ms), StateTimes::single(state, 1e6));
        StateSlice { thread: ThreadId(thread), end, times, evidence: Evidence::GilHolder, stack, holder: None }
    }

    #[test]
    fn live_stats_and_profile_agree() {
        let (burn, wait) = (stack("burn"), stack("wait"));
        let mut builder = ProfileBuilder::new();
        assert_eq!(builder.live(), LiveStats::default());
        for ms in 1..=1000 {
            let span = Nanos::from_millis(1);
            let (at, holder) = (Nanos::from_millis(ms), Holder::Thread(ThreadId(0)));
            builder.gil(&GilSample { gil: GilId(0), at, span, holder, switches: Some(ms), waiters: 1, collecting: None });
            builder.slice(&slice(0, ms, State::HoldingPython, &burn));
            builder.slice(&StateSlice { holder: Some((ThreadId(0), &burn)), ..slice(1, ms, State::Waiting, &wait) });
        }
        assert_eq!(builder.live(), LiveStats { samples: 1000, gil_busy: 1.0, waiters_mean: 1.0 });
        let profile = builder.finish(TargetInfo::default(), CaptureStats::default());
        assert_eq!((profile.threads.len(), profile.gils.len(), profile.blame.len()), (2, 1, 1));
        assert!((profile.seconds() - 1.0).abs() < 1e-9);
        let (_, stack, times) = profile.stacks().nth(1).unwrap();
        assert_eq!((stack.leaf().unwrap().function.name.as_str(), times.get(State::Waiting)), ("wait", 1e9));
        assert_eq!(profile.function(profile.blame[0].holder.unwrap()).name, "burn");
        assert_eq!(profile.losses, Losses::default());
    }

    #[test]
    fn many_threads_share_a_row_and_lose_no_time() {
        let (burn, most) = (stack("burn"), MAX_THREADS as u32);
        let mut builder = ProfileBuilder::new();
        (0..most + 50).for_each(|n| builder.slice(&slice(n, 10, State::Native, &burn)));
        let profile = builder.finish(TargetInfo::default(), CaptureStats::default());
        assert_eq!(profile.threads.len(), MAX_THREADS + 1);
        let other = profile.threads.last().unwrap();
        assert_eq!((other.info.name.as_str(), other.times.total()), ("(other threads)", 50e6));
        assert_eq!(profile.losses.threads, 50);
    }

    #[test]
    fn invalid_times_are_refused_and_counted() {
        let burn = stack("burn");
        let mut builder = ProfileBuilder::new();
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let mut times = StateTimes::single(State::Io, 1e6);
            times.add(State::Waiting, bad);
            builder.slice(&StateSlice { times, ..slice(0, 1, State::Io, &burn) });
        }
        let profile = builder.finish(TargetInfo { cpus: f64::NAN, ..TargetInfo::default() }, CaptureStats::default());
        assert_eq!((profile.losses.invalid, profile.threads[0].times.total(), profile.target.cpus), (3, 3e6, 0.0));
    }
}
