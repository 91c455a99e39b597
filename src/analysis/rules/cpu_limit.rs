//! A CPU quota (cgroup v1 or v2) or an affinity is what the program runs into, on a machine that has more.
//!
//! A finding, never the verdict: it says which limit it is that the verdict's cores are counted by.

use super::{against, Against, Code, Evidence, Judgement, Opinion, Severity};
use crate::analysis::report::Estimate;
use crate::analysis::words::{cores, number, percent};

/// Share of the CPUs that it may use, had or lacked, from which the program runs into its limit.
const FULL: f64 = 0.85;

pub(in crate::analysis) fn judge(e: &Evidence<'_>) -> Judgement {
    let (target, may) = (&e.profile.target, e.cores());
    let Some(machine) = target.machine_cpus.filter(|machine| *machine > may) else { return Judgement::No };
    // What threads lack counts too: a quota takes the CPU away from threads that could run.
    let wanted = |at: fn(&Estimate) -> f64| at(&e.rates.on_cpu) / (1.0 - at(&e.rates.starvation)).max(0.01) / may;
    let share = Estimate { estimate: wanted(|e| e.estimate), low: wanted(|e| e.low), high: wanted(|e| e.high) };
    let quota = target.quota.is_some_and(|quota| quota <= may);
    match against(&share, FULL) {
        Against::Below => Judgement::No,
        Against::Astride => Judgement::NotEnough(format!(
            "The program wants between {} and {} of the CPU time that it may use.",
            percent(share.low),
            percent(share.high)
        )),
        Against::Above => {
            let (what, step) = if quota {
                ("its cgroup's quota", "Raise the quota (cpu.max, docker --cpus, a pod's CPU limit) before anything else is tuned.")
            } else {
                ("its affinity", "Widen the affinity (taskset, a pod with static CPUs) before anything else is tuned.")
            };
            Opinion::finding(Code::CpuLimit)
                .severe(Severity::High)
                .because(format!(
                    "{} holds the program to {} of the machine's {}, of which it wants {}.",
                    capital(what),
                    cores(may),
                    number(machine),
                    percent(share.estimate)
                ))
                .next(step)
                .yes()
        }
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use crate::analysis::report;
    use crate::analysis::report::{Code, Report};
    use crate::analysis::testing::{is_unsure, Scene};

    fn said(r: &Report) -> Option<&str> {
        r.findings.iter().find(|f| f.code == Code::CpuLimit).map(|f| f.evidence.as_str())
    }

    fn limited(quota: Option<f64>, looks: u64, program: fn(u64) -> Vec<&'static str>) -> Report {
        let scene = Scene::new(quota.unwrap_or(1.0)).with(|target, _| (target.quota, target.machine_cpus) = (quota, Some(8.0)));
        report(&scene.run(looks, program))
    }

    #[test]
    fn a_quota_that_is_used_up_is_named_and_one_with_room_is_not() {
        let r = limited(Some(1.5), 3000, |t| if t % 4 == 0 { vec!["N hash", "S hash"] } else { vec!["N hash", "N hash"] });
        assert!(
            said(&r).unwrap_or_default().starts_with("Its cgroup's quota holds the program to 1.5 cores of the machine's 8"),
            "{:?}",
            r.findings
        );
        assert!(said(&limited(Some(1.5), 3000, |_| vec!["N hash", "I recv"])).is_none());
    }

    #[test]
    fn an_affinity_is_named_and_a_whole_machine_is_no_limit() {
        let busy: fn(u64) -> Vec<&'static str> = |_| vec!["P burn", "I recv"];
        assert!(said(&limited(None, 3000, busy)).unwrap_or_default().starts_with("Its affinity holds the program to 1 core"));
        let whole = Scene::new(8.0).with(|target, _| target.machine_cpus = Some(8.0));
        assert!(said(&report(&whole.run(3000, |_| vec!["N a", "N b", "N c", "N d", "N e", "N f", "N g", "N h"]))).is_none());
        assert!(said(&report(&Scene::new(1.0).run(3000, busy))).is_none());
    }

    #[test]
    fn use_about_the_bound_is_not_called() {
        let scene = Scene::new(1.0).with(|target, _| target.machine_cpus = Some(8.0));
        assert!(is_unsure(super::judge, &scene.run(1500, |t| vec![if (t / 100) % 7 == 0 { "I recv" } else { "P burn" }])));
    }
}
