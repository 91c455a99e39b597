//! Properties of every report, for any captured data.

use super::report;
use super::testing::Scene;
use crate::ids::{GilId, ThreadId, Tid};
use crate::profile::{Profile, ProfileBuilder};
use crate::sample::*;
use crate::units::Nanos;
use proptest::prelude::*;
use std::sync::Arc;

const STATES: [&str; 10] = ["P a", "C b", "B c", "X a", "W d", "N e", "S f", "L g", "I h", "U i"];

#[test]
fn shares_add_to_one_and_blame_to_waiting() {
    let profile = Scene::new(2.0).run(3000, |t| (0..7).map(|n| STATES[((t * 7 + n * 3 + t / 11) % 10) as usize]).collect());
    let r = report(&profile);
    for t in &r.threads {
        let s = &t.states;
        assert!((s.holding + s.waiting + s.native + s.starved + s.lock + s.io + s.unknown - 1.0).abs() < 1e-9);
        let h = &t.holding;
        assert!((h.python + h.native + h.blocked + h.starved - s.holding).abs() < 1e-9);
    }
    let waiting: f64 = r.threads.iter().map(|t| t.seconds * t.states.waiting).sum();
    assert!((r.blame.iter().map(|b| b.seconds).sum::<f64>() - waiting).abs() < 1e-6);
    let attributed: f64 = r.blame.iter().filter(|b| b.holder.is_some()).map(|b| b.seconds).sum();
    let inflicted: f64 = r.functions.iter().map(|f| f.inflicted_wait * profile.seconds()).sum();
    assert!((attributed - inflicted).abs() < 1e-6);
    let busy = |t: &super::report::Thread| t.seconds * (t.states.holding + t.states.waiting + t.states.native + t.states.starved);
    assert!(r.threads.windows(2).all(|w| busy(&w[0]) >= busy(&w[1])));
}

/// Times, with some that no clock gives.
fn nanos() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..1e7, Just(0.0), Just(f64::NAN), Just(f64::INFINITY), Just(-1e6), Just(1e300), Just(5e-324), Just(1e17)]
}

fn point() -> impl Strategy<Value = u64> {
    prop_oneof![0..10_000_000_000u64, Just(u64::MAX), Just(0)]
}

fn wild() -> impl Strategy<Value = Profile> {
    let slice = (0..5u32, point(), 0..10usize, nanos(), nanos(), 0..4usize, proptest::option::of(0..5u32));
    let sample = (0..3u32, point(), point(), 0..3u8, proptest::option::of(any::<u64>()), any::<u32>());
    let events = proptest::collection::vec((slice, sample), 0..60);
    (events, nanos(), nanos(), any::<u64>(), any::<bool>(), any::<u64>()).prop_map(|(events, cpus, seconds, samples, flag, cpu)| {
        let mut builder = ProfileBuilder::new();
        let stacks: Vec<Arc<Stack>> = (0..4).map(stack).collect();
        for ((thread, end, state, time, other, which, holder), (gil, at, span, held, switches, waiters)) in events {
            let (id, gil) = (ThreadId(thread), GilId(gil));
            builder.thread(&ThreadInfo {
                id,
                tid: Tid(thread as i32),
                name: "t\x1b".into(),
                python: flag,
                main: thread == 0,
                gil: Some(gil),
            });
            let mut times = StateTimes::single(State::ALL[state], time);
            times.add(State::Waiting, other);
            let (end, stack) = (Nanos::from_nanos(end), &stacks[which]);
            let holder = holder.map(|h| (ThreadId(h), &stacks[h as usize % 4]));
            builder.slice(&StateSlice { thread: id, end, times, evidence: Evidence::Conservation, stack, holder });
            let holder = [Holder::Nobody, Holder::Thread(id), Holder::Unmatched][held as usize];
            builder.gil(&GilSample {
                gil,
                at: Nanos::from_nanos(at),
                span: Nanos::from_nanos(span),
                holder,
                switches,
                waiters,
                collecting: None,
            });
            builder.thread_end(id, ThreadTotals { cpu: Nanos::from_nanos(cpu), run_queue: Nanos::ZERO, seen: Nanos::from_nanos(span) });
        }
        let target = TargetInfo { cpus, free_threaded: flag, gil_enabled: !flag, ..TargetInfo::default() };
        builder.finish(
            target,
            CaptureStats {
                seconds,
                counts: SampleCounts { samples, missed: samples / 3, failed: samples / 7, torn: 0 },
                ..CaptureStats::default()
            },
        )
    })
}

fn stack(depth: usize) -> Arc<Stack> {
    let frame =
        |n: usize| Frame { function: Arc::new(Function { name: format!("f{n}"), file: "a.py".into(), first_line: 1 }), line: n as u32 };
    Arc::new(Stack { frames: (0..depth).map(frame).collect(), status: StackStatus::Torn })
}

/// Every number of a report: finite and not below zero.
fn sound(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(n) => n.as_f64().is_some_and(|n| n.is_finite() && n >= 0.0),
        serde_json::Value::Array(all) => all.iter().all(sound),
        serde_json::Value::Object(all) => all.values().all(sound),
        _ => true,
    }
}

/// Whether only fields that may be missing are `null`. Any other `null` is a float that JSON cannot
/// write.
fn nulls(value: &serde_json::Value, key: &str) -> bool {
    const MAY: [&str; 10] = [
        "switches_per_s",
        "hold_ms",
        "wait_ms",
        "holder",
        "resolver",
        "processes",
        "free_threading",
        "release_in_native",
        "gil_saturates_at",
        "switch_interval_us",
    ];
    match value {
        serde_json::Value::Null => MAY.contains(&key),
        serde_json::Value::Array(all) => all.iter().all(|v| nulls(v, key)),
        serde_json::Value::Object(all) => all.iter().all(|(k, v)| nulls(v, k)),
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_number_of_a_report_is_finite(profile in wild()) {
        let r = report(&profile);
        let json = serde_json::to_value(&r).unwrap();
        prop_assert!(sound(&json) && nulls(&json, ""), "{json}");
        for t in &r.threads {
            let s = &t.states;
            prop_assert!((s.holding + s.waiting + s.native + s.starved + s.lock + s.io + s.unknown - 1.0).abs() < 1e-9);
        }
        for text in r.verdict.because.iter().chain(&r.verdict.next_steps).chain([&r.verdict.headline]) {
            prop_assert!(!text.contains("NaN") && !text.contains("inf ") && !text.chars().any(char::is_control), "{text}");
        }
    }

    #[test]
    fn gains_are_ordered_and_bounded_by_cores(
        shares in proptest::collection::vec((0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64, 0.0..1.0f64), 1..8), cores in 1.0..16.0f64,
    ) {
        // Any number of threads, of which one at a time holds.
        let held: f64 = shares.iter().map(|s| s.0).sum::<f64>().max(1.0);
        let threads: Vec<StateTimes> = shares.iter().map(|&(hold, wait, native, io)| {
            let (hold, rest) = (hold / held, (1.0 - hold / held) / (wait + native + io).max(1e-6));
            let mut t = StateTimes::single(State::HoldingPython, hold);
            [(State::Waiting, wait), (State::Native, native), (State::Io, io)].iter().for_each(|&(s, x)| t.add(s, x * rest));
            t
        }).collect();
        let before: f64 = threads.iter().map(|t| t.get(State::HoldingPython) + t.get(State::Native)).sum();
        let e = super::scaling::processes(&threads, &super::scaling::Program::plain(threads.len(), cores)).gain;
        prop_assert!(e.low <= e.estimate && e.estimate <= e.high);
        prop_assert!(e.estimate * before <= cores.max(before) * 1.02 + 1e-6, "{e:?} {before} {cores}");
    }
}
