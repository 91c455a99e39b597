//! A free-threaded build: threads do not wait for a GIL that is off. If the GIL is on, an import or
//! an option switched it on.

use super::{Code, Diagnosis, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::{number, percent};

/// Share of the time from which garbage collections are mentioned.
const COLLECTING: f64 = 0.05;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let target = &e.profile.target;
    match (target.free_threaded, target.gil_enabled) {
        (false, _) => RuleResult::DoesNotApply,
        // Each sample reads the switch.
        _ if e.profile.window.counts.samples == 0 => RuleResult::Undetermined("gilprof could not read whether the GIL of this free-threaded Python is on.".into()),
        (true, false) => off(e),
        (true, true) => Diagnosis::finding(Code::GilDisabled)
            .with_severity(Severity::High)
            .because("This is a free-threaded Python, but its GIL is switched on.")
            .next_step("Find what switched it on: an extension module that does not declare support for running without the GIL (start Python with -W default to see the warning), PYTHON_GIL=1 or -X gil=1.")
            .applies(),
    }
}

fn off(e: &RuleInput<'_>) -> RuleResult {
    let mut diagnosis =
        Diagnosis::new(Code::GilDisabled, "The GIL is off: this is a free-threaded Python, and threads run in parallel.".into())
            .without_prediction()
            .because(format!("The threads use {:.1} of {} cores.", e.rates.on_cpu.estimate, number(e.cores())));
    // An interpreter has a GIL also when it is off, and the samples of it say when it collects.
    let collecting = e.profile.gils.iter().map(|gil| gil.collecting_unheld / gil.observed).fold(0.0, f64::max);
    if collecting >= COLLECTING {
        diagnosis = diagnosis.because(format!(
            "Garbage collections are in progress for {} of the time, and stop all threads for most of it.",
            percent(collecting)
        ));
    }
    diagnosis
        .next_step("If the program is slower than expected, check for locks, which are among the findings if threads wait for them, and for objects that many threads change, which gilprof does not measure.")
        .applies()
}

#[cfg(test)]
mod tests {
    use super::super::super::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    fn scene(free_threaded: bool, gil_enabled: bool) -> report::Report {
        let scene = Scene::new(2.0).with(|t, _| (t.free_threaded, t.gil_enabled) = (free_threaded, gil_enabled));
        crate::analysis::report(&scene.run(1000, |_| vec!["L join@threading.py", "N burn", "N burn"]))
    }

    #[test]
    fn off_is_the_verdict() {
        let r = scene(true, false);
        assert_eq!((r.verdict.code, r.verdict.speedup.processes), (Code::GilDisabled, None));
    }

    #[test]
    fn switched_on_is_a_finding() {
        let r = scene(true, true);
        assert_ne!(r.verdict.code, Code::GilDisabled);
        assert_eq!(r.findings[0].code, Code::GilDisabled);
    }

    #[test]
    fn a_switch_that_was_never_read_is_undetermined() {
        let never = Scene::new(2.0).with(|t, _| (t.free_threaded, t.gil_enabled) = (true, false)).run(0, |_| vec![]);
        assert!(is_undetermined(super::evaluate, &never));
    }

    #[test]
    fn an_ordinary_build_is_neither() {
        let r = scene(false, true);
        assert!(r.verdict.code != Code::GilDisabled && r.findings.iter().all(|f| f.code != Code::GilDisabled));
    }
}
