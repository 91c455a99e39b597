//! The machine or the cgroup is the limit, not the GIL: threads are ready to run and get no core, or there is but one core to run on.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity, WORTH_IT};
use crate::analysis::phrases::{cores, number, on_cores, percent};

/// Share of the time in which threads could have run that they had no core, beyond which no gain can be promised.
const STARVED: f64 = 1.0 / 3.0;
/// Share of their own time that threads lack a core, below which something else takes more of it: I/O, with bursts of work between.
const LIMITS: f64 = 0.3;
/// CPUs that threads have or lack, below which starvation is a matter of microseconds.
const MATTERS: f64 = 0.2;
/// A gain that cores alone stand in the way of.
const CAPPED: f64 = 1.25;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let wanted = e.rates.on_cpu.estimate / (1.0 - e.rates.starvation.estimate).max(0.01);
    let capped = e.gains.unlimited_cores.low >= CAPPED && e.gains.processes.estimate < WORTH_IT;
    let limits = wanted >= MATTERS && position(&e.rates.cpu_shortage, LIMITS) != Position::Below;
    match position(&e.rates.starvation, STARVED) {
        Position::Above if limits => starved(e),
        _ if capped => no_cores(e),
        Position::Straddles if limits => {
            let (low, high) = (percent(e.rates.starvation.low), percent(e.rates.starvation.high));
            RuleResult::Undetermined(format!("Threads that are ready to run have no core between {low} and {high} of that time."))
        }
        _ => RuleResult::DoesNotApply,
    }
}

fn starved(e: &RuleInput<'_>) -> RuleResult {
    let share = percent(e.rates.starvation.estimate);
    let used = number(e.rates.on_cpu.estimate);
    Diagnosis::new(Code::CpuStarved, "Short of CPU: threads that are ready to run have no core to run on.".into())
        .without_prediction()
        .with_severity(Severity::High)
        .because(format!("{share} of the time in which a thread could have run, it had no core."))
        .because(format!("The program may use {} and got {used} of CPU time per second.", cores(e.cores())))
        .next_step("Look for other load on the machine, raise the container's CPU quota, or start fewer threads; then measure again.")
        .next_step("What processes would gain is not predicted while cores are missing.")
        .applies()
}

fn no_cores(e: &RuleInput<'_>) -> RuleResult {
    Diagnosis::new(Code::CpuStarved, format!("Threads wait for the GIL, but {} nothing could run beside its holder.", on_cores(e.cores())))
        .with_severity(Severity::Medium)
        .because(e.waiting_summary())
        .because(format!(
            "The program may use {}; with cores to spare it would be {:.1} times as fast without the GIL.",
            cores(e.cores()),
            e.gains.unlimited_cores.estimate
        ))
        .next_step("Give the program more cores first; then processes would help.")
        .applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::Code;
    use crate::analysis::testing::{is_undetermined, Scene};

    const HASHING: fn(u64) -> Vec<&'static str> = |t| if t % 2 == 0 { vec!["N hash", "S hash"] } else { vec!["S hash", "N hash"] };

    #[test]
    fn ready_threads_without_a_core_are_starved() {
        let r = report(&Scene::new(1.0).run(2000, HASHING));
        assert_eq!((r.verdict.code, r.verdict.speedup.processes), (Code::CpuStarved, None));
        let mirrored = report(&Scene::new(2.0).run(2000, |_| vec!["N hash", "N hash"]));
        assert_eq!(mirrored.verdict.code, Code::AlreadyParallel);
    }

    #[test]
    fn contention_on_one_core_is_a_lack_of_cores() {
        let turns = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P burn", "W burn"] } else { vec!["W burn", "P burn"] };
        assert_eq!(report(&Scene::new(1.0).run(2000, turns)).verdict.code, Code::CpuStarved);
        assert_eq!(report(&Scene::new(2.0).run(2000, turns)).verdict.code, Code::SwitchToProcesses);
    }

    #[test]
    fn bursts_between_io_that_meet_on_a_core_are_not_what_limits() {
        let bursts = |t: u64| match t % 10 {
            0 => vec!["N sync", "S sync"],
            1 => vec!["S sync", "N sync"],
            _ => vec!["I sync", "I sync"],
        };
        assert_ne!(report(&Scene::new(1.0).run(3000, bursts)).verdict.code, Code::CpuStarved);
    }

    #[test]
    fn starvation_that_comes_and_goes_is_not_called() {
        let phased = |t: u64| if t > 650 { HASHING(t) } else { vec!["N hash", "N hash"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(2000, phased)));
    }
}
