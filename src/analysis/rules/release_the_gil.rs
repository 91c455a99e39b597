//! The holders are mostly inside C calls that keep the GIL. A release there lets other threads run;
//! a rewrite of Python code does not.

use super::{severity, too_wide, worth_it, Code, Diagnosis, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{gain, line, on_cores, percent, place};

/// Share of the waiting that is worth a finding when the verdict is another one.
const NOTABLE: f64 = 0.3;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (holder_mix, gains) = (&e.holder_mix, &e.gains.release_in_native);
    if holder_mix.native < NOTABLE {
        return RuleResult::DoesNotApply;
    }
    let (Position::Above, Position::Above) = (worth_it(gains), worth_it(&e.gains.processes)) else {
        return if worth_it(gains) == Position::Straddles && worth_it(&e.gains.processes) != Position::Below {
            too_wide("With the GIL released in C calls", gains)
        } else {
            RuleResult::DoesNotApply
        };
    };
    let Some((holder, hot_line)) = super::top_holder(e, |f| f.holding_native) else { return RuleResult::DoesNotApply };
    let (name, at) = (place(&holder), line(&holder, hot_line));
    let diagnosis = Diagnosis::new(Code::ReleaseTheGil, format!("Release the GIL in the C code that {name} calls: about {} {}.", gain(gains), on_cores(e.cores())))
        .rests_on_gain()
        .with_severity(severity(gains))
        .sketch(&["with nogil:  # Cython, around code that uses no Python object", "    total = sum_of(view)"])
        .because(e.waiting_summary())
        .because(format!("In {} of that waiting, the thread that holds the GIL is inside a C call.", percent(holder_mix.native)))
        .because(e.contention_summary())
        .next_step(format!("Change the call at {at}: use a library that releases the GIL there, or move the work to Cython (with nogil), C++ or Rust code that releases it."))
        .next_step(format!("The alternative is a concurrent.futures.ProcessPoolExecutor: about {}, not counting the cost of moving data between processes.", gain(&e.gains.processes)));
    if holder_mix.in_c_calls() { diagnosis } else { diagnosis.finding_only() }.applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn holders_inside_c_calls_should_release() {
        let json = |t: u64| if (t / 5).is_multiple_of(2) { vec!["C parse", "W parse"] } else { vec!["W parse", "C parse"] };
        let r = report(&Scene::new(2.0).run(2000, json));
        assert_eq!(r.verdict.code, Code::ReleaseTheGil);
        assert!(
            r.verdict.headline.starts_with("Release the GIL in the C code that parse (app.py:12) calls: about 2.0x faster"),
            "{}",
            r.verdict.headline
        );
        assert!(r.verdict.next_steps[0].contains("app.py:14"));
    }

    #[test]
    fn python_code_full_of_brief_calls_is_not_one_long_call() {
        // `float(cell)` and `sums.get(name)` on each line: three samples of five are in one of
        // them.
        let rows = |calls: u64| {
            move |t: u64| {
                let holder = if t % 5 < calls { "C fold" } else { "P fold" };
                if (t / 5).is_multiple_of(2) {
                    vec![holder, "W fold"]
                } else {
                    vec!["W fold", holder]
                }
            }
        };
        let r = report(&Scene::new(2.0).run(2000, rows(3)));
        assert_eq!(r.verdict.code, Code::SwitchToProcesses);
        assert!(r.findings.iter().any(|f| f.code == Code::ReleaseTheGil), "{:#?}", r.findings);
        assert_eq!(report(&Scene::new(2.0).run(2000, rows(4))).verdict.code, Code::ReleaseTheGil);
    }

    #[test]
    fn calls_that_do_release_are_already_parallel() {
        let zlib = |t: u64| if t.is_multiple_of(20) { vec!["P pack", "N pack"] } else { vec!["N pack", "N pack"] };
        assert_eq!(report(&Scene::new(2.0).run(2000, zlib)).verdict.code, Code::AlreadyParallel);
    }

    #[test]
    fn contention_now_and_then_is_not_enough() {
        let phased = |t: u64| if t < 350 { vec!["C parse", "W parse"] } else { vec!["I read", "C parse"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(1500, phased)));
    }
}
