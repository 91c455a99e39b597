//! The machine or the cgroup is the limit, not the GIL: threads are ready to run and get no core,
//! or there is only one core to run on.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity, WORTH_IT};
use crate::analysis::phrases::{cores, on_cores, percent};

/// Share of the time in which threads could have run and had no core, from which no gain can be
/// predicted.
const STARVED: f64 = 1.0 / 3.0;
/// Share of the threads' own time without a core below which something else dominates, such as I/O
/// with bursts of work between.
const LIMITS: f64 = 0.3;
/// Cores that threads use or lack below which starvation is a matter of microseconds.
const MATTERS: f64 = 0.2;
/// A gain that only the number of cores prevents.
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
            RuleResult::Undetermined(format!("Threads had no core in {low} to {high} of the time in which they could have run."))
        }
        _ => RuleResult::DoesNotApply,
    }
}

fn starved(e: &RuleInput<'_>) -> RuleResult {
    let share = percent(e.rates.starvation.estimate);
    Diagnosis::new(Code::CpuStarved, "Short of CPU: threads that are ready to run have no core to run on.".into())
        .without_prediction()
        .with_severity(Severity::High)
        .because(format!("Threads had no core in {share} of the time in which they could have run."))
        .because(format!("The program may use {}; its threads got {} on average.", cores(e.cores()), cores(e.rates.on_cpu.estimate)))
        .next_step("Check the machine for other load, raise the container's CPU quota, or start fewer threads; then measure again.")
        .next_step("gilprof does not predict the gain of processes while the program is short of CPU.")
        .applies()
}

fn no_cores(e: &RuleInput<'_>) -> RuleResult {
    Diagnosis::new(
        Code::CpuStarved,
        format!("Threads wait for the GIL, but {} they have no room to run at the same time.", on_cores(e.cores())),
    )
    .with_severity(Severity::Medium)
    .because(e.waiting_summary())
    .because(format!(
        "The program may use {}; with enough cores and without the GIL it would be {:.1}x faster.",
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
    fn runnable_threads_without_a_core_are_starved() {
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
    fn starvation_in_a_part_of_the_window_is_undetermined() {
        let phased = |t: u64| if t > 650 { HASHING(t) } else { vec!["N hash", "N hash"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(2000, phased)));
    }
}
