//! Threads wait for a GIL whose holders are on the CPU, in Python code: only processes, or a Python
//! without a GIL, let the threads run at the same time.

use super::{pool, severity, too_wide, worth_it, Code, Diagnosis, Position, RuleInput, RuleResult, IN_PROCESSES, WORTH_IT};
use crate::analysis::phrases::{gain, on_cores, such_threads};

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (holder_mix, gains) = (&e.holder_mix, &e.gains.processes);
    // Where holders are mostly in C calls or asleep, the rules before this one have the better
    // advice. Waiting without a known holder counts as Python.
    if holder_mix.in_c_calls() || holder_mix.is_asleep() {
        return fallback(e);
    }
    match worth_it(gains) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => too_wide(IN_PROCESSES, gains),
        Position::Above => switch(e).applies(),
    }
}

/// Holders are mostly inside C calls, but releasing the GIL there gains too little.
fn fallback(e: &RuleInput<'_>) -> RuleResult {
    let released = worth_it(&e.gains.release_in_native) == Position::Above;
    if !released && e.holder_mix.native > e.holder_mix.blocked && worth_it(&e.gains.processes) == Position::Above {
        return switch(e).applies();
    }
    RuleResult::DoesNotApply
}

fn switch(e: &RuleInput<'_>) -> Diagnosis {
    let gains = &e.gains.processes;
    let diagnosis = Diagnosis::new(Code::SwitchToProcesses, format!("Switch to processes: about {} {}.", gain(gains), on_cores(e.cores())))
        .rests_on_gain()
        .with_severity(severity(gains))
        .sketch(&pool(e).each_ref().map(String::as_str))
        .because(e.waiting_summary())
        .because(e.contention_summary())
        .because(saturating(e.saturation.estimate))
        .next_step(format!("Run {} in a concurrent.futures.ProcessPoolExecutor or a multiprocessing.Pool; the gain does not count the cost of moving data between processes.", e.culprit()));
    if e.gains.free_threading.low >= WORTH_IT {
        return diagnosis.next_step(format!(
            "A free-threaded Python would be about {} without copying data, if every extension module supports it.",
            gain(&e.gains.free_threading)
        ));
    }
    diagnosis
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
        assert_eq!(v.sketch[2], "    results = list(pool.map(burn, items, chunksize=16))");
        assert!((v.gil_saturates_at.unwrap() - 1.0).abs() < 1e-6);
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
