//! A CPU quota (cgroup v1 or v2) or a CPU affinity limits the program on a machine that has more
//! cores.
//!
//! A finding, never the verdict: it says why the verdict counts that number of cores.

use super::{position, Code, Diagnosis, Position, RuleInput, RuleResult, Severity};
use crate::analysis::phrases::{number, percent};
use crate::analysis::report::Estimate;

/// Share of the allowed CPU time, used or lacked, from which the limit matters.
const FULL: f64 = 0.85;

pub(in crate::analysis) fn evaluate(e: &RuleInput<'_>) -> RuleResult {
    let (target, may) = (&e.profile.target, e.cores());
    let Some(machine) = target.machine_cpus.filter(|machine| *machine > may) else { return RuleResult::DoesNotApply };
    // Time without a core counts too: a quota takes the CPU away from threads that could run.
    let wanted = |at: fn(&Estimate) -> f64| at(&e.rates.on_cpu) / (1.0 - at(&e.rates.starvation)).max(0.01) / may;
    let share = Estimate { estimate: wanted(|e| e.estimate), low: wanted(|e| e.low), high: wanted(|e| e.high) };
    let quota = target.quota.is_some_and(|quota| quota <= may);
    match position(&share, FULL) {
        Position::Below => RuleResult::DoesNotApply,
        Position::Straddles => RuleResult::Undetermined(format!(
            "The program needs between {} and {} of the CPU time that it may use.",
            percent(share.low),
            percent(share.high)
        )),
        Position::Above => {
            let (what, step) = if quota {
                ("CPU quota of the cgroup", "Raise the quota (cpu.max, docker --cpus, a pod's CPU limit) before you tune anything else.")
            } else {
                ("CPU affinity", "Widen the affinity (taskset, a pod with static CPUs) before you tune anything else.")
            };
            Diagnosis::finding(Code::CpuLimit)
                .with_severity(Severity::High)
                .because(format!(
                    "The {what} limits the program to {} of the machine's {} cores, and the program needs {} of that.",
                    number(may),
                    number(machine),
                    percent(share.estimate)
                ))
                .next_step(step)
                .applies()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_undetermined, Scene};

    fn finding_text(r: &Report) -> Option<&str> {
        r.findings.iter().find(|f| f.code == Code::CpuLimit).map(|f| f.evidence.as_str())
    }

    fn limited(quota: Option<f64>, samples: u64, program: fn(u64) -> Vec<&'static str>) -> Report {
        let scene = Scene::new(quota.unwrap_or(1.0)).with(|target, _| (target.quota, target.machine_cpus) = (quota, Some(8.0)));
        report(&scene.run(samples, program))
    }

    #[test]
    fn a_quota_that_is_used_up_is_named_and_one_with_room_is_not() {
        let r = limited(Some(1.5), 3000, |t| if t % 4 == 0 { vec!["N hash", "S hash"] } else { vec!["N hash", "N hash"] });
        assert!(
            finding_text(&r)
                .unwrap_or_default()
                .starts_with("The CPU quota of the cgroup limits the program to 1.5 of the machine's 8 cores"),
            "{:?}",
            r.findings
        );
        assert!(finding_text(&limited(Some(1.5), 3000, |_| vec!["N hash", "I recv"])).is_none());
    }

    #[test]
    fn an_affinity_is_named_and_a_whole_machine_is_no_limit() {
        let busy: fn(u64) -> Vec<&'static str> = |_| vec!["P burn", "I recv"];
        assert!(finding_text(&limited(None, 3000, busy)).unwrap_or_default().starts_with("The CPU affinity limits the program to 1 of"));
        let whole = Scene::new(8.0).with(|target, _| target.machine_cpus = Some(8.0));
        assert!(finding_text(&report(&whole.run(3000, |_| vec!["N a", "N b", "N c", "N d", "N e", "N f", "N g", "N h"]))).is_none());
        assert!(finding_text(&report(&Scene::new(1.0).run(3000, busy))).is_none());
    }

    #[test]
    fn use_near_the_bound_is_undetermined() {
        let scene = Scene::new(1.0).with(|target, _| target.machine_cpus = Some(8.0));
        assert!(is_undetermined(super::evaluate, &scene.run(1500, |t| vec![if (t / 100) % 7 == 0 { "I recv" } else { "P burn" }])));
    }
}
