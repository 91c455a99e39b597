//! What must hold of the estimate of any simulated machine, and that each rule is needed for it.

use super::super::{EventEstimator, EventRule, EventRules, InputFaults};
use super::machine::{Plan, Setup, Truth};
use super::program::{Mix, Nano};
use super::replay::{outcome, outcome_of, Delivery, Estimate, Outcome};
use crate::sample::State;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::cell::RefCell;

const MS: Nano = 1_000_000;
const KNOWN: Delivery = Delivery { jitter: 0, lost: 0.0, thread_states: true, twice: false, replaced: false, after: (0, 0) };

fn setup(seed: u64, cpus: usize, mixes: &[Mix]) -> Setup {
    let plans = mixes.iter().map(|mix| Plan { mix: *mix, gil: 0, starts: 0 }).collect();
    Setup { seed, cpus, plans, length: 2_000 * MS, tick: MS, wakeup_preempts: 0.5 }
}

/// Machines of the kinds that a rule decides.
fn machines() -> Vec<(&'static str, Setup)> {
    let kinds: [(&str, &[Mix]); 6] = [
        ("busy", &[Mix::BUSY; 3]),
        ("all", &[Mix::ALL; 4]),
        ("server", &[Mix::SERVER; 4]),
        ("hashing", &[Mix::HASHING; 3]),
        ("hashing beside busy", &[Mix::BUSY, Mix::HASHING, Mix::HASHING]),
        ("mixed", &[Mix::BUSY, Mix::SERVER, Mix::HASHING, Mix::ALL, Mix::FOREIGN]),
    ];
    let of_kind = |(name, mixes)| (1..=3).flat_map(move |cpus| (1..=2).map(move |seed| (name, setup(seed, cpus, mixes))));
    kinds.into_iter().flat_map(of_kind).collect()
}

/// The CPU time that a thread spends in `take_gil` and `drop_gil` for each call, which no event
/// tells.
const CALL: f64 = 4_000.0;

fn off(truth: &Truth, estimate: &Estimate, states: &[State]) -> f64 {
    states.iter().map(|state| estimate.times.get(*state) - truth.times.get(*state)).sum()
}

/// The first thing that is wrong with the estimate of one thread; `None` if nothing is.
fn complaint(truth: &Truth, estimate: &Estimate, Outcome { setup, delivery, .. }: &Outcome) -> Option<String> {
    let tick = setup.tick;
    let life = (truth.life.1 - truth.life.0) as f64;
    let (calls, waiting) = (truth.calls as f64 * CALL, truth.times.get(State::Waiting));
    let exact = [
        ("life", estimate.times.total(), life),
        ("begin", estimate.slices.0 as f64, truth.life.0 as f64),
        ("end", estimate.slices.1 as f64, truth.life.1 as f64),
        ("seen", estimate.totals.seen.as_nanos() as f64, life),
        ("cpu", estimate.totals.cpu.as_nanos() as f64, truth.cpu as f64),
        ("run queue", estimate.totals.run_queue.as_nanos() as f64, truth.queued as f64),
    ];
    // A run whose end is delivered after the window's last drain is not known to be on a CPU.
    let late = delivery.jitter as f64;
    if let Some((name, is, should)) = exact.into_iter().find(|(_, is, should)| (is - should).abs() > 1.0 + late) {
        return Some(format!("{name} {is} instead of {should}"));
    }
    // Each is the sum of the ticks' errors; five standard deviations, and a tick at either end.
    let by_ticks = 2.5 * (truth.cpu as f64 * tick as f64).sqrt() + 2.0 * tick as f64;
    // A preemption in the few instructions between a release and what follows: one may be
    // undecidable, for as long as the thread then has no CPU.
    let undecided = (4 * MS * (setup.plans.len() as Nano - 1) / setup.cpus as Nano) as f64;
    let waiting_bound = if setup.length >= 2_000 * MS { 0.005 * life } else { (0.005 * life).max(undecided) } + calls;
    let bounds: [(&[State], f64); 9] = [
        (&[State::Io], 0.0),
        (&[State::Lock], 0.0),
        (&[State::Unknown], 0.0),
        (&[State::HoldingBlocked], 0.0),
        (&[State::HoldingStarved], 0.0),
        (&[State::Waiting], waiting_bound),
        (&[State::Starved], waiting_bound),
        (&[State::HoldingPython, State::HoldingNative, State::Native, State::Waiting, State::Starved], 0.0),
        (&[State::HoldingPython, State::HoldingNative], by_ticks + calls),
    ];
    for (states, bound) in bounds {
        let off = off(truth, estimate, states);
        if off.abs() > bound + 10.0 + late {
            return Some(format!("{states:?} off by {off:.0} ns, {:.5} of its life; bound {bound:.0}", off / life));
        }
    }
    // At such a preemption, two waits may be one.
    let off = estimate.waits.abs_diff(truth.waits);
    if off > 2 + truth.waits / 200 {
        return Some(format!("{} waits instead of {}", estimate.waits, truth.waits));
    }
    let (measured, blamed) = (estimate.times.get(State::Waiting), estimate.blame.values().sum::<f64>());
    if (measured - estimate.interval_nanos).abs() > 0.02 * measured + calls {
        return Some(format!("intervals of {} ns, but waiting {measured}", estimate.interval_nanos));
    }
    (blamed > measured + 1.0 || delivery.thread_states && blamed < 0.99 * measured - calls - late)
        .then(|| format!("blame {blamed} of waiting {waiting}"))
}

fn complaints(outcome: &Outcome) -> Vec<String> {
    let threads = outcome.truth.iter().zip(&outcome.estimates).enumerate();
    let started = threads.filter(|(_, (truth, _))| truth.life.1 > 0);
    started.filter_map(|(n, (truth, estimate))| Some(format!("thread {n}: {}", complaint(truth, estimate, outcome)?))).collect()
}

#[test]
fn all_kinds_of_machines_are_estimated_right() {
    let (mut worst, mut waits, mut wrong) = ([0.0f64; 3], 0, 0);
    for (name, setup) in machines() {
        let outcome = outcome(&setup, EventRules::default(), KNOWN);
        assert_eq!(outcome.faults, InputFaults::default());
        let complaints = complaints(&outcome);
        assert!(complaints.is_empty(), "{name} on {} CPUs, seed {}: {complaints:#?}", setup.cpus, setup.seed);
        for (truth, estimate) in outcome.truth.iter().zip(&outcome.estimates) {
            let kinds: [&[State]; 3] = [&[State::Waiting], &[State::Starved], &[State::HoldingPython, State::HoldingNative]];
            for (worst, states) in worst.iter_mut().zip(kinds) {
                *worst = worst.max(off(truth, estimate, states).abs() / setup.length as f64);
            }
            waits += truth.waits;
            wrong += truth.waits.abs_diff(estimate.waits);
        }
    }
    println!("worst of waiting, starved, holding: {worst:.5?}; {waits} waits, {wrong} more or less");
    assert!(wrong * 500 <= waits, "{wrong} of {waits}");
}

#[test]
fn a_wrong_rule_is_caught() {
    let wrong = |rules| machines().iter().map(|(_, setup)| complaints(&outcome(setup, rules, KNOWN)).len()).sum::<usize>();
    for rule in EventRule::ALL.into_iter().filter(|rule| *rule != EventRule::Strata) {
        let wrong = wrong(EventRules::default().without(rule));
        println!("without {rule:?}: {wrong} threads are wrong");
        assert!(wrong > 0, "nothing notices that {rule:?} is left out");
    }
}

/// The root mean square of the errors of holding, as a share of the threads' lives.
fn error_of_holding(rules: EventRules) -> f64 {
    let squares = machines().into_iter().flat_map(|(_, setup)| {
        let outcome = outcome(&setup, rules, KNOWN);
        let of_thread =
            |(truth, estimate)| (off(truth, estimate, &[State::HoldingPython, State::HoldingNative]) / setup.length as f64).powi(2);
        outcome.truth.iter().zip(&outcome.estimates).map(of_thread).collect::<Vec<f64>>()
    });
    let squares: Vec<f64> = squares.collect();
    (squares.iter().sum::<f64>() / squares.len() as f64).sqrt()
}

#[test]
fn strata_make_holding_more_exact() {
    let (with, without) = (error_of_holding(EventRules::default()), error_of_holding(EventRules::default().without(EventRule::Strata)));
    println!("error of holding, root mean square: {with:.5} with strata, {without:.5} without");
    assert!(with < 0.96 * without, "{with} {without}");
}

#[test]
fn lost_runs_become_unknown_time_and_nothing_else_is_invented() {
    for (name, setup) in machines() {
        let outcome = outcome(&setup, EventRules::default(), Delivery { lost: 0.02, ..KNOWN });
        let (lost, threads) = (outcome.lost, outcome.truth.len() as u64);
        assert!(
            outcome.faults.lost_runs <= lost && outcome.faults.lost_runs + 3 * threads >= lost,
            "{name}: {:?} of {lost}",
            outcome.faults
        );
        for (truth, estimate) in outcome.truth.iter().zip(&outcome.estimates) {
            let life = (truth.life.1 - truth.life.0) as f64;
            assert!((estimate.times.total() - life).abs() < 1.0);
            for state in [State::Io, State::Lock, State::HoldingBlocked, State::Waiting, State::Starved] {
                let invented = off(truth, estimate, &[state]) / life;
                assert!(invented < 0.015, "{name} on {} CPUs: {state:?} {invented}", setup.cpus);
            }
            let missing = State::ALL.into_iter().map(|s| off(truth, estimate, &[s])).filter(|off| *off < 0.0).sum::<f64>();
            assert!(missing.abs() <= estimate.times.get(State::Unknown) + 0.04 * life, "{name}: {missing}");
        }
    }
}

#[test]
fn a_run_delivered_twice_counts_once() {
    for (name, setup) in machines().into_iter().step_by(5) {
        let (once, twice) =
            (outcome(&setup, EventRules::default(), KNOWN), outcome(&setup, EventRules::default(), Delivery { twice: true, ..KNOWN }));
        assert!(twice.faults.repeated_runs > 0 && once.faults.repeated_runs == 0);
        for (once, twice) in once.estimates.iter().zip(&twice.estimates) {
            assert_eq!(once.times, twice.times, "{name}");
        }
    }
}

#[test]
fn the_next_program_of_a_process_begins_anew() {
    let mut estimator = EventEstimator::default();
    let (first, second) = (setup(3, 2, &[Mix::ALL; 4]), setup(4, 2, &[Mix::HASHING, Mix::BUSY, Mix::BUSY]));
    let before = outcome_of(&mut estimator, &first, Delivery { replaced: true, ..KNOWN });
    // The same addresses of thread states belong to other threads now.
    let after = outcome_of(&mut estimator, &second, Delivery { after: (first.length, 4), ..KNOWN });
    let mut after = after;
    for truth in &mut after.truth {
        truth.life = (truth.life.0 + first.length, truth.life.1 + first.length);
    }
    assert_eq!((complaints(&before), complaints(&after)), (Vec::new(), Vec::new()));
}

#[test]
fn blame_goes_to_the_thread_that_held_the_gil() {
    for cpus in 1..=3 {
        let outcome = outcome(&setup(5, cpus, &[Mix::BUSY, Mix::SERVER, Mix::ALL, Mix::HASHING]), EventRules::default(), KNOWN);
        for (waiter, (truth, estimate)) in outcome.truth.iter().zip(&outcome.estimates).enumerate() {
            // While the GIL is free, the last holder is to blame.
            let free = (truth.times.get(State::Waiting) - truth.blame.iter().sum::<f64>()) / outcome.setup.length as f64;
            for (holder, nanos) in truth.blame.iter().enumerate() {
                let blamed = estimate.blame.get(&(holder as u32)).copied().unwrap_or(0.0);
                let off = (blamed - nanos) / outcome.setup.length as f64;
                assert!(off > -0.03 && off < 0.03 + free, "on {cpus} CPUs {waiter} waits for {holder}: off by {off}");
            }
        }
    }
}

/// Any machine: threads that begin and end anywhere, two GILs, records out of order.
fn any_machine() -> impl Strategy<Value = (Setup, Delivery)> {
    let mixes = [Mix::BUSY, Mix::ALL, Mix::SERVER, Mix::HASHING, Mix::FOREIGN];
    let plan = (0..mixes.len(), 0..2usize, prop_oneof![Just(0), 0..400u64], prop_oneof![Just(0.0), Just(0.01)]);
    let plans = proptest::collection::vec(plan, 1..7);
    let machine = (any::<u32>(), 1..4usize, plans, prop_oneof![Just(100u64), Just(1_000)], 0.0..1.0f64);
    (machine, prop_oneof![Just(0u64), Just(50_000)], any::<bool>()).prop_map(
        move |((seed, cpus, plans, tick, wakeup_preempts), jitter, thread_states)| {
            let plan =
                |(mix, gil, starts, exit): (usize, usize, Nano, f64)| Plan { mix: Mix { exit, ..mixes[mix] }, gil, starts: starts * MS };
            let plans = plans.into_iter().map(plan).collect();
            let setup = Setup { seed: u64::from(seed), cpus, plans, length: 1_000 * MS, tick: tick * 1_000, wakeup_preempts };
            (setup, Delivery { jitter, thread_states, ..KNOWN })
        },
    )
}

#[test]
fn any_machine_is_estimated_right() {
    // The same machines in every run: the bounds are statistical.
    let mut runner = TestRunner::new_with_rng(
        Config { failure_persistence: None, max_shrink_iters: 0, ..Config::with_cases(300) },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let errors = RefCell::new(Vec::new());
    let result = runner.run(&any_machine(), |(setup, delivery)| {
        let outcome = outcome(&setup, EventRules::default(), delivery);
        let threads = outcome.truth.iter().zip(&outcome.estimates).filter(|(truth, _)| truth.life.1 > 0);
        let of_waiting =
            |(truth, estimate): (&Truth, _)| off(truth, estimate, &[State::Waiting]).abs() / (truth.life.1 - truth.life.0) as f64;
        errors.borrow_mut().extend(threads.map(of_waiting));
        let complaints = complaints(&outcome);
        if complaints.is_empty() {
            Ok(())
        } else {
            Err(TestCaseError::fail(complaints.join("; ")))
        }
    });
    result.unwrap();
    let errors = errors.into_inner();
    let (mean, over) = (errors.iter().sum::<f64>() / errors.len() as f64, errors.iter().filter(|error| **error > 0.005).count());
    println!("waiting of {} threads: mean error {mean:.5}, over .005 in {over}", errors.len());
    assert!(mean < 0.001, "{mean}");
}
