//! Nothing is wrong: threads get the GIL when they want it, and processes would gain nothing, or
//! what threads wait for is mostly something else.

use super::{gil_limits, too_wide, waits_outside, Code, Diagnosis, Position, RuleInput, RuleResult, LIMIT_OUTSIDE, WORTH_IT};
use crate::analysis::phrases::{count, gain, on_cores, such_threads, threads, verb};

/// Above this number of threads the exact saturation point does not matter.
const MANY: f64 = 1000.0;
/// How many times as many threads the GIL must have room for, before more of them are proposed.
const ROOM: f64 = 3.0;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let gains = &e.gains.processes;
    match gil_limits(e) {
        Position::Above => RuleResult::DoesNotApply,
        Position::Straddles => too_wide(gains),
        Position::Below => {
            let outside = gains.estimate >= WORTH_IT && waits_outside(e);
            let on = on_cores(e.cores());
            let headline = if outside {
                format!(
                    "Keep threads: they mostly sleep or wait for something else than the GIL; processes would do {:.1} to {:.1} times as much work {on}.",
                    gains.low, gains.high
                )
            } else {
                format!("Keep threads: processes would be {} {on}.", gain(gains))
            };
            let mut diagnosis = Diagnosis::new(Code::KeepThreads, headline).because(e.usage_summary()).because(saturation(e));
            diagnosis.because.extend(outside.then(|| LIMIT_OUTSIDE.to_owned()));
            diagnosis.next_step(room(e)).applies()
        }
    }
}

fn saturation(e: &RuleInput<'_>) -> String {
    let using = e.threads.iter().filter(|t| t.states.holding > 0.0).count();
    let users = format!("{} {}", threads(using), verb(using, "use"));
    match e.saturation.estimate {
        n if n <= 0.0 => "No sample saw a thread hold the GIL.".into(),
        n if n > MANY => format!("The GIL saturates (is never free) at more than {MANY:.0} such threads; {users} it now."),
        n => format!("The GIL saturates (is never free) at about {}; {users} it now.", such_threads(n)),
    }
}

fn room(e: &RuleInput<'_>) -> String {
    let using = e.threads.iter().filter(|t| t.states.holding > 0.0).count() as f64;
    let saturation = e.saturation.estimate;
    if saturation > 0.0 && saturation < using + 1.0 {
        return "Leave the threads as they are, but expect little from more: the GIL is nearly saturated.".into();
    }
    let up_to = if saturation > 0.0 && saturation <= MANY { format!(" (up to about {})", count(saturation)) } else { String::new() };
    if using > 1.0 && saturation >= ROOM * using {
        return format!(
            "Leave the threads as they are. They mostly sleep or wait for something else: if there is more of that to do at the same time, more threads do more{up_to}."
        );
    }
    format!("Leave the threads as they are; the GIL has room for more{up_to}.")
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn sleepers_keep_threads_and_the_saturation_is_given() {
        let serve = |t: u64| match t % 20 {
            0 => vec!["P serve", "I recv", "L join@threading.py"],
            10 => vec!["I recv", "P serve", "L join@threading.py"],
            _ => vec!["I recv", "I recv", "L join@threading.py"],
        };
        let r = report(&Scene::new(2.0).run(2000, serve));
        assert_eq!(r.verdict.code, Code::KeepThreads);
        assert!((r.verdict.gil_saturates_at.unwrap() - 20.0).abs() < 0.5, "{:?}", r.verdict.gil_saturates_at);
        assert!(r.verdict.because[1].contains("at about 20 such threads; 2 threads use it now"), "{:?}", r.verdict.because);
    }

    #[test]
    fn the_same_program_under_contention_does_not() {
        let busy = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P serve", "W serve"] } else { vec!["W serve", "P serve"] };
        assert_ne!(report(&Scene::new(2.0).run(2000, busy)).verdict.code, Code::KeepThreads);
    }

    #[test]
    fn threads_that_mostly_wait_outside_and_seldom_for_the_gil_are_kept() {
        let phased = |t: u64| match t % 2000 {
            0..540 => vec!["P serve", "W serve"],
            _ => vec!["I recv", if t.is_multiple_of(2) { "P serve" } else { "I recv" }],
        };
        let v = report(&Scene::new(2.0).run(2000, phased)).verdict;
        assert_eq!(v.code, Code::KeepThreads);
        assert!(v.because[2].starts_with("The threads mostly sleep, or wait for something outside the program"), "{:?}", v.because);
    }

    #[test]
    fn a_gain_with_a_wide_interval_is_inconclusive() {
        let phased = |t: u64| match t % 2000 {
            0..540 => vec!["P serve", "W serve"],
            _ => vec!["L get@queue.py", if t.is_multiple_of(2) { "P serve" } else { "L get@queue.py" }],
        };
        let profile = Scene::new(2.0).run(2000, phased);
        assert!(is_undetermined(super::evaluate, &profile));
        let r = report(&profile);
        assert_eq!(r.verdict.code, Code::Inconclusive, "{:?}", r.verdict);
        assert!(!r.verdict.because.is_empty());
    }
}
