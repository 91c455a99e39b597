//! The holders are mostly inside C calls that keep the GIL. A release there lets other threads run;
//! a rewrite of Python code does not.

use super::{advice, gil_limits, known_library, severity, too_wide, worth_it, Code, Diagnosis, Place, Position, RuleInput, RuleResult};
use crate::analysis::phrases::{gain, on_cores, own_caller, percent};
use crate::analysis::shape::Start;

/// Share of the waiting that is worth a finding when the verdict is another one.
const NOTABLE: f64 = 0.3;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (holder_mix, gains) = (&e.holder_mix, &e.gains.release_in_native);
    if holder_mix.native < NOTABLE {
        return RuleResult::DoesNotApply;
    }
    match (worth_it(gains), gil_limits(e)) {
        (Position::Above, Position::Above) => {}
        (Position::Straddles, Position::Straddles) => return too_wide(&e.gains.processes),
        _ => return RuleResult::DoesNotApply,
    }
    let Some((holder, hot_line)) = super::top_holder(e, |f| f.holding_native) else { return RuleResult::DoesNotApply };
    let name = e.place(&own_caller(&holder).unwrap_or_else(|| holder.clone()));
    let keeper = known_library::keeper_advice(&holder.file);
    let gained = format!("about {} {}", gain(gains), on_cores(e.cores()));
    let headline = match keeper {
        Some(_) => format!("The C code that {name} calls keeps the GIL; without that, {gained}."),
        None => format!("Release the GIL in the C code that {name} calls: {gained}."),
    };
    let diagnosis = Diagnosis::new(Code::ReleaseTheGil, headline)
        .rests_on_gain()
        .with_severity(severity(gains))
        .because(e.waiting_summary())
        .because(format!("In {} of that waiting, the thread that holds the GIL is inside a C call.", percent(holder_mix.native)))
        .because(e.contention_summary());
    let moving = match e.shape.start {
        // Requests go to the workers by themselves.
        Start::Web(_) => String::new(),
        _ => format!(" ({}: pass names of files or ranges rather than large data)", advice::MOVING),
    };
    let alternative = format!(
        "Run {} in {}: about {}, not counting the cost of moving data between processes{moving}.",
        advice::subject(e),
        advice::means(e),
        gain(&e.gains.processes)
    );
    // A library's C code is not the user's to change, and a pool of processes in place of threads
    // is a change of one word.
    let diagnosis = match keeper {
        Some(advice) => diagnosis.next_step_with_sketch(alternative, advice::sketch(e)).next_step(format!(
            "Or change the call in {name} at line {}. {advice}",
            holder.called_from.as_ref().map_or(hot_line, |caller| caller.call_line)
        )),
        None if e.shape.start == Start::Pool => {
            release(e, diagnosis.next_step_with_sketch(alternative, advice::sketch(e)), &holder, (hot_line, "Or change"))
        }
        None => release(e, diagnosis, &holder, (hot_line, "Change")).next_step_with_sketch(alternative, advice::sketch(e)),
    };
    if holder_mix.in_c_calls() { diagnosis } else { diagnosis.finding_only() }.applies()
}

/// The step at the call. A library's code is not the user's to change, but the call is.
fn release(e: &RuleInput<'_>, diagnosis: Diagnosis, holder: &Place, (hot_line, change): (u32, &str)) -> Diagnosis {
    let Some((caller, call_line)) = own_caller(holder).zip(holder.called_from.as_ref().map(|caller| caller.call_line)) else {
        let sketch = ["with nogil:  # Cython, around code that uses no Python object", "    total = sum_of(view)"].map(String::from);
        let step = "use a library that releases the GIL there, or move the work to Cython (with nogil), C++ or Rust code that releases it.";
        return diagnosis
            .next_step_with_sketch(format!("{change} the call in {} at line {hot_line}: {step}", e.place(holder)), sketch.to_vec());
    };
    diagnosis.next_step(format!(
        "{change} the call in {} at line {call_line}: give {} less work, or use another library, one that releases the GIL there.",
        e.place(&caller),
        e.place(holder)
    ))
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Confidence};
    use crate::analysis::testing::{is_undetermined, Scene};

    #[test]
    fn holders_inside_c_calls_should_release() {
        let json = |t: u64| if (t / 5).is_multiple_of(2) { vec!["C parse", "W parse"] } else { vec!["W parse", "C parse"] };
        let r = report(&Scene::new(2.0).run(2000, json));
        // C code may be as quick as the way of its data to another process.
        assert_eq!((r.verdict.code, r.verdict.confidence), (Code::ReleaseTheGil, Confidence::Medium));
        assert!(
            r.verdict.headline.starts_with("Release the GIL in the C code that parse (app.py:12) calls: about 2.0x faster"),
            "{}",
            r.verdict.headline
        );
        assert!(r.verdict.next_steps[0].starts_with("Change the call in parse (app.py:12) at line 14: "), "{:?}", r.verdict.next_steps);
        assert_eq!((r.verdict.sketches[0].step, r.verdict.sketches[1].step), (0, 1), "{:?}", r.verdict.sketches);
    }

    #[test]
    fn a_pool_of_threads_becomes_one_of_processes_first() {
        const POOL: &str = "Thread._bootstrap_inner@/lib/python3.11/threading.py>_worker@/lib/python3.11/concurrent/futures/thread.py";
        let [holds, waits] = ["C", "W"].map(|state| -> &'static str { Box::leak(format!("{state} {POOL}>count").into_boxed_str()) });
        let turns = move |t: u64| if t % 10 < 5 { vec!["I main", holds, waits] } else { vec!["I main", waits, holds] };
        let v = report(&Scene::new(2.0).without_main().run(3000, turns)).verdict;
        assert!(v.code == Code::ReleaseTheGil && v.next_steps[0].starts_with("Run count (app.py:12) in a ProcessPoolExecutor"), "{v:?}");
        assert!(v.next_steps[0].contains("pass names of files") && v.next_steps[1].starts_with("Or change the call in count"), "{v:?}");
    }

    #[test]
    fn a_librarys_code_is_changed_at_the_users_call() {
        let encode = ["C export>encode@/lib/python3.11/json/encoder.py", "W export>encode@/lib/python3.11/json/encoder.py"];
        let json = |t: u64| if (t / 5).is_multiple_of(2) { encode.to_vec() } else { vec![encode[1], encode[0]] };
        let v = report(&Scene::new(2.0).run(2000, json)).verdict;
        let headline = "The C code that export (app.py:12) calls keeps the GIL; without that, about 2.0x faster";
        assert!(v.headline.starts_with(headline), "{}", v.headline);
        // Nothing of json can be moved to Cython: processes come first, and have the only sketch.
        assert!(v.next_steps[0].starts_with("Run export (app.py:12) in "), "{:?}", v.next_steps);
        assert!(v.next_steps[1].starts_with("Or change the call in export (app.py:12) at line 14. Encode less"), "{:?}", v.next_steps);
        assert!(v.sketches.len() == 1 && v.sketches[0].step == 0, "{:?}", v.sketches);
        assert_eq!(v.sketches[0].lines[2], "    results = list(pool.map(export, items))");
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
