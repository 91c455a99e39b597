//! Futex calls drawn as timelines, and the waits that they form.

use super::*;
use crate::capture::exact::merger::{MergingSink, WaitMerger};
use crate::ids::{Addr, ThreadId};
use crate::sample::{GilSample, Sink, StateSlice, ThreadInfo, ThreadTotals};
use proptest::prelude::*;

/// Plays a timeline, 20 us a column:
///
/// ```text
///   C M S G sleeps on cond, mutex, switch_cond, internal t r  its sleep timed out; it was woken
///   m       releases the mutex                           g    wakes a signaller (leaves a condvar)
///   w       wakes a sleeper on cond (releases the GIL)   k    wakes one on switch_cond (has taken)
///   c n x   C, M, w only 5 us after the call before, still inside glibc
/// ```
/// Returns the letter of each interval with its first and its last column.
fn play(timeline: &str) -> Vec<(char, u64, u64)> {
    let (mut waits, mut out) = (Waits::default(), Vec::new());
    let mut emit = |t: CompletedInterval| {
        let letter = match t.kind {
            IntervalKind::Wait => 'W',
            IntervalKind::ForcedSwitch => 'O',
            IntervalKind::Hold => 'H',
        };
        out.push((letter, t.begin.as_nanos() / 20_000, t.end.as_nanos() / 20_000));
    };
    let g = GilId(0);
    let mut end = Nanos::ZERO;
    for (column, letter) in timeline.chars().enumerate() {
        end = Nanos::from_micros((20 * column as u64).saturating_sub(u64::from("cnx".contains(letter)) * 15));
        let op = match letter {
            'C' | 'c' => FutexOp::Sleep(g, GilFutex::Cond),
            'M' | 'n' => FutexOp::Sleep(g, GilFutex::Mutex),
            'S' => FutexOp::Sleep(g, GilFutex::SwitchCond),
            'G' => FutexOp::Sleep(g, GilFutex::CondInternal),
            'w' | 'x' => FutexOp::Wake(g, GilFutex::Cond),
            'm' => FutexOp::Wake(g, GilFutex::Mutex),
            'g' => FutexOp::Wake(g, GilFutex::CondInternal),
            'k' => FutexOp::Wake(g, GilFutex::SwitchCond),
            't' => FutexOp::Return { timed_out: true },
            'r' => FutexOp::Return { timed_out: false },
            _ => {
                waits.close_stale(end, &mut emit);
                continue;
            }
        };
        waits.handle(end, Tid(1), op, None, &mut emit);
    }
    waits.finish(end, &mut emit);
    out
}

#[test]
fn repeated_timeouts_are_one_wait() {
    assert_eq!(play("C..tmC..tmC..rm......"), [('W', 0, 14)]);
    assert_eq!(play("C..tm.......C..rm...."), [('W', 0, 16)], "preempted between two rounds");
    assert_eq!(play("C..rgmc..rm......"), [('W', 0, 10)], "leaving the condition variable");
    assert_eq!(play("C..rmc..rm......"), [('W', 0, 9)], "another thread was faster");
    assert_eq!(play("C..rC..rm......"), [('W', 0, 8)], "woken by a signal for a later sleeper");
    assert_eq!(play("C..tmM..rmc..rm......"), [('W', 0, 14)], "woken before it slept");
}

#[test]
fn a_thread_waits_until_it_releases_the_mutex() {
    assert_eq!(play("C..r..........mc..rm...."), [('W', 0, 19)], "preempted when it returned");
    assert_eq!(play("C..tmM..r..........mc..r.......m...."), [('W', 0, 31)]);
    assert_eq!(play("M..r..........m....w"), [('W', 0, 14), ('H', 14, 19)]);
    assert_eq!(play("C..r...."), [('W', 0, 7)], "the window ends");
    // Not for ever: the event of the mutex release may be lost.
    let mut waits = forced_release(120, Some(480));
    let (micros, mut completed) = (Nanos::from_micros, Vec::new());
    waits.handle(micros(600), Tid(3), FutexOp::Return { timed_out: false }, None, &mut |_| {});
    for (now, count) in [(250_600, 0), (250_601, 1)] {
        waits.close_stale(micros(now), &mut |t| completed.push((t.tid, t.begin, t.end)));
        assert_eq!(completed, vec![(Tid(3), micros(120), micros(600)); count]);
    }
}

#[test]
fn passing_a_signal_on_is_no_release() {
    assert_eq!(play("C..rxmc..rm......"), [('W', 0, 10)]);
    assert_eq!(play("C..r.......w..mc..rm......"), [('W', 0, 19)]);
    assert_eq!(play("C..txM..rkm...w"), [('W', 0, 9), ('H', 9, 14)]);
}

#[test]
fn a_release_separates_two_waits_however_close() {
    assert_eq!(play("C..rmwC..rm......"), [('W', 0, 4), ('H', 4, 5), ('W', 6, 10)]);
    assert_eq!(play("C..rm.C..rm......"), [('W', 0, 4), ('W', 6, 10)], "no other thread waited at the release");
    assert_eq!(play(&format!("C..tm{}C..rm......", ".".repeat(50))), [('W', 0, 4), ('W', 55, 59)], "a millisecond after its timeout");
}

#[test]
fn taking_the_gil_ends_a_wait_exactly() {
    assert_eq!(play("C..t.k..m..w....."), [('W', 0, 5), ('H', 5, 11)]);
}

#[test]
fn a_forced_switch_begins_the_wait_that_follows() {
    assert_eq!(play("C..rkm....wS..rC..tmC..rm......"), [('W', 0, 4), ('H', 4, 10), ('W', 10, 24)]);
    assert_eq!(
        play("C..rkm....w.......S..rC..rm......"),
        [('W', 0, 4), ('H', 4, 10), ('W', 10, 26)],
        "preempted before its sleep on switch_cond"
    );
    assert_eq!(play("C..rkm....S..r......"), [('W', 0, 4), ('H', 4, 10), ('O', 10, 13)]);
    assert_eq!(play("C..rm.S..rC..rm...."), [('W', 0, 4), ('H', 4, 6), ('W', 6, 14)], "soon after it took the GIL");
}

/// A thread that has taken the GIL releases it at 500 us. Another sleeps for it from `slept` to
/// `timed_out_since`, and again.
fn forced_release(slept: u64, timed_out_since: Option<u64>) -> Waits {
    let mut waits = Waits::default();
    forced_release_in(&mut waits, slept, timed_out_since);
    waits
}

fn forced_release_in(waits: &mut Waits, slept: u64, timed_out_since: Option<u64>) {
    let g = GilId(0);
    let mut calls = vec![
        (0, 1, FutexOp::Sleep(g, GilFutex::Cond)),
        (100, 2, FutexOp::Wake(g, GilFutex::Cond)),
        (110, 1, FutexOp::Return { timed_out: false }),
        (111, 1, FutexOp::Wake(g, GilFutex::SwitchCond)),
        (slept, 3, FutexOp::Sleep(g, GilFutex::Cond)),
        (500, 1, FutexOp::Wake(g, GilFutex::Cond)),
    ];
    let timed_out_since =
        timed_out_since.map(|at| [(at, 3, FutexOp::Return { timed_out: true }), (at + 1, 3, FutexOp::Sleep(g, GilFutex::Cond))]);
    calls.extend(timed_out_since.into_iter().flatten());
    calls.sort_by_key(|call| call.0);
    for (at, tid, op) in calls {
        waits.handle(Nanos::from_micros(at), Tid(tid), op, None, &mut |_| {});
    }
}

#[test]
fn a_forced_thread_waits_from_its_release_on() {
    let (g, micros) = (GilId(0), Nanos::from_micros);
    let mut waits = forced_release(120, Some(480));
    assert_eq!(waits.status(Tid(1)), WaitStatus::ForcedSince(micros(500)));
    waits.handle(micros(700), Tid(1), FutexOp::Sleep(g, GilFutex::Cond), None, &mut |_| {});
    assert_eq!(waits.status(Tid(1)), WaitStatus::WaitingSince(micros(500)));
    assert_eq!(forced_release(120, None).status(Tid(1)), WaitStatus::NotWaiting, "a voluntary release");
    let mut waits = forced_release(90, Some(480));
    assert_eq!(waits.status(Tid(1)), WaitStatus::NotWaiting, "that sleep was for another holder");
    waits.handle(micros(700), Tid(1), FutexOp::Sleep(g, GilFutex::Cond), None, &mut |_| {});
    assert_eq!(waits.status(Tid(1)), WaitStatus::WaitingSince(micros(700)));
}

#[test]
fn a_sample_overrides_a_forced_switch() {
    let (micros, mut waits) = (Nanos::from_micros, forced_release(120, Some(480)));
    waits.forget_forced_switch(Tid(1), micros(499));
    assert_eq!(waits.status(Tid(1)), WaitStatus::ForcedSince(micros(500)), "the sample was before the release");
    waits.forget_forced_switch(Tid(1), micros(700));
    assert_eq!(waits.status(Tid(1)), WaitStatus::NotWaiting);
}

#[test]
fn a_late_sample_overrides_a_forced_switch_too() {
    let (micros, g) = (Nanos::from_micros, GilId(0));
    for (sampled_at, begin) in [(499, 500), (600, 700), (701, 500)] {
        let (mut waits, mut completed) = (forced_release(120, Some(480)), Vec::new());
        waits.handle(micros(700), Tid(1), FutexOp::Sleep(g, GilFutex::Cond), None, &mut |_| {});
        waits.forget_forced_switch(Tid(1), micros(sampled_at));
        waits.finish(micros(900), &mut |t| completed.push(t));
        let completed: Vec<_> = completed.iter().filter(|t| t.tid == Tid(1)).map(|t| (t.begin, t.certain_begin)).collect();
        assert_eq!(completed, [(micros(begin), micros(700))], "a sample at {sampled_at} us");
    }
}

#[test]
fn a_sleep_shorter_than_the_interval_began_an_earlier_round() {
    let mut waits = Waits { interval: Some(Nanos::from_micros(100)), ..Waits::default() };
    forced_release_in(&mut waits, 120, Some(480));
    assert_eq!(waits.status(Tid(1)), WaitStatus::ForcedSince(Nanos::from_micros(500)));
    let mut waits = Waits { interval: Some(Nanos::from_micros(390)), ..Waits::default() };
    forced_release_in(&mut waits, 120, Some(480));
    assert_eq!(waits.status(Tid(1)), WaitStatus::NotWaiting, "the interval began before this holder took the GIL: no drop request");
}

#[test]
fn a_holder_that_sleeps_on_the_mutex_is_in_drop_gil() {
    assert_eq!(play("C..rkm..M..rxm..C..rm....."), [('W', 0, 4), ('O', 8, 11), ('H', 4, 11), ('W', 16, 20)]);
    assert_eq!(play("M..rk...."), [('W', 0, 4)]);
    assert_eq!(play("M..rxm...M..rm....w.."), [('O', 0, 3), ('W', 9, 13), ('H', 13, 18)]);
    assert_eq!(play("M..r.........w......."), [('O', 0, 3)], "preempted when it returned");
    assert_eq!(play("M..rG....rw.m...."), [('O', 0, 9)], "the sleeper on cond has not left yet");
    assert_eq!(play("C..rmn..rx...."), [('W', 0, 4), ('O', 4, 8), ('H', 4, 8)], "soon after it took the GIL");
    assert_eq!(play("C..rm......M..rm...."), [('W', 0, 4), ('W', 11, 15)], "it released when no thread waited, and requests again");
}

#[test]
fn the_ends_of_the_window() {
    assert_eq!(play("..C....."), [('W', 2, 7)]);
    assert_eq!(play("r..t..w.."), []);
}

#[test]
fn a_wait_from_before_tracing_is_extended_while_it_continues() {
    let t = Tid(1);
    let (g, micros) = (GilId(0), Nanos::from_micros);
    // It sleeps anew inside glibc; it starts another round; it takes the GIL and releases it.
    for (releases_mutex, slept, futex, begins) in [
        (None, 4000, GilFutex::Cond, [0].as_slice()),
        (Some(3990), 4000, GilFutex::Cond, &[0]),
        (Some(3000), 4000, GilFutex::Cond, &[0, 4000]),
        (Some(3990), 4000, GilFutex::SwitchCond, &[0, 4000]),
        (None, 4000, GilFutex::SwitchCond, &[4000]),
    ] {
        let (mut waits, mut completed) = (Waits::default(), Vec::new());
        waits.found_asleep(t, g, Nanos::ZERO);
        assert_eq!(waits.status(t), WaitStatus::Unknown);
        if let Some(at) = releases_mutex {
            waits.handle(micros(at), t, FutexOp::Wake(g, GilFutex::Mutex), None, &mut |t| completed.push(t));
        }
        waits.handle(micros(slept), t, FutexOp::Sleep(g, futex), None, &mut |t| completed.push(t));
        assert_eq!(waits.status(t), WaitStatus::WaitingSince(micros(begins[begins.len() - 1])));
        waits.finish(micros(5000), &mut |t| completed.push(t));
        let found: Vec<_> = completed.iter().filter(|t| t.kind != IntervalKind::Hold).map(|t| t.begin).collect();
        assert_eq!(found, begins.iter().map(|&at| micros(at)).collect::<Vec<_>>(), "{releases_mutex:?}, {futex:?}");
    }
}

#[test]
fn no_release_is_invisible_while_another_thread_sleeps() {
    for (other, waits) in [(true, 1), (false, 2)] {
        let (mut all, mut completed) = (Waits::default(), Vec::new());
        let mut handle = |us, tid, op| all.handle(Nanos::from_micros(us), Tid(tid), op, None, &mut |t| completed.push(t));
        handle(0, 2 - i32::from(!other), FutexOp::Sleep(GilId(0), GilFutex::Cond));
        handle(50, 1, FutexOp::Sleep(GilId(0), GilFutex::Cond));
        handle(100, 1, FutexOp::Return { timed_out: false });
        handle(110, 1, FutexOp::Wake(GilId(0), GilFutex::Mutex));
        handle(400, 1, FutexOp::Sleep(GilId(0), GilFutex::Cond));
        all.close_stale(Nanos::from_micros(500), &mut |t| completed.push(t));
        all.finish(Nanos::from_micros(600), &mut |t| completed.push(t));
        assert_eq!(completed.iter().filter(|t| t.tid == Tid(1)).count(), waits);
    }
}

#[test]
fn no_release_is_invisible_while_another_thread_holds() {
    // Thread 3 wakes thread 1, which is preempted. The sleep of thread 2 times out; thread 2 takes
    // the GIL, and thread 3 waits for that on `switch_cond`.
    for (taken, requests, waits) in [(true, Some(5100), 1), (false, Some(5100), 2), (true, None, 2)] {
        let (g, mut all, mut completed) = (GilId(0), Waits::default(), Vec::new());
        let mut handle = |us, tid, op| all.handle(Nanos::from_micros(us), Tid(tid), op, None, &mut |t| completed.push(t));
        handle(0, 1, FutexOp::Sleep(g, GilFutex::Cond));
        handle(10, 2, FutexOp::Sleep(g, GilFutex::Cond));
        handle(4000, 3, FutexOp::Wake(g, GilFutex::Cond));
        handle(4010, 3, FutexOp::Sleep(g, GilFutex::SwitchCond));
        handle(4020, 1, FutexOp::Return { timed_out: false });
        handle(4025, 1, FutexOp::Wake(g, GilFutex::Mutex));
        handle(5010, 2, FutexOp::Return { timed_out: true });
        if taken {
            handle(5020, 2, FutexOp::Wake(g, GilFutex::SwitchCond));
            handle(5090, 3, FutexOp::Return { timed_out: false });
            requests.into_iter().for_each(|us| handle(us, 3, FutexOp::Sleep(g, GilFutex::Cond)));
        }
        handle(7000, 1, FutexOp::Sleep(g, GilFutex::Cond));
        all.close_stale(Nanos::from_micros(7100), &mut |t| completed.push(t));
        all.finish(Nanos::from_micros(8000), &mut |t| completed.push(t));
        assert_eq!(completed.iter().filter(|t| t.tid == Tid(1)).count(), waits);
    }
}

/// Thread 2 holds the GIL. Thread 1, which held it before, is woken, releases the mutex at 110 us
/// and sleeps again at `sleeps`. The pairs are `last_holder` and `switch_number` at these two
/// calls. `close_stale` runs before each event, as at a sample. Returns the number of thread 1's
/// waits and the end of the first.
fn replay_return(releases_mutex: Option<(u64, u64)>, (sleeps, futex): (u64, GilFutex), then: Option<(u64, u64)>) -> (usize, Nanos) {
    let (g, mut all, mut completed) = (GilId(0), Waits::default(), Vec::new());
    let snapshot = |t: Option<(u64, u64)>| t.map(|(holder, switch_number)| GilSnapshot { last_holder: Addr(holder), switch_number });
    let calls = [
        (0, 2, FutexOp::Sleep(g, GilFutex::Cond), Some((1, 6))),
        (10, 1, FutexOp::Wake(g, GilFutex::Cond), Some((1, 6))),
        (20, 1, FutexOp::Sleep(g, GilFutex::Cond), Some((2, 7))),
        (30, 2, FutexOp::Return { timed_out: false }, Some((2, 7))),
        (100, 1, FutexOp::Return { timed_out: false }, Some((2, 7))),
        (110, 1, FutexOp::Wake(g, GilFutex::Mutex), releases_mutex),
        (sleeps, 1, FutexOp::Sleep(g, futex), then),
    ];
    for (us, tid, op, snapshot_parts) in calls {
        all.close_stale(Nanos::from_micros(us), &mut |t| completed.push(t));
        all.handle(Nanos::from_micros(us), Tid(tid), op, snapshot(snapshot_parts), &mut |t| completed.push(t));
    }
    all.finish(Nanos::from_millis(400), &mut |t| completed.push(t));
    let waits: Vec<_> = completed.iter().filter(|t| t.tid == Tid(1) && t.kind == IntervalKind::Wait).collect();
    (waits.len(), waits[0].end)
}

#[test]
fn last_holder_shows_which_thread_took_the_gil() {
    let (micros, end) = (Nanos::from_micros, Nanos::from_millis(400));
    assert_eq!(replay_return(Some((1, 8)), (112, GilFutex::Cond), Some((2, 9))), (2, micros(110)), "it waits again at once");
    assert_eq!(replay_return(Some((1, 8)), (112, GilFutex::Mutex), Some((1, 8))), (2, micros(110)));
    assert_eq!(replay_return(Some((2, 7)), (112, GilFutex::Cond), Some((2, 7))), (1, end));
    assert_eq!(replay_return(Some((2, 7)), (9_000, GilFutex::Cond), Some((2, 7))), (1, end), "preempted, and no thread took the GIL");
    assert_eq!(
        replay_return(Some((2, 7)), (9_000, GilFutex::Cond), Some((3, 9))),
        (2, micros(110)),
        "signalled before it slept, it took the GIL without an event"
    );
    assert_eq!(replay_return(Some((2, 7)), (112, GilFutex::Mutex), Some((1, 8))), (2, micros(110)));
    assert_eq!(
        replay_return(Some((2, 7)), (300_000, GilFutex::Cond), Some((2, 7))),
        (2, micros(110)),
        "events in between must have been lost"
    );
    assert_eq!(
        replay_return(Some((9, 8)), (500, GilFutex::CondInternal), Some((9, 8))),
        (1, micros(110)),
        "its PyThreadState is new; it releases"
    );
    assert_eq!(replay_return(Some((9, 8)), (500, GilFutex::SwitchMutex), Some((9, 8))), (1, micros(110)));
    for (sleeps, waits) in [(112, 1), (300, 2)] {
        assert_eq!(replay_return(None, (sleeps, GilFutex::Cond), None).0, waits, "not read: at {sleeps} us");
    }
}

#[test]
fn a_release_may_take_two_sleeps() {
    let (g, mut all, mut completed) = (GilId(0), Waits::default(), Vec::new());
    let snapshot = Some(GilSnapshot { last_holder: Addr(9), switch_number: 8 });
    let woken = FutexOp::Return { timed_out: false };
    let calls = [
        (0, FutexOp::Sleep(g, GilFutex::Cond)),
        (100, woken),
        (110, FutexOp::Wake(g, GilFutex::Mutex)),
        (500, FutexOp::Sleep(g, GilFutex::Mutex)),
        (510, woken),
        (511, FutexOp::Sleep(g, GilFutex::CondInternal)),
        (520, woken),
        (521, FutexOp::Wake(g, GilFutex::Cond)),
    ];
    calls.into_iter().for_each(|(us, op)| all.handle(Nanos::from_micros(us), Tid(1), op, snapshot, &mut |t| completed.push(t)));
    let micros = completed.iter().map(|t| (t.kind, t.begin.as_nanos() / 1000, t.end.as_nanos() / 1000)).collect::<Vec<_>>();
    assert_eq!(micros[0], (IntervalKind::Wait, 0, 110));
    assert!(micros.contains(&(IntervalKind::ForcedSwitch, 511, 520)), "{micros:?}");
}

#[test]
fn a_wait_after_the_window_is_not_counted() {
    let (g, mut waits, mut completed) = (GilId(0), Waits::default(), Vec::new());
    waits.handle(Nanos::from_micros(10), Tid(1), FutexOp::Sleep(g, GilFutex::Cond), None, &mut |_| {});
    waits.handle(Nanos::from_micros(30), Tid(2), FutexOp::Sleep(g, GilFutex::Cond), None, &mut |_| {});
    waits.handle(Nanos::from_micros(40), Tid(1), FutexOp::Return { timed_out: false }, None, &mut |_| {});
    waits.finish(Nanos::from_micros(20), &mut |t| completed.push((t.tid, t.end)));
    assert_eq!(completed, [(Tid(1), Nanos::from_micros(20))]);
}

#[test]
fn a_lost_return_loses_only_that_sleep() {
    assert_eq!(play("C......C..rm....."), [('W', 7, 11)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn intervals_never_overlap(timeline in "[CMSGcnwxkgmtr..]{0,120}") {
        let completed = play(&timeline);
        let mut waits: Vec<_> = completed.iter().filter(|t| t.0 != 'H').collect();
        waits.sort();
        waits.sort_by_key(|t| t.1);
        prop_assert!(waits.windows(2).all(|w| w[0].2 <= w[1].1), "{waits:?}");
        prop_assert!(completed.iter().all(|t| t.1 <= t.2));
    }
}

struct Nothing;

impl Sink for Nothing {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn slice(&mut self, _: &StateSlice<'_>) {}
    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

#[test]
fn exited_threads_and_their_gils_are_forgotten() {
    let mut merger = WaitMerger::default();
    for n in 0..100 {
        let (id, tid, gil) = (ThreadId(n), Tid(n as i32), GilId(n));
        // A sample finds every second one.
        let sampled = n % 2 == 0;
        if sampled {
            let info = ThreadInfo { id, tid, name: String::new(), python: true, main: false, gil: Some(gil) };
            MergingSink { merger: &mut merger, inner: &mut Nothing, last: false }.thread(&info);
        }
        let calls = [
            FutexOp::Sleep(gil, GilFutex::Cond),
            FutexOp::Return { timed_out: false },
            FutexOp::Wake(gil, GilFutex::Mutex),
            FutexOp::Wake(gil, GilFutex::Cond),
        ];
        let mut completed = Vec::new();
        for (ms, op) in (1..).zip(calls) {
            merger.waits.handle(Nanos::from_millis(ms), tid, op, None, &mut |t| completed.push(t));
        }
        completed.into_iter().for_each(|t| merger.add(t, &mut Nothing));
        if sampled {
            MergingSink { merger: &mut merger, inner: &mut Nothing, last: false }.thread_end(id, ThreadTotals::default());
        }
    }
    // Of an exited thread's id a new thread may be in a wait.
    merger.waits.handle(Nanos::from_millis(9), Tid(7), FutexOp::Sleep(GilId(7), GilFutex::Cond), None, &mut |_| {});
    assert_eq!(merger.waits.threads.len(), 100);
    merger.flush_unsampled(Nanos::from_millis(10), &mut || ThreadId(1000), &mut Nothing);
    merger.flush_exited(Nanos::from_millis(10), &mut Nothing);
    assert_eq!(merger.waits.threads.keys().collect::<Vec<_>>(), [&Tid(7)]);
    merger.waits.retain_gils(|gil| gil == GilId(7));
    assert_eq!((merger.waits.visibility.len(), merger.waits.released_at.len()), (1, 1));
}
