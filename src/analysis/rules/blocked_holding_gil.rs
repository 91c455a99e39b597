//! The holder sleeps in the kernel while it owns the GIL: an extension does not release the GIL
//! around a blocking call.

use super::{gil_limits, severity, too_wide, Code, Diagnosis, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{gain, on_cores, percent};

/// Share of the waiting that is worth a finding when the verdict is another one.
const NOTABLE: f64 = 0.2;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (holder_mix, gains) = (&e.holder_mix, &e.gains.processes);
    if holder_mix.blocked < NOTABLE {
        return RuleResult::DoesNotApply;
    }
    match gil_limits(e) {
        Position::Below => return RuleResult::DoesNotApply,
        Position::Straddles => return too_wide(gains),
        Position::Above => {}
    }
    let Some((place, hot_line)) = super::top_holder(e, |f| f.holding_blocked) else { return RuleResult::DoesNotApply };
    let name = e.place_and_caller_clause(&place);
    let diagnosis = Diagnosis::new(Code::BlockedHoldingGil, format!("{name} sleeps while it holds the GIL, so other threads wait."))
        .with_severity(severity(gains))
        .because(e.waiting_summary())
        .because(format!("In {} of that waiting, the thread that holds the GIL is asleep.", percent(holder_mix.blocked)))
        .because(e.contention_summary())
        .next_step(format!("Release the GIL around the blocking call in {} at line {hot_line}: Py_BEGIN_ALLOW_THREADS in C, a nogil block in Cython, or ctypes.CDLL in place of ctypes.PyDLL.", e.place(&place)))
        .next_step(format!("Until then, separate processes would be about {} {}.", gain(gains), on_cores(e.cores())));
    if holder_mix.blocked >= holder_mix.python.max(holder_mix.native) { diagnosis } else { diagnosis.finding_only() }.applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn a_sleeping_holder_is_named_and_a_running_one_is_not() {
        let blocked = |t: u64| if (t / 5).is_multiple_of(2) { vec!["B query", "W serve"] } else { vec!["W query", "B query"] };
        let r = report(&Scene::new(2.0).run(2000, blocked));
        assert_eq!(r.verdict.code, Code::BlockedHoldingGil);
        assert!(r.verdict.next_steps[0].contains("in query (app.py:12) at line 14"), "{:?}", r.verdict.next_steps);
        // Asleep without the GIL is plain I/O.
        let io = |t: u64| if t.is_multiple_of(10) { vec!["P query", "I serve"] } else { vec!["I query", "I serve"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, io)).verdict.code, Code::KeepThreads);
    }

    #[test]
    fn contention_in_a_part_of_the_window_is_not_enough() {
        let phased = |t: u64| if t < 350 { vec!["B query", "W serve"] } else { vec!["I read", "B query"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(1500, phased)));
    }

    #[test]
    fn a_part_is_a_finding() {
        let mixed = |t: u64| match t / 5 % 3 {
            0 => vec!["B query", "W serve"],
            _ => vec!["W serve", "P serve"],
        };
        let r = report(&Scene::new(2.0).run(3000, mixed));
        assert_eq!(r.verdict.code, Code::SwitchToProcesses);
        assert_eq!(r.findings[0].code, Code::BlockedHoldingGil);
    }
}
