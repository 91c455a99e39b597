//! Too little was seen, or too much of it could not be told, to judge anything; and what to change.

use super::{Code, Diagnosis, RuleInput, RuleResult};
use crate::analysis::phrases::percent;

/// Fewer looks than this say nothing about shares.
const MIN_SAMPLES: u64 = 100;
/// A shorter window holds too few switch intervals.
const MIN_SECONDS: f64 = 0.2;
/// Python threads' time that could not be told, beyond which waiting cannot be judged.
const MAX_UNKNOWN: f64 = 0.3;
/// Below this a GIL is so rarely held that nobody can wait much, known or not.
const RARELY_HELD: f64 = 0.1;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (window, seconds) = (&e.profile.window, e.profile.seconds());
    let tried = window.samples.saturating_add(window.missed);
    if seconds < MIN_SECONDS || (window.samples < MIN_SAMPLES && !window.exact) {
        let seen = format!("{} looks in {seconds:.2} seconds are too few.", window.samples);
        return inconclusive("Too little was seen to judge.", seen, "Measure for at least two seconds, while the program is under load.");
    }
    if window.failed > window.samples / 2 {
        let seen = format!("The interpreter could not be read in {} of {} looks.", window.failed, window.samples);
        return inconclusive("The interpreter could mostly not be read.", seen, "See the warnings; the program may be starting or ending.");
    }
    if window.missed > tried / 2 {
        let seen = format!("{} of {tried} looks came too late.", window.missed);
        let step = "Lower the rate, or give gilprof a core of its own: the machine is too busy to be watched.";
        return inconclusive("gilprof itself got too little CPU time to judge.", seen, step);
    }
    if undecided_waiting(e) {
        let unknown = format!("{} of the Python threads' time could not be told apart.", percent(unknown(e)));
        let step = "Run the program on Python 3.7 or newer, where waiting for the GIL can be seen, or let gilprof read it with more rights; see the warnings.";
        return inconclusive("Whether threads wait for the GIL cannot be seen here.", unknown, step);
    }
    RuleResult::DoesNotApply
}

/// The verdict when no rule says yes.
pub(in crate::analysis) fn undecided(doubts: Vec<String>) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(Code::Inconclusive, "Not clear: the figures vary too much to say.".into());
    diagnosis.because = doubts;
    diagnosis.because.dedup();
    if diagnosis.because.is_empty() {
        diagnosis.because.push("The program does a little of everything: no one thing limits it.".into());
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

/// Old Pythons: who holds is known, what the others do is not. One Python thread alone cannot wait, nor can many for a GIL rarely held.
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
    fn a_starved_or_blind_profiler_is_told() {
        assert!(refused(&report(&Scene::new(2.0).with(|_, w| w.missed = 5000).run(2000, TURNS))));
        assert!(refused(&report(&Scene::new(2.0).with(|_, w| w.failed = 1500).run(2000, TURNS))));
    }

    #[test]
    fn unknown_waiting_is_refused_unless_the_holder_settles_it() {
        let old = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P burn", "U burn"] } else { vec!["U burn", "P burn"] };
        assert!(refused(&report(&Scene::new(2.0).run(2000, old))));
        assert_eq!(report(&Scene::new(2.0).run(2000, |_| vec!["P burn"])).verdict.code, Code::Serial);
        let rarely = |t: u64| if t.is_multiple_of(50) { vec!["P serve", "U serve"] } else { vec!["U serve", "U serve"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, rarely)).verdict.code, Code::KeepThreads);
    }
}
