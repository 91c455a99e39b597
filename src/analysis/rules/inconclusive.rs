//! Too few samples, or too much unknown time, for any verdict; and what to change.

use super::{Code, Diagnosis, RuleInput, RuleResult};
use crate::analysis::phrases::percent;

/// Fewer samples say nothing about shares.
const MIN_SAMPLES: u64 = 100;
/// A shorter window holds too few switch intervals.
const MIN_SECONDS: f64 = 0.2;
/// Share of unknown time of the Python threads above which their waiting is not known.
const MAX_UNKNOWN: f64 = 0.3;
/// A GIL that is held for a smaller share cannot make threads wait much.
const RARELY_HELD: f64 = 0.1;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (window, seconds) = (&e.profile.window, e.profile.seconds());
    let tried = window.samples.saturating_add(window.missed);
    if seconds < MIN_SECONDS || (window.samples < MIN_SAMPLES && !window.exact) {
        let fact = format!("{} samples in {seconds:.2} seconds are too few.", window.samples);
        return inconclusive(
            "Too little was measured for a verdict.",
            fact,
            "Measure for at least two seconds, while the program is under load.",
        );
    }
    if window.failed > window.samples / 2 {
        let fact = format!("gilprof could not read the interpreter in {} of {} samples.", window.failed, window.samples);
        return inconclusive(
            "gilprof could mostly not read the interpreter.",
            fact,
            "See the warnings; the program may be starting or ending.",
        );
    }
    if window.missed > tried / 2 {
        let fact = format!("gilprof missed {} of {tried} samples.", window.missed);
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

/// Share of the Python threads' time that is unknown.
fn unknown(e: &RuleInput<'_>) -> f64 {
    let python = || e.threads.iter().filter(|t| t.python && t.seconds > 0.0);
    let seconds: f64 = python().map(|t| t.seconds).sum();
    let unknown: f64 = python().map(|t| t.seconds * t.states.unknown).sum();
    if seconds > 0.0 {
        unknown / seconds
    } else {
        0.0
    }
}

/// On old Pythons gilprof knows which thread holds the GIL, and not what the others do. A single
/// Python thread cannot wait, and a GIL that is rarely held makes no thread wait.
fn undecided_waiting(e: &RuleInput<'_>) -> bool {
    let several = e.threads.iter().filter(|t| t.python && t.seconds > 0.0).count() > 1;
    several && unknown(e) > MAX_UNKNOWN && e.rates.holding.high > RARELY_HELD
}

#[cfg(test)]
mod tests {
    use crate::analysis::report::Code;
    use crate::analysis::testing::Scene;
    use crate::analysis::{report, report::Report};

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
    fn missed_and_failed_samples_are_inconclusive() {
        assert!(refused(&report(&Scene::new(2.0).with(|_, w| w.missed = 5000).run(2000, TURNS))));
        assert!(refused(&report(&Scene::new(2.0).with(|_, w| w.failed = 1500).run(2000, TURNS))));
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
