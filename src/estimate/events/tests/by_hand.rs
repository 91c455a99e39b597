//! Events by hand: cases that a simulated machine does not make, and garbage.

use super::super::{EventEstimator, Found, Tick};
use super::replay::Collected;
use crate::ids::{Addr, GilId, ThreadId};
use crate::sample::{
    CpuRun, Evidence, GilSample, GilView, IntervalKind, MeasuredInterval, OffCpu, Sink, Stack, State, StateSlice, ThreadInfo, ThreadNow,
    ThreadTotals, Wakeup,
};
use crate::units::Nanos;
use proptest::prelude::*;
use std::sync::Arc;

const ME: ThreadId = ThreadId(1);
const OTHER: ThreadId = ThreadId(2);

/// Slices as (end in microseconds, state, evidence), equal neighbours joined; and intervals.
#[derive(Default)]
struct Slices {
    of_me: Vec<(u64, State, Evidence)>,
    intervals: Vec<(IntervalKind, u64, u64)>,
}

impl Sink for Slices {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
    fn slice(&mut self, slice: &StateSlice<'_>) {
        if slice.thread != ME {
            return;
        }
        let state = State::ALL.into_iter().find(|s| slice.times.get(*s) == slice.times.total()).expect("one state");
        let end = slice.end.as_nanos() / 1_000;
        match self.of_me.last_mut() {
            Some((last, before, evidence)) if *before == state && *evidence == slice.evidence => *last = end,
            _ => self.of_me.push((end, state, slice.evidence)),
        }
    }
    fn interval(&mut self, measured: &MeasuredInterval) {
        let micros = |at: Nanos| at.as_nanos() / 1_000;
        self.intervals.push((measured.kind, micros(measured.begin), micros(measured.end)));
    }
}

/// A thread beside another one, with times in microseconds.
struct Scene {
    estimator: EventEstimator,
    slices: Slices,
    number: u32,
}

fn us(micros: u64) -> Nanos {
    Nanos::from_micros(micros)
}

fn woken(at: u64, by_peer: bool) -> Option<Wakeup> {
    Some(Wakeup { at: us(at), by_peer })
}

fn tstate(thread: ThreadId) -> Addr {
    Addr(u64::from(thread.0) << 8)
}

/// The GIL with this last holder, which holds it.
fn held_by(holder: ThreadId, switches: u64) -> GilView {
    GilView { holds: None, gil: GilId(0), locked: true, last_holder: tstate(holder), switches }
}

/// The same as the holder sees it.
fn holding(switches: u64) -> GilView {
    GilView { holds: Some(GilId(0)), ..held_by(ME, switches) }
}

/// Free, with this last holder.
fn free_after(holder: ThreadId, switches: u64) -> GilView {
    GilView { locked: false, ..held_by(holder, switches) }
}

impl Scene {
    fn new(found: Found) -> Scene {
        let (mut estimator, mut slices) = (EventEstimator::default(), Slices::default());
        for (thread, found) in [(ME, found), (OTHER, Found::Running)] {
            estimator.start(thread, us(0), true, found);
            estimator.thread_state(thread, GilId(0), tstate(thread), &mut slices);
        }
        Scene { estimator, slices, number: 0 }
    }

    fn run(&mut self, (begin, end): (u64, u64), wakeup: Option<Wakeup>, off: OffCpu, view: GilView) -> &mut Scene {
        self.number += 1;
        let run = CpuRun { number: self.number, wakeup, begin: us(begin), end: us(end), off, view };
        self.estimator.run(ME, &run, None, &mut self.slices);
        self
    }

    fn tick(&mut self, at: u64, view: GilView, in_c_call: bool) -> &mut Scene {
        let tick = Tick { at: us(at), view, in_c_call, stack: Arc::new(Stack::empty()) };
        self.estimator.tick(ME, tick, &mut self.slices);
        self
    }

    fn now(&mut self, at: u64, now: ThreadNow) -> &mut Scene {
        self.estimator.now(ME, us(at), now, &mut self.slices);
        self
    }

    fn end(&mut self, at: u64) -> Vec<(u64, State, Evidence)> {
        self.estimator.end(ME, us(at), &mut self.slices).expect("it started");
        std::mem::take(&mut self.slices.of_me)
    }
}

#[test]
fn a_thread_found_asleep_is_accounted_for_at_drains() {
    let mut scene = Scene::new(Found::Running);
    scene.estimator.assume(ME, OffCpu::Syscall, &GilView::default(), &Arc::new(Stack::empty()));
    let asleep = ThreadNow::OffCpu { number: 0, wakeup: None };
    scene.now(100_000, asleep).now(200_000, asleep);
    assert_eq!(scene.slices.of_me, [(200_000, State::Io, Evidence::Syscall)]);
    let woken = ThreadNow::OffCpu { number: 0, wakeup: woken(250_000, false) };
    scene.now(300_000, woken);
    assert_eq!(scene.end(300_000), [(250_000, State::Io, Evidence::Syscall), (300_000, State::Starved, Evidence::WokenNotRun)]);
}

#[test]
fn a_long_run_is_accounted_for_by_its_ticks_before_it_ends() {
    let mut scene = Scene::new(Found::Running);
    scene.run((0, 10), None, OffCpu::Preempted, holding(1));
    let on_cpu = ThreadNow::OnCpu { number: 2, wakeup: None, begin: us(20) };
    for at in (1_000..=300_000).step_by(1_000) {
        scene.tick(at, holding(1), at > 45_000);
        if at % 100_000 == 0 {
            scene.now(at + 500, on_cpu);
        }
    }
    let holding = |end, state| (end, state, Evidence::GilHolder);
    let slices = &scene.slices.of_me;
    assert_eq!(slices[slices.len() - 2..], [holding(45_000, State::HoldingPython), holding(300_000, State::HoldingNative)]);
}

#[test]
fn a_holder_that_sleeps_is_blocked_and_then_starved() {
    for (off, evidence) in
        [(OffCpu::Syscall, Evidence::GilHolder), (OffCpu::OtherFutex, Evidence::HolderLock), (OffCpu::Fault, Evidence::HolderFault)]
    {
        let mut scene = Scene::new(Found::Started);
        scene.run((10, 20), None, off, holding(1)).run((50, 60), woken(40, false), OffCpu::Syscall, free_after(ME, 1));
        assert_eq!(
            scene.end(100),
            [
                (10, State::Starved, Evidence::WokenNotRun),
                (20, State::HoldingPython, Evidence::GilHolder),
                (40, State::HoldingBlocked, evidence),
                (50, State::HoldingStarved, Evidence::GilHolder),
                (60, State::HoldingPython, Evidence::GilHolder),
                (100, State::Io, Evidence::Syscall),
            ]
        );
    }
}

#[test]
fn rounds_of_a_wait_are_one_wait_and_a_stop_is_not_waiting() {
    let mut scene = Scene::new(Found::Started);
    scene
        .run((0, 10), None, OffCpu::GilFutex, held_by(OTHER, 5))
        .run((5_020, 5_025), woken(5_015, false), OffCpu::GilFutex, held_by(OTHER, 5))
        .run((7_000, 7_003), woken(7_000, false), OffCpu::Stopped, held_by(OTHER, 5))
        .run((9_000, 9_004), woken(9_000, false), OffCpu::GilFutex, held_by(OTHER, 5))
        .run((10_000, 11_000), woken(9_990, true), OffCpu::Syscall, free_after(ME, 6));
    let slices = scene.end(20_000);
    let of = |state| {
        slices.iter().scan(0, |from, (end, s, _)| Some((*end - std::mem::replace(from, *end), *s))).filter(move |(_, s)| *s == state)
    };
    assert_eq!(of(State::Unknown).map(|(micros, _)| micros).sum::<u64>(), 9_000 - 7_003);
    assert_eq!(of(State::Waiting).map(|(micros, _)| micros).sum::<u64>(), 10_000 - 10 - (9_000 - 7_003));
    assert_eq!(scene.slices.intervals, [(IntervalKind::Wait, 10, 10_000)]);
}

#[test]
fn a_forced_switch_before_a_sleep_is_no_wait() {
    let mut scene = Scene::new(Found::Started);
    scene
        .run((0, 10), None, OffCpu::GilFutex, held_by(OTHER, 5))
        .run((100, 9_000), woken(90, true), OffCpu::SwitchFutex, free_after(ME, 6))
        .run((9_050, 9_060), woken(9_040, true), OffCpu::Syscall, held_by(OTHER, 7));
    let slices = scene.end(10_000);
    assert_eq!(slices[slices.len() - 1].1, State::Io);
    let forced = (IntervalKind::ForcedSwitch, 9_000, 9_050);
    assert_eq!(scene.slices.intervals, [(IntervalKind::Wait, 10, 100), (IntervalKind::Hold, 100, 9_000), forced]);
}

#[test]
fn time_of_lost_runs_is_unknown() {
    let mut scene = Scene::new(Found::Started);
    scene.run((0, 10), None, OffCpu::Syscall, GilView::default());
    scene.number += 3;
    scene.run((500, 600), woken(450, false), OffCpu::OtherFutex, GilView::default());
    // The next run's event never comes: a position says that it has ended.
    let off_cpu = ThreadNow::OffCpu { number: 6, wakeup: None };
    scene.now(100_000, off_cpu).now(200_000, off_cpu);
    assert_eq!(scene.estimator.faults().lost_runs, 4);
    let unknown = |end| (end, State::Unknown, Evidence::Unread);
    let native = |end| (end, State::Native, Evidence::Conservation);
    assert_eq!(scene.end(200_000), [native(10), unknown(500), native(600), unknown(200_000)]);
}

#[test]
fn nobody_holds_a_gil_that_is_off() {
    let mut scene = Scene::new(Found::Started);
    for n in 0..20 {
        let begin = n * 10_000;
        scene.tick(begin + 500, GilView::default(), n % 2 == 0);
        scene.run((begin, begin + 5_000), woken(begin, false), OffCpu::OtherFutex, GilView::default());
    }
    let slices = scene.end(200_000);
    assert!(slices.iter().all(|(_, state, _)| matches!(state, State::Native | State::Lock | State::Starved)), "{slices:?}");
}

#[test]
fn without_drains_the_memory_of_a_thread_is_bounded() {
    let mut scene = Scene::new(Found::Started);
    for n in 0..50_000 {
        scene.run((n * 20, n * 20 + 5), woken(n * 20, false), OffCpu::Syscall, GilView::default());
    }
    let emitted = scene.slices.of_me.last().map_or(0, |(end, ..)| *end);
    assert!(emitted > 49_990 * 20 - 4_096 * 20, "{emitted}");
}

/// An event with nothing in order.
#[derive(Clone, Debug)]
enum Garbage {
    Run(CpuRun),
    Tick(u64, GilView),
    Now(u64, ThreadNow),
}

fn garbage() -> impl Strategy<Value = (u32, Garbage)> {
    let time = || prop_oneof![0..1_000_000u64, 0..10_000_000_000u64];
    let wakeup = proptest::option::of((time(), any::<bool>()).prop_map(|(at, by_peer)| Wakeup { at: Nanos::from_nanos(at), by_peer }));
    let view = (proptest::option::of(0..2u32), 0..2u32, any::<bool>(), 0..5u64, prop_oneof![0..9u64, any::<u64>()]).prop_map(
        |(holds, gil, locked, holder, switches)| GilView {
            holds: holds.map(GilId),
            gil: GilId(gil),
            locked,
            last_holder: Addr(holder << 8),
            switches,
        },
    );
    let off = prop_oneof![
        Just(OffCpu::Preempted),
        Just(OffCpu::PreemptedInGilCall),
        Just(OffCpu::GilFutex),
        Just(OffCpu::SwitchFutex),
        Just(OffCpu::SignalFutex),
        Just(OffCpu::OtherFutex),
        Just(OffCpu::Syscall),
        Just(OffCpu::Fault),
        Just(OffCpu::Stopped),
        Just(OffCpu::Exited),
    ];
    let number = || prop_oneof![0..12u32, any::<u32>()];
    let run = (number(), wakeup.clone(), time(), time(), off, view.clone()).prop_map(|(number, wakeup, begin, end, off, view)| {
        Garbage::Run(CpuRun { number, wakeup, begin: Nanos::from_nanos(begin), end: Nanos::from_nanos(end), off, view })
    });
    let tick = (time(), view).prop_map(|(at, view)| Garbage::Tick(at, view));
    let now = (time(), number(), wakeup, time(), any::<bool>()).prop_map(|(at, number, wakeup, begin, on_cpu)| {
        let begin = Nanos::from_nanos(begin);
        Garbage::Now(at, if on_cpu { ThreadNow::OnCpu { number, wakeup, begin } } else { ThreadNow::OffCpu { number, wakeup } })
    });
    (0..3u32, prop_oneof![4 => run, 2 => tick, 1 => now])
}

proptest! {
    #[test]
    fn garbage_makes_no_panic_and_no_negative_time(events in proptest::collection::vec(garbage(), 0..120)) {
        let (mut estimator, mut collected) = (EventEstimator::default(), Collected::default());
        for thread in 0..3 {
            estimator.start(ThreadId(thread), Nanos::ZERO, thread != 2, Found::Running);
        }
        for (thread, event) in events {
            let thread = ThreadId(thread);
            match event {
                Garbage::Run(run) => estimator.run(thread, &run, None, &mut collected),
                Garbage::Tick(at, view) => {
                    let tick = Tick { at: Nanos::from_nanos(at), view, in_c_call: false, stack: Arc::new(Stack::empty()) };
                    estimator.tick(thread, tick, &mut collected);
                }
                Garbage::Now(at, now) => estimator.now(thread, Nanos::from_nanos(at), now, &mut collected),
            }
        }
        for thread in 0..3 {
            let totals = estimator.end(ThreadId(thread), Nanos::from_nanos(10_000_000_000), &mut collected).expect("it started");
            let total = collected.threads.get(&thread).map_or(0.0, |estimate| estimate.times.total());
            prop_assert!((total - totals.seen.as_nanos() as f64).abs() < 2.0, "{total} {totals:?}");
            prop_assert!(totals.cpu + totals.run_queue <= totals.seen);
        }
    }
}
