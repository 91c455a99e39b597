//! Streams of events made by hand, with known truth, and streams of garbage.

use super::*;
use crate::ids::Addr;
use crate::sample::{GilSample, IntervalKind, ThreadInfo, ThreadTotals, Wakeup};
use proptest::prelude::*;

#[derive(Default)]
struct Collected {
    slices: Vec<(ThreadId, Nanos, StateTimes, Option<ThreadId>)>,
    waits: Vec<MeasuredInterval>,
}

impl Collected {
    fn sum(&self, thread: u32, state: State) -> f64 {
        self.slices.iter().filter(|slice| slice.0 == ThreadId(thread)).map(|slice| slice.2.get(state)).sum()
    }

    fn total(&self, thread: u32) -> f64 {
        self.slices.iter().filter(|slice| slice.0 == ThreadId(thread)).map(|slice| slice.2.total()).sum()
    }
}

impl Sink for Collected {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.slices.push((slice.thread, slice.end, slice.times, slice.holder.map(|(id, _)| id)));
    }
    fn gil(&mut self, _: &GilSample) {}
    fn interval(&mut self, measured: &MeasuredInterval) {
        self.waits.push(*measured);
    }
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn view(holds: bool, last_holder: u32, switches: u64) -> GilView {
    let holds = holds.then_some(GilId(0));
    GilView { holds, gil: GilId(0), locked: true, last_holder: Addr(u64::from(last_holder) + 1), switches }
}

/// Events of threads that are numbered from 0, each thread's own number being its thread state.
struct Stream {
    estimator: EventEstimator,
    sink: Collected,
    numbers: [u32; 4],
    stack: Arc<Stack>,
}

impl Stream {
    fn new(threads: u32) -> Stream {
        let (mut estimator, stack) = (EventEstimator::default(), Arc::new(Stack::empty()));
        (0..threads).for_each(|thread| estimator.start(ThreadId(thread), Nanos::ZERO, &stack));
        Stream { estimator, sink: Collected::default(), numbers: [0; 4], stack }
    }

    fn run(&mut self, thread: u32, woken: Option<u64>, begin: u64, end: u64, off: OffCpu, view: GilView) {
        let number = self.numbers[thread as usize];
        self.numbers[thread as usize] += 1;
        let wakeup = woken.map(|at| Wakeup { at: us(at), by_peer: true });
        let run = CpuRun { number, wakeup, begin: us(begin), end: us(end), off, view };
        self.estimator.run(ThreadId(thread), &run, None, &mut self.sink);
    }

    fn tick(&mut self, thread: u32, at: u64, view: GilView) {
        self.estimator.tick(ThreadId(thread), &Tick { at: us(at), view, in_c_call: false, stack: self.stack.clone() });
    }

    fn finish(mut self, at: u64) -> Collected {
        self.estimator.stay_all(us(at));
        self.estimator.flush(Nanos::from_nanos(u64::MAX), &mut self.sink);
        self.sink
    }
}

/// Two threads take turns of 5 ms: each is forced to release, sleeps for the taker, then for the
/// GIL.
fn turns(stream: &mut Stream, count: u64) {
    stream.run(0, None, 0, 0, OffCpu::Preempted, view(true, 0, 1));
    stream.run(1, None, 0, 0, OffCpu::GilFutex, view(false, 0, 1));
    for turn in 0..count {
        let (at, holder) = (turn * 5_000, (turn % 2) as u32);
        let other = 1 - holder;
        (1..5).for_each(|ms| stream.tick(holder, at + ms * 1_000, view(true, holder, turn + 1)));
        let woken = if turn == 0 { None } else { Some(at - 10) };
        stream.run(holder, woken, at, at + 4_990, OffCpu::SwitchFutex, view(false, holder, turn + 1));
        // The taker is on its CPU; the other one goes from its forced switch to its wait.
        stream.run(holder, Some(at + 5_002), at + 5_004, at + 5_010, OffCpu::GilFutex, view(false, other, turn + 2));
    }
}

#[test]
fn threads_that_take_turns_wait_exactly_while_the_other_holds() {
    let mut stream = Stream::new(2);
    turns(&mut stream, 100);
    let seen = stream.finish(500_010);
    for thread in 0..2 {
        assert_eq!(seen.total(thread), 500_010e3);
        let waiting = seen.sum(thread, State::Waiting);
        assert!((waiting / 250e6 - 1.0).abs() < 0.01, "{waiting}");
        assert!((seen.sum(thread, State::HoldingPython) + waiting - 500e6).abs() < 1e6);
    }
    let waits = seen.waits.iter().filter(|wait| wait.kind == IntervalKind::Wait).count();
    assert!((98..=99).contains(&waits), "{waits}: each turn but the first ends one wait");
    let blamed: f64 = seen.slices.iter().filter(|slice| slice.3.is_some()).map(|slice| slice.2.get(State::Waiting)).sum();
    let all: f64 = (0..2).map(|thread| seen.sum(thread, State::Waiting)).sum();
    assert!(blamed > 0.98 * all, "{blamed} of {all}");
}

#[test]
fn a_wakeup_without_the_gil_does_not_end_a_wait() {
    let mut stream = Stream::new(2);
    stream.run(1, None, 0, 10, OffCpu::GilFutex, view(false, 0, 7));
    // A timeout, and a wakeup at which another thread is faster.
    stream.run(1, Some(5_000), 5_010, 5_014, OffCpu::GilFutex, view(false, 0, 7));
    stream.run(1, Some(6_000), 6_010, 6_014, OffCpu::GilFutex, view(false, 2, 8));
    stream.run(1, Some(9_000), 9_010, 9_500, OffCpu::Syscall, view(false, 1, 9));
    let seen = stream.finish(20_000);
    let waits: Vec<_> = seen.waits.iter().map(|wait| (wait.begin, wait.end)).collect();
    assert_eq!(waits, [(us(10), us(9_010))]);
    assert_eq!((seen.sum(1, State::Waiting), seen.sum(1, State::Io)), (9_000e3, 10_500e3));
}

#[test]
fn native_code_after_a_forced_switch_is_no_wait() {
    for ends in [true, false] {
        let mut stream = Stream::new(2);
        stream.run(1, None, 0, 100, OffCpu::SwitchFutex, view(false, 1, 7));
        // It released the GIL for native code, which another thread had requested.
        (1..9).for_each(|ms| stream.tick(1, ms * 1_000, view(false, 0, 8)));
        if ends {
            stream.run(1, Some(190), 200, 8_500, OffCpu::GilFutex, view(false, 0, 8));
        } else {
            let now = ThreadNow::OnCpu { number: 1, wakeup: Some(Wakeup { at: us(190), by_peer: true }), begin: us(200) };
            stream.estimator.now(ThreadId(1), us(8_500), now);
        }
        let seen = stream.finish(8_500);
        assert_eq!(seen.sum(1, State::Waiting), 100e3, "{ends}");
        assert_eq!(seen.waits.iter().map(|wait| wait.kind).collect::<Vec<_>>(), [IntervalKind::ForcedSwitch]);
        assert!(seen.sum(1, State::Native) > 8_299e3, "{ends}");
    }
}

#[test]
fn what_follows_a_release_tells_why_a_thread_was_preempted() {
    for (next, off, waits) in [(10, OffCpu::GilFutex, true), (2_000, OffCpu::GilFutex, false), (10, OffCpu::Syscall, false)] {
        let mut stream = Stream::new(2);
        stream.run(1, None, 0, 100, OffCpu::Preempted, view(true, 1, 7));
        stream.run(1, None, 200, 300, OffCpu::PreemptedInGilCall, view(false, 1, 7));
        stream.run(1, None, 1_300, 1_300 + next, off, view(false, 0, 8));
        let seen = stream.finish(5_000);
        let (waiting, starved) = (seen.sum(1, State::Waiting) >= 1_000e3, seen.sum(1, State::Starved) >= 1_000e3);
        assert_eq!((waiting && !starved, starved), (waits, !waits), "{next} {off:?}");
    }
}

#[test]
fn a_sleeper_that_others_show_not_to_hold_does_not_block_them() {
    let mut stream = Stream::new(2);
    // The taker has locked the GIL, and not yet put its name there.
    stream.run(1, None, 0, 100, OffCpu::Syscall, view(true, 1, 7));
    stream.tick(0, 1_000, view(true, 0, 8));
    let wakeup = Some(10_000);
    stream.run(1, wakeup, 10_010, 10_020, OffCpu::Syscall, view(false, 0, 8));
    let seen = stream.finish(20_000);
    assert_eq!(seen.sum(1, State::HoldingBlocked), 0.0);
    assert!(seen.sum(1, State::Io) > 19_000e3);
}

#[test]
fn ticks_divide_the_time_of_runs_that_are_alike() {
    let mut stream = Stream::new(1);
    stream.run(0, None, 0, 0, OffCpu::Syscall, view(false, 0, 1));
    // Runs of 0.5 ms, of which one in two is met by a tick; three of four ticks find it holding.
    for n in 0..400u64 {
        let at = n * 1_000;
        if n % 2 == 0 {
            stream.tick(0, at + 100 + (n % 5) * 80, view(n % 8 != 0, 0, 1));
        }
        stream.run(0, Some(at), at, at + 500, OffCpu::Syscall, view(false, 0, 1));
    }
    let seen = stream.finish(400_000);
    let (held, native) = (seen.sum(0, State::HoldingPython), seen.sum(0, State::Native));
    assert!((held + native - 200e6).abs() < 1.0 && (held / 200e6 - 0.75).abs() < 0.03, "{held} {native}");
}

#[test]
fn lost_runs_are_unknown_time() {
    let mut stream = Stream::new(1);
    stream.run(0, None, 0, 1_000, OffCpu::Syscall, view(false, 0, 1));
    stream.numbers[0] += 3;
    stream.run(0, Some(8_000), 9_000, 10_000, OffCpu::Syscall, view(false, 0, 1));
    assert_eq!(stream.estimator.lost_runs(), 3);
    let seen = stream.finish(12_000);
    assert_eq!((seen.sum(0, State::Unknown), seen.sum(0, State::Io), seen.total(0)), (8_000e3, 2_000e3, 12_000e3));
}

const OFF: [OffCpu; 9] = [
    OffCpu::Preempted,
    OffCpu::PreemptedInGilCall,
    OffCpu::GilFutex,
    OffCpu::SwitchFutex,
    OffCpu::OtherFutex,
    OffCpu::Syscall,
    OffCpu::Fault,
    OffCpu::Stopped,
    OffCpu::Exited,
];

proptest! {
    /// Whatever comes, in whatever order: no panic, and each thread's time is reported once.
    #[test]
    fn the_time_of_garbage_adds_up(
        events in proptest::collection::vec(
            (0..3u32, 0..6u8, 0..2_000_000u64, 0..400_000u64, (0..9usize, any::<bool>(), 0..4u32, 0..9u64), 0..4u32), 0..200)
    ) {
        let mut stream = Stream::new(3);
        let mut last = 0;
        for (thread, kind, at, length, (off, holds, holder, switches), skip) in events {
            let view = view(holds, holder, switches);
            last = last.max(at + length);
            match kind {
                0 => stream.tick(thread, at, view),
                1 => stream.estimator.now(ThreadId(thread), us(at), ThreadNow::OffCpu { number: skip, wakeup: None }),
                2 => stream.estimator.now(ThreadId(thread), us(at), ThreadNow::OnCpu { number: skip, wakeup: None, begin: us(length) }),
                3 => stream.estimator.flush(us(at), &mut stream.sink),
                _ => {
                    stream.numbers[thread as usize] = stream.numbers[thread as usize].wrapping_add(skip.saturating_sub(2));
                    stream.run(thread, (kind == 4).then_some(at.saturating_sub(length)), at, at + length, OFF[off], view);
                }
            }
        }
        let seen = stream.finish(last + 1);
        for thread in 0..3 {
            let mut until = 0.0;
            for (_, end, times, _) in seen.slices.iter().filter(|slice| slice.0 == ThreadId(thread)) {
                prop_assert!(State::ALL.iter().all(|&state| times.get(state) >= 0.0));
                until += times.total();
                prop_assert!((end.as_nanos() as f64 - until).abs() < 1.0, "a gap before {end:?}");
            }
        }
    }
}
