//! Threads wait for a GIL whose holders are on the CPU, in Python code: only processes, or a Python
//! without a GIL, let the threads run at the same time.

use super::{
    advice, gc, gil_limits, severity, too_wide, waits_outside, worth_it, Code, Diagnosis, Position, RuleInput, RuleResult, LIMIT_OUTSIDE,
    WORTH_IT,
};
use crate::analysis::phrases::{cores, gain, number, on_cores, percent, such_threads};

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (holder_mix, gains) = (&e.holder_mix, &e.gains.processes);
    // Where holders are mostly in C calls or asleep, the rules before this one have the better
    // advice. Waiting without a known holder counts as Python.
    if holder_mix.in_c_calls() || holder_mix.is_asleep() {
        return fallback(e);
    }
    match gil_limits(e) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => too_wide(gains),
        Position::Above => switch(e).applies(),
    }
}

/// Holders are mostly inside C calls, but releasing the GIL there gains too little.
fn fallback(e: &RuleInput<'_>) -> RuleResult {
    let released = worth_it(&e.gains.release_in_native) == Position::Above;
    if !released && e.holder_mix.native > e.holder_mix.blocked && gil_limits(e) == Position::Above {
        return switch(e).applies();
    }
    RuleResult::DoesNotApply
}

fn switch(e: &RuleInput<'_>) -> Diagnosis {
    let gains = &e.gains.processes;
    let mut diagnosis = Diagnosis::new(Code::SwitchToProcesses, headline(e))
        .rests_on_gain()
        .with_severity(severity(gains))
        .because(e.waiting_summary())
        .because(e.contention_summary())
        .because(saturating(e.saturation.estimate));
    if e.holder_mix.is_collecting() {
        let share = percent(e.holder_mix.collecting);
        diagnosis = diagnosis
            .because(format!("In {share} of the waiting, a garbage collection runs{}.", gc::started(e)))
            .next_step_with_sketch(gc::REMEDY, gc::sketch());
    }
    diagnosis = diagnosis.next_steps(advice::processes(e));
    diagnosis.because.extend(limit_of_cores(e));
    diagnosis.because.extend(switching(e));
    diagnosis.because.extend(waits_outside(e).then(|| LIMIT_OUTSIDE.to_owned()));
    if e.gains.free_threading.low >= WORTH_IT {
        return diagnosis.next_step(format!(
            "A free-threaded Python would be about {} without copying data, if every extension module supports it.",
            gain(&e.gains.free_threading)
        ));
    }
    diagnosis
}

/// A gain above the number of cores by less than this factor is rounding.
const ABOVE: f64 = 1.1;

/// What the cores have to do with the gain, where the reader would wonder.
fn limit_of_cores(e: &RuleInput<'_>) -> Option<String> {
    let (used, gain) = (e.rates.on_cpu.estimate, e.gains.processes.estimate);
    if let Some(others) = e.others_cores() {
        let others_are = if e.in_service { "Other processes" } else { "Other programs" };
        return Some(format!(
            "{others_are} use about {} of the {}; the gain assumes that they continue to.",
            number(others),
            cores(e.cores())
        ));
    }
    (gain > ABOVE * e.cores())
        .then(|| format!("More than {} times as fast is possible because the program uses only {} now.", number(e.cores()), cores(used)))
}

/// Share of the CPU time that goes into switches of the GIL, from which they are named.
const SWITCHING: f64 = 0.1;

fn switching(e: &RuleInput<'_>) -> Option<String> {
    let (share, rate) = (e.switching(), e.gil.switches_per_s?);
    (share >= SWITCHING).then(|| {
        format!(
            "At {rate:.0} switches a second, the switches themselves take perhaps {} of the CPU time: larger units of work between them gain something too, also in threads.",
            percent(share)
        )
    })
}

/// A gain that is worth it for certain is promised; another one is named beside what is certain.
fn headline(e: &RuleInput<'_>) -> String {
    let (gains, on) = (&e.gains.processes, on_cores(e.cores()));
    if worth_it(gains) == Position::Above {
        format!("Switch to processes: about {} {on}.", gain(gains))
    } else {
        format!("The GIL limits this program: processes would do {:.1} to {:.1} times as much work {on}.", gains.low, gains.high)
    }
}

fn saturating(n: f64) -> String {
    if n < 1.05 {
        "The GIL saturates (is never free) with one of these threads.".into()
    } else {
        format!("The GIL saturates (is never free) at about {}.", such_threads(n))
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Confidence};
    use crate::analysis::testing::{is_undetermined, Scene};

    /// Three threads take turns; the main thread is in join.
    const TURNS: fn(u64) -> Vec<&'static str> = |t| {
        let mut all = vec!["L join@threading.py", "W burn", "W burn", "W burn"];
        all[1 + (t / 5 % 3) as usize] = "P burn";
        all
    };

    #[test]
    fn the_whole_verdict_reads_well() {
        let v = report(&Scene::new(2.0).run(5000, TURNS)).verdict;
        assert_eq!((v.code, v.confidence), (Code::SwitchToProcesses, Confidence::High));
        assert_eq!(v.headline, "Switch to processes: about 2.0x faster (1.9 - 2.5) on these 2 cores.");
        assert_eq!(
            v.because[0],
            "3 threads wait for the GIL 67 % of their time, 100 % of that while burn (app.py:12) holds it; burn runs Python code."
        );
        assert_eq!(
            v.because[1],
            "Some thread holds the GIL 100 % of the time, and at least one thread waits for it 100 % of the time; it switches between threads 200 times a second."
        );
        assert!(v.next_steps[0].starts_with("Run burn (app.py:12) in a concurrent.futures.ProcessPoolExecutor"));
        assert_eq!(v.sketch[2], "    results = list(pool.map(burn, items))");
        assert!((v.gil_saturates_at.unwrap() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn very_many_switches_widen_the_gain_and_are_named() {
        let v = report(&Scene::new(2.0).switching(60).run(3000, TURNS)).verdict;
        assert!(v.because.iter().any(|fact| fact.starts_with("At 60000 switches a second")), "{:?}", v.because);
        let gain = v.speedup.processes.unwrap();
        assert!(gain.high > 3.0 && v.confidence == Confidence::Low, "{gain:?} {:?}", v.confidence);
        assert!(!report(&Scene::new(2.0).run(3000, TURNS)).verdict.because.iter().any(|fact| fact.starts_with("At ")));
    }

    #[test]
    fn the_same_threads_taking_turns_by_sleeping_do_not_switch() {
        let polite = |t: u64| TURNS(t).into_iter().map(|w| if w == "W burn" { "I rest" } else { w }).collect();
        assert_ne!(report(&Scene::new(2.0).run(5000, polite)).verdict.code, Code::SwitchToProcesses);
    }

    #[test]
    fn contention_in_a_part_of_the_window_is_not_enough() {
        let phased = |t: u64| if t < 375 { vec!["P burn", "W burn"] } else { vec!["I rest", "P burn"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(1500, phased)));
    }
}
