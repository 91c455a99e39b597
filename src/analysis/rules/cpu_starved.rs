//! Another program's load or a CPU limit is the limit, not the GIL: threads are ready to run and
//! get no core. Or there is only one core to run on.
//!
//! A program whose own threads use all cores lacks cores too, and is not short of CPU: its cores
//! are full (`already_parallel`). So this rule asks whose load it is.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity, WORTH_IT};
use crate::analysis::phrases::{cores, number, on_cores, percent};

/// Share of the time in which threads could have run and had no core, from which no gain can be
/// predicted.
const STARVED: f64 = 1.0 / 3.0;
/// Share of the cores that the program's own threads use, from which the load is its own.
const OWN: f64 = 0.8;
/// Share of the threads' own time without a core below which something else dominates, such as I/O
/// with bursts of work between.
const LIMITS: f64 = 0.3;
/// Cores that threads use or lack below which starvation is a matter of microseconds.
const MATTERS: f64 = 0.2;
/// A gain that only the number of cores prevents.
const CAPPED: f64 = 1.25;
/// Share of the time without a core that a sentence mentions.
const NOTABLE: f64 = 0.05;
/// Cores that child processes use, from which a sentence names them.
const CHILDREN: f64 = 0.2;

/// The step of a process whose cores may be used by the rest of its service.
const SERVICE_STEP: &str = "Follow the verdict on the service: it counts all processes on these cores.";

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let wanted = e.rates.on_cpu.estimate / (1.0 - e.rates.starvation.estimate).max(0.01);
    let capped = e.gains.unlimited_cores.low >= CAPPED && e.gains.processes.estimate < WORTH_IT;
    let of_others = position(&e.rates.on_cpu, OWN * e.cores()) == Position::Below;
    let limits = of_others && wanted >= MATTERS && position(&e.rates.cpu_shortage, LIMITS) != Position::Below;
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
    let children = e.children.as_ref().map_or(0.0, |c| c.python_cores + c.other_cores + c.unknown_cores);
    let (taken_by, step) = if children >= CHILDREN {
        let used = format!("its own child processes used {}", cores(children));
        (used, "Start fewer child processes, or give the program more cores; then measure again.")
    } else if e.in_service {
        ("the other processes of the service, other programs or a CPU limit took the rest".into(), SERVICE_STEP)
    } else {
        let step = "Check the machine for other load, or raise the container's CPU quota; then measure again.";
        ("other programs or a CPU limit took the rest".into(), step)
    };
    let diagnosis = Diagnosis::new(Code::CpuStarved, "Short of CPU: threads that are ready to run have no core to run on.".into())
        .without_prediction()
        .with_severity(Severity::High)
        .because(format!("Threads had no core in {share} of the time in which they could have run{}.", in_holding(e)))
        .because(format!(
            "The program may use {}; its threads got {} on average, and {taken_by}.",
            cores(e.cores()),
            number(e.rates.on_cpu.estimate)
        ));
    diagnosis.next_step(step).next_step("gilprof does not predict the gain of processes while the program is short of CPU.").applies()
}

/// What takes the cores is, or may be, the rest of the service.
fn beside_service(e: &RuleInput<'_>) -> RuleResult {
    Diagnosis::new(Code::CpuStarved, "Threads wait for the GIL, but the other processes leave no core to run at the same time.".into())
        .without_prediction()
        .with_severity(Severity::Medium)
        .because(e.waiting_summary())
        .because(format!(
            "The service may use {}; the threads of this process use {} of that.",
            cores(e.cores()),
            number(e.rates.on_cpu.estimate)
        ))
        .next_step(SERVICE_STEP)
        .applies()
}

/// Where the table of threads shows the time without a core: a thread that holds the GIL without a
/// core is in the column `holding`.
fn in_holding(e: &RuleInput<'_>) -> String {
    let sum = |share: fn(&crate::analysis::report::Thread) -> f64| e.threads.iter().map(|t| t.seconds * share(t)).sum::<f64>();
    let (holding, starved) = (sum(|t| t.holding.starved), sum(|t| t.states.starved));
    let share = if holding > 0.0 { holding / (holding + starved) } else { 0.0 };
    if share < NOTABLE {
        return String::new();
    }
    format!("; in {} of that they held the GIL, which the table of threads counts as holding", percent(share))
}

fn no_cores(e: &RuleInput<'_>) -> RuleResult {
    if e.in_service && e.others_cores().is_some() {
        return beside_service(e);
    }
    if let Some(others) = e.others_cores() {
        return Diagnosis::new(Code::CpuStarved, "Threads wait for the GIL, but other programs leave no core to run at the same time.".into())
            .without_prediction()
            .with_severity(Severity::Medium)
            .because(e.waiting_summary())
            .because(format!(
                "The program may use {}; its threads use {} of that, and other programs about {}.",
                cores(e.cores()),
                number(e.rates.on_cpu.estimate),
                number(others)
            ))
            .next_step("Move the other programs to another machine, or stop them, and measure again: without the GIL, the threads would share the cores with them.")
            .applies();
    }
    Diagnosis::new(
        Code::CpuStarved,
        format!("Threads wait for the GIL, but {} they have no room to run at the same time.", on_cores(e.cores())),
    )
    .without_prediction()
    .with_severity(Severity::Medium)
    .because(e.waiting_summary())
    .because(format!("The program may use {}, and its threads use {} of that.", cores(e.cores()), number(e.rates.on_cpu.estimate)))
    .next_step("Give the program more cores first, and measure again: without the GIL, the threads would share the same cores.")
    .applies()
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{children, is_undetermined, Scene};
    use crate::sample::ProcessKind::Python;

    /// Two threads that get half of a core between them.
    const HASHING: fn(u64) -> Vec<&'static str> = |t| match t % 4 {
        0 => vec!["N hash", "S hash"],
        2 => vec!["S hash", "N hash"],
        _ => vec!["S hash", "S hash"],
    };

    #[test]
    fn runnable_threads_without_a_core_are_starved() {
        let r = report(&Scene::new(1.0).run(2000, HASHING));
        assert_eq!((r.verdict.code, r.verdict.speedup.processes), (Code::CpuStarved, None));
        assert!(r.verdict.because[1].ends_with("got 0.5 on average, and other programs or a CPU limit took the rest."), "{:?}", r.verdict);
        let mirrored = report(&Scene::new(2.0).run(2000, |_| vec!["N hash", "N hash"]));
        assert_eq!(mirrored.verdict.code, Code::AlreadyParallel);
    }

    #[test]
    fn threads_that_fill_the_cores_themselves_are_parallel() {
        let full = |t: u64| {
            let mut all = vec!["S pack"; 4];
            all[(t % 4) as usize] = "N pack";
            all[((t + 1) % 4) as usize] = if t.is_multiple_of(25) { "P pack" } else { "N pack" };
            all
        };
        let v = report(&Scene::new(2.0).run(2000, full)).verdict;
        assert_eq!(v.code, Code::AlreadyParallel, "{v:?}");
        assert!(v.headline.ends_with("and the cores are full.") && v.next_steps[0].starts_with("All cores"), "{v:?}");
    }

    #[test]
    fn threads_that_wait_for_a_core_beside_idle_ones_have_just_been_woken() {
        let beside = |idle: f64| report(&Scene::new(2.0).with(|_, w| w.idle_cpus = Some(idle)).run(2000, HASHING)).verdict.code;
        assert_eq!(beside(0.0), Code::CpuStarved);
        assert_ne!(beside(1.5), Code::CpuStarved);
    }

    #[test]
    fn the_load_of_child_processes_is_named() {
        let family = children(1000, &[(7, Python, 1400, false)]);
        let r = report(&Scene::new(1.0).with(|_, w| w.descendants = Some(family)).run(2000, HASHING));
        assert!(r.verdict.because[1].ends_with("and its own child processes used 0.7 cores."), "{:?}", r.verdict.because);
    }

    #[test]
    fn delays_of_threads_that_do_next_to_nothing_do_not_count() {
        // Of sixty tickers, three are late for a core at a time; one thread computes.
        let ticking = |t: u64| {
            let mut all = vec!["I tick"; 61];
            all[0] = "P crunch";
            (0..3).for_each(|n| all[1 + ((t * 7 + n * 20) % 60) as usize] = "S tick");
            if t.is_multiple_of(500) {
                all[1 + (t / 500 % 60) as usize] = "N tick";
            }
            all
        };
        assert_eq!(report(&Scene::new(2.0).run(3000, ticking)).verdict.code, Code::Serial);
    }

    /// Two threads in turn, the holder without a core most of the time.
    fn hogged(t: u64) -> Vec<&'static str> {
        let holds = if t.is_multiple_of(5) { "P burn" } else { "X burn" };
        if (t / 50).is_multiple_of(2) {
            vec![holds, "W burn"]
        } else {
            vec!["W burn", holds]
        }
    }

    #[test]
    fn the_time_without_a_core_is_shown_and_no_gain_is_stated() {
        let r: Report = report(&Scene::new(2.0).run(3000, hogged));
        assert_eq!(r.verdict.code, Code::CpuStarved);
        assert!(
            r.verdict.because[0].ends_with("in 100 % of that they held the GIL, which the table of threads counts as holding."),
            "{:?}",
            r.verdict
        );
        let text = format!("{:?} {:?}", r.verdict, r.findings);
        assert!(!text.contains("faster") && !text.contains("ProcessPoolExecutor"), "{text}");
    }

    #[test]
    fn contention_on_one_core_is_a_lack_of_cores() {
        let turns = |t: u64| if (t / 5).is_multiple_of(2) { vec!["P burn", "W burn"] } else { vec!["W burn", "P burn"] };
        let v = report(&Scene::new(1.0).run(2000, turns)).verdict;
        assert_eq!((v.code, v.speedup.processes), (Code::CpuStarved, None));
        assert!(!format!("{v:?}").contains("faster"), "{v:?}");
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
        let phased = |t: u64| if t > 1150 { HASHING(t) } else { vec!["N hash", "N hash"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(4.0).run(2000, phased)));
    }
}
