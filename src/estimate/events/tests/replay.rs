//! Gives a simulated machine's records to the estimator, as a drain ten times a second does, and
//! collects what it makes of them.

use super::super::{EventEstimator, EventRules, Found, InputFaults, Tick};
use super::machine::{simulate, tstate, Record, Recorded, Setup, Truth};
use super::program::{Dice, Nano};
use crate::ids::{GilId, ThreadId};
use crate::sample::{
    Frame, Function, GilSample, IntervalKind, MeasuredInterval, OffCpu, Sink, Stack, State, StateSlice, StateTimes, ThreadInfo,
    ThreadTotals,
};
use crate::units::Nanos;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What reaches the estimator otherwise than it happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delivery {
    /// Records of different threads are out of order by as much.
    pub jitter: Nano,
    /// Part of the runs that are lost.
    pub lost: f64,
    /// The threads' states are known from the start.
    pub thread_states: bool,
    /// Every run is delivered twice.
    pub twice: bool,
    /// The process runs another program at the end of the window.
    pub replaced: bool,
    /// Added to all times and thread numbers: another process after the first.
    pub after: (Nano, usize),
}

/// What the estimator made of one thread.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    pub times: StateTimes,
    pub waits: u64,
    pub forced: u64,
    pub interval_nanos: f64,
    pub hold_nanos: f64,
    pub blame: BTreeMap<u32, f64>,
    pub slices: (Nano, Nano),
    pub totals: ThreadTotals,
}

/// Collects slices, and checks that those of one thread follow one another.
#[derive(Debug, Default)]
pub struct Collected {
    pub threads: BTreeMap<u32, Estimate>,
}

impl Sink for Collected {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn gil(&mut self, _: &GilSample) {}
    fn slice(&mut self, slice: &StateSlice<'_>) {
        let (length, end) = (slice.times.total(), slice.end.as_nanos());
        let thread = self.threads.entry(slice.thread.0).or_default();
        assert!(State::ALL.iter().all(|state| slice.times.get(*state) >= 0.0), "negative time: {slice:?}");
        let begin = end as f64 - length;
        if thread.slices == (0, 0) {
            thread.slices.0 = begin.round() as Nano;
        } else {
            assert!((begin - thread.slices.1 as f64).abs() < 2.0, "a gap or an overlap before {slice:?}, {:?}", thread.slices);
        }
        thread.slices.1 = end;
        thread.times.merge(&slice.times);
        if let Some((holder, _)) = slice.holder {
            assert_ne!(holder, slice.thread, "a thread does not wait for itself");
            *thread.blame.entry(holder.0).or_default() += slice.times.get(State::Waiting);
        }
    }
    fn interval(&mut self, measured: &MeasuredInterval) {
        let thread = self.threads.entry(measured.thread.0).or_default();
        let nanos = measured.end.saturating_since(measured.begin).as_nanos() as f64;
        match measured.kind {
            IntervalKind::Wait => thread.waits += 1,
            IntervalKind::ForcedSwitch => thread.forced += 1,
            IntervalKind::Hold => thread.hold_nanos += nanos,
        }
        if measured.kind != IntervalKind::Hold {
            thread.interval_nanos += nanos;
        }
    }
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

/// A simulated machine's truth with what the estimator made of its records.
pub struct Outcome {
    pub truth: Vec<Truth>,
    pub estimates: Vec<Estimate>,
    pub faults: InputFaults,
    pub lost: u64,
    pub setup: Setup,
    pub delivery: Delivery,
}

/// Simulates, delivers and estimates.
pub fn outcome(setup: &Setup, rules: EventRules, delivery: Delivery) -> Outcome {
    let mut estimator = EventEstimator::with_rules(rules);
    outcome_of(&mut estimator, setup, delivery)
}

/// The same with an estimator that may have followed another process.
pub fn outcome_of(estimator: &mut EventEstimator, setup: &Setup, delivery: Delivery) -> Outcome {
    let (records, truth) = simulate(setup);
    let mut collected = Collected::default();
    let stacks: Vec<Arc<Stack>> = (0..truth.len()).map(stack).collect();
    let (records, lost) = delivered(records, delivery, setup);
    let mut ends = 0;
    let (start, first) = (delivery.after.0, delivery.after.1);
    for Recorded { at, thread, record } in records {
        let (id, time) = (ThreadId((thread + first) as u32), Nanos::from_nanos(at + start));
        match record {
            Record::Start => {
                let python = setup.plans[thread].mix.python.0 > 0.0;
                estimator.start(id, time, python, Found::Started);
                if python && delivery.thread_states {
                    let gil = GilId(setup.plans[thread].gil as u32);
                    estimator.thread_state(id, gil, tstate(thread), &mut collected);
                }
            }
            Record::Run(mut run) => {
                run.begin += Nanos::from_nanos(start);
                run.end += Nanos::from_nanos(start);
                if let Some(wakeup) = &mut run.wakeup {
                    wakeup.at += Nanos::from_nanos(start);
                }
                estimator.run(id, &run, None, &mut collected);
                if delivery.twice {
                    estimator.run(id, &run, None, &mut collected);
                }
            }
            Record::Tick { view, in_c_call } => {
                estimator.tick(id, Tick { at: time, view, in_c_call, stack: stacks[thread].clone() }, &mut collected);
            }
            Record::Now(now) => estimator.now(id, time, shifted(now, start), &mut collected),
            Record::End if delivery.replaced && at >= setup.length => {
                collected.threads.entry(id.0).or_default().totals = estimator.end(id, time, &mut collected).expect("it started");
                ends += 1;
                if ends == truth.len() {
                    estimator.new_program();
                }
            }
            Record::End => {
                let totals = estimator.end(id, time, &mut collected).expect("it started");
                collected.threads.entry(id.0).or_default().totals = totals;
            }
        }
    }
    let estimates = (0..truth.len()).map(|thread| collected.threads.remove(&((thread + first) as u32)).unwrap_or_default()).collect();
    Outcome { truth, estimates, faults: estimator.faults(), lost, setup: setup.clone(), delivery }
}

fn shifted(now: crate::sample::ThreadNow, by: Nano) -> crate::sample::ThreadNow {
    use crate::sample::ThreadNow::{OffCpu, OnCpu};
    let later = |at: Nanos| at + Nanos::from_nanos(by);
    let woken = |wakeup: Option<crate::sample::Wakeup>| wakeup.map(|w| crate::sample::Wakeup { at: later(w.at), ..w });
    match now {
        OnCpu { number, wakeup, begin } => OnCpu { number, wakeup: woken(wakeup), begin: later(begin) },
        OffCpu { number, wakeup } => OffCpu { number, wakeup: woken(wakeup) },
    }
}

fn stack(thread: usize) -> Arc<Stack> {
    let function = Arc::new(Function { name: format!("f{thread}"), file: "a.py".into(), first_line: 1 });
    Arc::new(Stack { frames: vec![Frame { function, line: 1 }], status: Default::default() })
}

/// The records in the order in which they are delivered. Those of one thread keep their order; a
/// drain's positions come after what was delivered before it.
fn delivered(records: Vec<Recorded>, delivery: Delivery, setup: &Setup) -> (Vec<Recorded>, u64) {
    let mut dice = Dice::new(setup.seed ^ 0xD1CE);
    let mut last = vec![0; setup.plans.len()];
    let mut lost = 0;
    let mut timed: Vec<(Nano, usize, Recorded)> = Vec::new();
    for (order, recorded) in records.into_iter().enumerate() {
        let mut at = recorded.at;
        match recorded.record {
            Record::Run(run) if run.off != OffCpu::Exited && dice.chance(delivery.lost) => {
                lost += 1;
                continue;
            }
            Record::Now(_) => {}
            // The window's end waits for all that was recorded.
            Record::End if recorded.at >= setup.length => at += 2 * delivery.jitter,
            _ if delivery.jitter > 0 => at += dice.between(0, delivery.jitter),
            _ => {}
        }
        if !matches!(recorded.record, Record::Now(_)) {
            at = at.max(last[recorded.thread]);
            last[recorded.thread] = at;
        }
        timed.push((at, order, recorded));
    }
    timed.sort_by_key(|(at, order, _)| (*at, *order));
    (timed.into_iter().map(|(_, _, recorded)| recorded).collect(), lost)
}
