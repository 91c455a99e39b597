//! The work runs without the GIL (NumPy, zlib, hashlib …): threads scale until the cores are used
//! up or the GIL saturates.

use super::{foreign_threads, gil_limits, known_library, lock_bound, position, Code, Diagnosis, Position, RuleInput, RuleResult, Step};
use crate::analysis::phrases::{gain, number, percent, such_threads};

/// Share of the work that runs without the GIL.
const OUTSIDE: f64 = 0.5;
/// Cores used without the GIL below which the work is negligible.
const NATIVE: f64 = 0.2;
/// Share of the cores in use from which they are full.
const FULL: f64 = 0.9;
/// The same while threads lack a core for `LACKING` of the time in which they could run.
const NEARLY_FULL: f64 = 0.75;
const LACKING: f64 = 0.2;
/// Average number of threads that wait for a lock of a C library, from which it may cost much.
const SHARED_LOCK: f64 = 0.02;
/// Cores that threads use which a library started, from which what it does in each process matters.
const LIBRARYS_CORES: f64 = 0.1;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let rates = &e.rates;
    if rates.native.low < NATIVE || gil_limits(e) != Position::Below {
        return RuleResult::DoesNotApply;
    }
    match position(&rates.off_gil_share, OUTSIDE) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Between {} and {} of the work runs without the GIL.",
            percent(rates.off_gil_share.low),
            percent(rates.off_gil_share.high)
        )),
        Position::Above => parallel(e).applies(),
    }
}

fn parallel(e: &RuleInput<'_>) -> Diagnosis {
    let rates = &e.rates;
    let diagnosis = Diagnosis::new(Code::AlreadyParallel, headline(e)).because(format!(
        "{} of the work runs without the GIL; the program uses {} of {} cores.",
        percent(rates.off_gil_share.estimate),
        number(rates.on_cpu.estimate),
        number(e.cores())
    ));
    match shared_by_threads(e) {
        Some((what, steps)) => diagnosis
            .without_prediction()
            .because(format!(
                "Waiting for the GIL costs the threads little, but {what}: each process would have its own. What processes would gain is therefore not predicted."
            ))
            .next_steps(steps),
        None => diagnosis
            .because(format!("Waiting for the GIL costs the threads little: processes would be {}.", gain(&e.gains.processes)))
            .next_step(limit(e)),
    }
}

/// What the prediction cannot know: what C code shares between the threads of a process ends with
/// the process, and contention for it costs more time on a core than asleep. `docs/verdicts.md` has
/// measured gains of such programs.
fn shared_by_threads(e: &RuleInput<'_>) -> Option<(String, Vec<Step>)> {
    let step = |text: &str| Step { text: text.into(), sketch: Vec::new() };
    let measure = step("Measure the same work in two processes: that shows what they would gain.");
    if let Some((library, advice)) = known_library::contended(e) {
        return Some((format!("{library} has counters and locks that the threads of a process share"), vec![step(&advice), measure]));
    }
    if let Some((rate, lock)) = e.lock_waits.in_library.as_ref().filter(|(rate, _)| *rate >= SHARED_LOCK) {
        let at = format!("{} at line {}", e.place(&lock.place), lock.line);
        let what = format!("there is a lock inside the C code called in {at}, for which {rate:.2} threads wait on average");
        return Some((what, vec![measure, step(lock_bound::BLAS)]));
    }
    (foreign_threads::cores_of_native(e) >= LIBRARYS_CORES)
        .then(|| ("part of the work is done by threads that Python did not start".into(), vec![measure, step(lock_bound::BLAS)]))
}

fn headline(e: &RuleInput<'_>) -> String {
    let full = if cores_are_full(e) { ", and the cores are full" } else { "" };
    let library = known_library::contended(e).map_or(String::new(), |(library, _)| format!(", in {library}"));
    format!("Already parallel: most of the work runs without the GIL{library}{full}.")
}

/// Whether the program's own threads use all cores, or as many as other programs leave it while
/// its threads lack more.
fn cores_are_full(e: &RuleInput<'_>) -> bool {
    let used = e.rates.on_cpu.estimate;
    used >= FULL * e.cores() || used >= NEARLY_FULL * e.cores() && e.rates.starvation.low >= LACKING
}

/// The limit that more threads would reach next.
fn limit(e: &RuleInput<'_>) -> String {
    let (cores, saturation) = (e.cores(), e.saturation.estimate);
    if cores_are_full(e) {
        return "All cores are in use: more threads would not help, more cores would.".into();
    }
    if saturation > 0.0 && saturation < cores {
        return format!(
            "More threads help until the GIL saturates at about {}, before the {} cores are used up.",
            such_threads(saturation),
            number(cores)
        );
    }
    format!("More threads help until the {} cores are used up.", number(cores))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn released_work_is_parallel_and_the_next_limit_named() {
        let hash = |t: u64| if t.is_multiple_of(50) { vec!["P hash", "N hash"] } else { vec!["N hash", "N hash"] };
        let r = report(&Scene::new(2.0).run(2000, hash));
        assert_eq!(r.verdict.code, Code::AlreadyParallel);
        assert!(r.verdict.next_steps[0].starts_with("All cores"));
        assert!((r.verdict.speedup.processes.unwrap().estimate - 1.0).abs() < 0.05);
        let r = report(&Scene::new(8.0).run(2000, hash));
        assert!(r.verdict.next_steps[0].contains("8 cores are used up"), "{:?}", r.verdict.next_steps);
    }

    #[test]
    fn where_threads_delay_each_other_in_c_code_no_gain_is_predicted() {
        let of = |call: &'static str| report(&Scene::new(2.0).run(2000, move |_| vec![call, call])).verdict;
        let tls = of("N create_default_context@/usr/lib/python3.13/ssl.py");
        assert_eq!((tls.code, tls.speedup.processes.is_none()), (Code::AlreadyParallel, true));
        assert!(tls.because[1].contains("OpenSSL has counters and locks that the threads of a process share"), "{:?}", tls.because);
        // A lock that shows beside it is the library's too.
        const CONTEXT: &str = "create_default_context@/usr/lib/python3.13/ssl.py";
        let [runs, locked] = ["N", "L"].map(|state| -> &'static str { Box::leak(format!("{state} {CONTEXT}").into_boxed_str()) });
        let turns = |t: u64| if t.is_multiple_of(10) { vec![runs, locked] } else { vec![runs, runs] };
        let v = report(&Scene::new(2.0).run(2000, turns)).verdict;
        assert!(v.next_steps[0].contains("share one"), "{:?}", v.next_steps);
        assert!(of("N compress@/usr/lib/python3.13/gzip.py").speedup.processes.is_some());
    }

    #[test]
    fn the_same_work_without_release_is_not() {
        let kept = |t: u64| if (t / 5).is_multiple_of(2) { vec!["C hash", "W hash"] } else { vec!["W hash", "C hash"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, kept)).verdict.code, Code::ReleaseTheGil);
    }

    #[test]
    fn half_of_the_time_in_phases_is_not_enough() {
        let phased = |t: u64| vec![if t < 1000 { "N hash" } else { "P sum" }];
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(2000, phased)));
    }
}
