//! The holder sleeps in the kernel while it owns the GIL: an extension does not release the GIL
//! around a blocking call, a page fault waits for a disk, or a library waits for its own threads.
//!
//! Threads that wait behind such a holder are late also where processes would gain no throughput,
//! so the waiting decides and not the gain. No switch interval helps: a holder that sleeps answers
//! no drop request. If nothing runs and the GIL never switches, the verdict is a deadlock.

use super::{gil_limits, position, severity, Code, Diagnosis, Estimate, Position, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::{clean, cores, gain, named, on_cores, percent, threads, verb};
use crate::profile::{HolderSleep, ThreadProfile};
use crate::sample::{Stack, State};

/// Share of the waiting that is worth a finding when the verdict is another one.
const NOTABLE: f64 = 0.2;
/// Average number of threads behind a sleeping holder, from which the delay matters.
const BEHIND: f64 = 0.1;
/// Share of the holder's sleep of one kind, from which a sentence names the kind.
const MOSTLY: f64 = 0.5;
/// Cores that native threads use, from which a library may be waiting for them.
const HELPERS: f64 = 0.1;
/// Share of the window in one state, from which a thread never left it.
const STUCK: f64 = 0.98;
/// Cores below which nothing runs.
const RUNS: f64 = 0.02;
/// The shortest window that shows a deadlock, in seconds.
const STANDSTILL: f64 = 1.0;
/// Most threads whose stacks a deadlock shows, and most callers of each.
const STACKS: usize = 4;
const CALLERS: usize = 3;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    if let Some(diagnosis) = deadlock(e) {
        return diagnosis.applies();
    }
    let (holder_mix, waiting) = (&e.holder_mix, &e.rates.waiting);
    if holder_mix.blocked < NOTABLE {
        return RuleResult::DoesNotApply;
    }
    let of = |rate: f64| rate * holder_mix.blocked;
    let behind = Estimate { estimate: of(waiting.estimate), low: of(waiting.low), high: of(waiting.high) };
    match position(&behind, BEHIND) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "Between {:.2} and {:.2} threads wait on average while the thread that holds the GIL sleeps.",
            behind.low, behind.high
        )),
        Position::Above => blocked(e),
    }
}

fn blocked(e: &RuleInput<'_>) -> RuleResult {
    let (holder_mix, gains) = (&e.holder_mix, &e.gains.processes);
    let Some((holder, hot_line)) = super::top_holder(e, |f| f.holding_blocked) else { return RuleResult::DoesNotApply };
    let name = e.place_and_caller_clause(&holder);
    let mut diagnosis = Diagnosis::new(Code::BlockedHoldingGil, format!("{name} sleeps while it holds the GIL, so other threads wait."))
        .with_severity(Severity::Medium)
        .because(e.waiting_summary())
        .because(format!("In {} of that waiting, the thread that holds the GIL is asleep.", percent(holder_mix.blocked)))
        .because(e.contention_summary());
    if let Some(kind) = kind_of_sleep(e) {
        diagnosis = diagnosis.because(kind);
    }
    diagnosis = diagnosis.next_step(remedy(e, &format!("in {} at line {hot_line}", e.place(&holder))));
    diagnosis = if gil_limits(e) == Position::Above {
        let step = format!("Until then, separate processes would be about {} {}.", gain(gains), on_cores(e.cores()));
        diagnosis.with_severity(severity(gains)).gain_step(step)
    } else {
        diagnosis.next_step(format!("Until then, run {name} in a process of its own: other threads then do not wait for it."))
    };
    if holder_mix.is_asleep() { diagnosis } else { diagnosis.finding_only() }.applies()
}

fn remedy(e: &RuleInput<'_>, at: &str) -> String {
    if share_of_sleep(e, |sleep| sleep.faults) > MOSTLY {
        return format!("Read the memory that is used {at} beforehand, in code that releases the GIL: read() in place of a mapped file.");
    }
    format!("Release the GIL around the blocking call {at}: Py_BEGIN_ALLOW_THREADS in C, a nogil block in Cython, or ctypes.CDLL in place of ctypes.PyDLL.")
}

fn share_of_sleep(e: &RuleInput<'_>, part: fn(&HolderSleep) -> f64) -> f64 {
    let sleep = &e.profile.holder_sleep;
    if sleep.total > 0.0 {
        part(sleep) / sleep.total
    } else {
        0.0
    }
}

/// What the holder sleeps in, where that is known.
fn kind_of_sleep(e: &RuleInput<'_>) -> Option<String> {
    let (faults, locks) = (share_of_sleep(e, |sleep| sleep.faults), share_of_sleep(e, |sleep| sleep.locks));
    if faults > MOSTLY {
        let share = percent(faults);
        return Some(format!("In {share} of that sleep, the holder is in a page fault: the memory is a mapped file, or was swapped out."));
    }
    if locks <= MOSTLY {
        return None;
    }
    let share = percent(locks);
    let helpers = || e.profile.threads.iter().filter(|t| !t.info.python && t.times.get(State::Native) > 0.0);
    let seconds = e.profile.running_seconds().max(1e-9);
    let used = helpers().map(|t| t.times.get(State::Native)).sum::<f64>() / 1e9 / seconds;
    Some(match helpers().count() {
        count if used >= HELPERS => format!(
            "In {share} of that sleep, the holder waits for a lock or for another thread; {} without Python {} {} meanwhile.",
            threads(count),
            verb(count, "use"),
            cores(used)
        ),
        _ => format!("In {share} of that sleep, the holder waits for a lock or for another thread."),
    })
}

/// All threads wait or sleep, and the GIL never switches.
fn deadlock(e: &RuleInput<'_>) -> Option<Diagnosis> {
    let seconds = e.profile.running_seconds();
    let stuck = |state: State| {
        let stuck = move |t: &&ThreadProfile| t.times.get(state) / 1e9 > STUCK * seconds;
        e.profile.threads.iter().filter(stuck)
    };
    let waiting = stuck(State::Waiting).count();
    if e.gil.switches_per_s != Some(0.0) || e.rates.on_cpu.high > RUNS || seconds < STANDSTILL || waiting == 0 {
        return None;
    }
    let headline =
        format!("Deadlock: {} {} for the GIL, and nothing has moved for {seconds:.1} s.", threads(waiting), verb(waiting, "wait"));
    let diagnosis = Diagnosis::new(Code::BlockedHoldingGil, headline).without_prediction().with_severity(Severity::High);
    let holding = e.profile.threads.iter().find(|t| t.times.holding() / 1e9 > STUCK * seconds);
    if holding.is_none() && e.rates.holding.high > RUNS {
        return None;
    }
    let waiters =
        stuck(State::Waiting).take(STACKS).map(|t| format!("Thread {} waits for the GIL in {}.", clean(&t.info.name), stack(e, t)));
    let Some(holder) = holding else {
        let diagnosis = waiters.fold(diagnosis.because("The GIL is held, and no thread of this process holds it."), Diagnosis::because);
        let step = "Find which thread took the GIL and ended: a fork while another thread held it, or PyGILState_Ensure without PyGILState_Release.";
        return Some(diagnosis.next_step(step));
    };
    let held = format!("Thread {} holds the GIL and sleeps in {}.", clean(&holder.info.name), stack(e, holder));
    let step = "Release the GIL around the call in which the holder sleeps: what it waits for may need the GIL. If the call is only slow, the step is the same.";
    Some(waiters.fold(diagnosis.because(held), Diagnosis::because).next_step(step))
}

/// The stack in which a thread was for most of its time, the innermost frame first.
fn stack(e: &RuleInput<'_>, thread: &ThreadProfile) -> String {
    let its = e.profile.stacks().filter(|(owner, ..)| std::ptr::eq(*owner, thread));
    let Some((_, stack, _)) = its.max_by(|a, b| a.2.total().total_cmp(&b.2.total())) else { return "code without Python".into() };
    frames(e, stack)
}

fn frames(e: &RuleInput<'_>, stack: &Stack) -> String {
    let one = |frame: &crate::sample::Frame| format!("{} at line {}", e.place(&named(&frame.function)), frame.line);
    let mut all = stack.frames.iter().rev().map(one);
    let Some(leaf) = all.next() else { return "code without Python".into() };
    let callers: Vec<String> = all.take(CALLERS).collect();
    if callers.is_empty() {
        leaf
    } else {
        format!("{leaf}, called from {}", callers.join(", "))
    }
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
    fn a_sleeping_holder_is_named_where_processes_gain_nothing() {
        let reader = |t: u64| match t % 100 {
            0 => vec!["W read_map", "P tick"],
            1..25 => vec!["B read_map", "I tick"],
            _ => vec!["B read_map", "W tick"],
        };
        let r = report(&Scene::new(2.0).run(4000, reader));
        assert_eq!(r.verdict.code, Code::BlockedHoldingGil, "{:?}", r.verdict);
        assert!(r.verdict.headline.starts_with("read_map (app.py:12) sleeps"), "{}", r.verdict.headline);
        let text = format!("{:?} {:?}", r.verdict, r.findings);
        assert!(!text.contains("setswitchinterval") && !text.contains("switch interval") && !text.contains("faster"), "{text}");
    }

    #[test]
    fn waiting_behind_a_sleeper_in_a_part_of_the_window_is_not_enough() {
        let phased = |t: u64| if t < 150 { vec!["B query", "W serve"] } else { vec!["I read", "B query"] };
        assert!(is_undetermined(super::evaluate, &Scene::new(2.0).run(1500, phased)));
    }

    #[test]
    fn page_faults_and_helpers_of_a_library_are_named() {
        let asleep = |holder: &'static str| {
            move |t: u64| match t % 20 {
                0 => vec!["W read_map", "P tick", "N -"],
                _ => vec![holder, "W tick", "N -"],
            }
        };
        let v = report(&Scene::new(4.0).native(2).run(2000, asleep("F read_map"))).verdict;
        assert!(v.because.iter().any(|b| b.contains("the holder is in a page fault")), "{:?}", v.because);
        assert!(v.next_steps[0].starts_with("Read the memory"), "{:?}", v.next_steps);
        let v = report(&Scene::new(4.0).native(2).run(2000, asleep("J read_map"))).verdict;
        let text = "for a lock or for another thread; 1 thread without Python uses 1 core meanwhile.";
        assert!(v.because.iter().any(|b| b.ends_with(text)), "{:?}", v.because);
        let v = report(&Scene::new(4.0).native(2).run(2000, asleep("B read_map"))).verdict;
        assert!(v.because.iter().all(|b| !b.contains("of that sleep")), "{:?}", v.because);
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

    #[test]
    fn a_standstill_is_a_deadlock_with_its_stacks() {
        let still = |_| vec!["B join_pool>native", "W callback", "L join@threading.py"];
        let v = report(&Scene::new(2.0).switching(0).run(2000, still)).verdict;
        assert_eq!((v.code, v.speedup.processes), (Code::BlockedHoldingGil, None));
        assert_eq!(v.headline, "Deadlock: 1 thread waits for the GIL, and nothing has moved for 2.0 s.");
        assert_eq!(
            v.because[0],
            "Thread MainThread holds the GIL and sleeps in native (app.py:12) at line 14, called from join_pool (app.py:12) at line 14, main (app.py:12) at line 99."
        );
        assert!(v.because[1].starts_with("Thread worker-1 waits for the GIL in callback (app.py:12) at line 14"), "{:?}", v.because);
        let orphans = report(&Scene::new(2.0).switching(0).run(2000, |_| vec!["W work", "W work"])).verdict;
        assert!(orphans.headline.starts_with("Deadlock: 2 threads wait") && orphans.because[0].contains("no thread"), "{orphans:?}");
        // The same with GIL switches is no deadlock.
        let moving = report(&Scene::new(2.0).run(2000, still)).verdict;
        assert!(!moving.headline.starts_with("Deadlock"), "{moving:?}");
    }
}
