//! The program was stopped, too few samples, or too much unknown time, for any verdict; and what to
//! change.

use super::{Code, Diagnosis, RuleInput, RuleResult};
use crate::analysis::phrases::percent;
use crate::profile::Profile;

/// Fewer samples say nothing about shares.
const MIN_SAMPLES: f64 = 100.0;
/// A shorter window holds too few switch intervals.
const MIN_SECONDS: f64 = 0.2;
/// Share of unknown time of the Python threads above which their waiting is not known.
const MAX_UNKNOWN: f64 = 0.3;
/// Share of the window above which a stop is why too little was measured.
const MOSTLY_STOPPED: f64 = 0.5;
/// The share above which it was stopped throughout.
const ALWAYS_STOPPED: f64 = 0.95;
/// A GIL that is held for a smaller share cannot make threads wait much.
const RARELY_HELD: f64 = 0.1;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (window, seconds) = (&e.profile.window, e.profile.running_seconds());
    let samples = window.counts.samples as f64 * seconds / e.profile.seconds().max(1e-9);
    let tried = window.counts.samples.saturating_add(window.counts.missed);
    if seconds < MIN_SECONDS || (samples < MIN_SAMPLES && !window.exact) {
        if let Some(diagnosis) = mostly_stopped(e.profile) {
            return diagnosis;
        }
        let fact = format!("{samples:.0} samples in {seconds:.2} seconds are too few.");
        return inconclusive(
            "Too little was measured for a verdict.",
            fact,
            "Measure for at least two seconds, while the program is under load.",
        );
    }
    if window.counts.failed > window.counts.samples / 2 {
        let fact = format!("gilprof could not read the interpreter in {} of {} samples.", window.counts.failed, window.counts.samples);
        return inconclusive(
            "gilprof could mostly not read the interpreter.",
            fact,
            "See the warnings; the program may be starting or ending.",
        );
    }
    if window.counts.missed > tried / 2 {
        let fact = format!("gilprof missed {} of {tried} samples.", window.counts.missed);
        let step = "Lower the sampling rate, or give gilprof a core of its own: the machine is too busy.";
        return inconclusive("gilprof itself got too little CPU time for a verdict.", fact, step);
    }
    if undecided_waiting(e) {
        let unknown = format!("The state of the Python threads is unknown for {} of their time.", percent(unknown(e)));
        let step = "Run the program on Python 3.7 or newer, where gilprof can see threads wait for the GIL, or give gilprof more permissions; see the warnings.";
        return inconclusive("gilprof cannot see here whether threads wait for the GIL.", unknown, step);
    }
    RuleResult::DoesNotApply
}

/// The verdict when no rule applies.
pub(in crate::analysis) fn undecided(doubts: Vec<String>) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(Code::Inconclusive, "Not clear: the figures vary too much for a verdict.".into());
    diagnosis.because = doubts;
    diagnosis.because.dedup();
    if diagnosis.because.is_empty() {
        diagnosis.because.push("The program does a little of everything; no single cause limits it.".into());
    }
    diagnosis.next_step("Measure for longer, or while the program does only the work that matters, under steady load.")
}

fn inconclusive(headline: &str, fact: String, step: &str) -> RuleResult {
    Diagnosis::new(Code::Inconclusive, headline.into()).without_prediction().because(fact).next_step(step).applies()
}

/// The program stood still for so long that too little is left.
fn mostly_stopped(profile: &Profile) -> Option<RuleResult> {
    let (stopped, seconds) = (profile.stopped_seconds(), profile.seconds());
    let longest =
        profile.window.stops.iter().max_by(|a, b| a.seconds.total_cmp(&b.seconds)).filter(|_| stopped > MOSTLY_STOPPED * seconds)?;
    let headline = if stopped > ALWAYS_STOPPED * seconds {
        "The program was stopped throughout the measurement."
    } else {
        "The program was stopped for most of the measurement."
    };
    let diagnosis = Diagnosis::new(Code::Inconclusive, headline.into())
        .without_prediction()
        .because(format!("It stood still for {stopped:.2} of {seconds:.2} seconds, {}.", longest.cause))
        .next_step(format!("Let the program go on: {}.", longest.cause.remedy(profile.target.pid)))
        .next_step("Then measure again, while the program is under load.");
    Some(diagnosis.applies())
}

/// Share of the Python threads' time that is unknown.
fn unknown(e: &RuleInput<'_>) -> f64 {
    e.unknown_share(true).unwrap_or(0.0)
}

/// On old Pythons gilprof knows which thread holds the GIL, and not what the others do. A single
/// Python thread cannot wait, and a GIL that is rarely held makes no thread wait.
fn undecided_waiting(e: &RuleInput<'_>) -> bool {
    let several = e.threads.iter().filter(|t| t.python && t.seconds > 0.0).count() > 1;
    several && unknown(e) > MAX_UNKNOWN && e.rates.holding.high > RARELY_HELD
}

#[cfg(test)]
mod tests {
    use crate::analysis::report::{Code, Verdict};
    use crate::analysis::testing::Scene;
    use crate::analysis::{report, report::Report};
    use crate::sample::{StopCause, Tracer};

    const TURNS: fn(u64) -> Vec<&'static str> =
        |t| if (t / 5).is_multiple_of(2) { vec!["P burn", "W burn"] } else { vec!["W burn", "P burn"] };

    fn refused(r: &Report) -> bool {
        r.verdict.code == Code::Inconclusive && r.verdict.speedup.processes.is_none()
    }

    #[test]
    fn short_windows_are_refused_and_long_ones_not() {
        assert!(refused(&report(&Scene::new(2.0).run(90, TURNS))));
        assert!(refused(&report(&Scene::new(2.0).run(0, TURNS))));
        assert_eq!(report(&Scene::new(2.0).run(2000, TURNS)).verdict.code, Code::SwitchToProcesses);
    }

    #[test]
    fn a_stopped_program_is_refused_and_the_rest_of_a_window_is_judged_as_if_alone() {
        let frozen = || StopCause::Cgroup { directory: "/cg/x".into(), thaw: "echo 0 > /cg/x/cgroup.freeze".into() };
        let gdb = || StopCause::Tracer(Some(Tracer { pid: 7, name: "gdb".into() }));
        for (cause, reason, step) in [
            (StopCause::Signal, "by a signal", "kill -CONT"),
            (gdb(), "gdb (pid 7)", "end gdb"),
            (frozen(), "its cgroup /cg/x", "echo 0 > /cg/x/cgroup.freeze"),
        ] {
            let r = report(&Scene::new(2.0).stopped(cause, 2.0).run(2000, |_| vec!["T burn", "T burn"]));
            let v = &r.verdict;
            assert!(refused(&r) && v.headline.contains("stopped throughout"), "{v:?}");
            assert!(v.because[0].contains(reason) && v.next_steps[0].contains(step), "{v:?}");
            assert_eq!(v.next_steps[0].contains("CONT"), step.contains("CONT"));
        }
        let (alone, part) = (Scene::new(2.0).run(4000, TURNS), Scene::new(2.0).stopped(frozen(), 2.0));
        let part = part.run(6000, |t| if (2000..4000).contains(&t) { vec!["T burn", "T burn"] } else { TURNS(t) });
        let (alone, part) = (report(&alone).verdict, report(&part).verdict);
        assert_eq!((part.code, part.confidence), (alone.code, alone.confidence), "{part:?}");
        let gain = |v: &Verdict| v.speedup.processes.unwrap();
        assert!((gain(&part).estimate - gain(&alone).estimate).abs() < 0.01, "{part:?}");
        assert!((gain(&part).low - gain(&alone).low).abs() < 0.1, "{part:?}");
    }

    #[test]
    fn missed_and_failed_samples_are_inconclusive() {
        assert!(refused(&report(&Scene::new(2.0).with(|_, w| w.counts.missed = 5000).run(2000, TURNS))));
        assert!(refused(&report(&Scene::new(2.0).with(|_, w| w.counts.failed = 1500).run(2000, TURNS))));
    }

    #[test]
    fn unknown_waiting_is_refused_unless_no_thread_can_wait() {
        let old = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P burn", "U burn"] } else { vec!["U burn", "P burn"] };
        assert!(refused(&report(&Scene::new(2.0).run(2000, old))));
        assert_eq!(report(&Scene::new(2.0).run(2000, |_| vec!["P burn"])).verdict.code, Code::Serial);
        let rarely = |t: u64| if t.is_multiple_of(50) { vec!["P serve", "U serve"] } else { vec!["U serve", "U serve"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, rarely)).verdict.code, Code::KeepThreads);
    }
}
