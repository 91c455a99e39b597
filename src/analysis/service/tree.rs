//! The share of the service's CPU time that was measured: the kernel counts the CPU time of every
//! process below a measured one, also of those that were not measured.

use super::member::Member;
use super::roles;
use crate::analysis::report::Target;
use crate::sample::DescendantCpu;
use crate::units::Nanos;

/// Cores used by the measured processes and by all processes below them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TreeCpu {
    pub(super) measured: f64,
    /// Python processes that were not measured.
    pub(super) unmeasured_python: f64,
    /// Other programs.
    pub(super) other: f64,
    /// Processes that ended before it was known what they were.
    pub(super) unknown: f64,
}

impl TreeCpu {
    /// The sums over the processes that no other measured one started; `None` where the kernel did
    /// not say.
    pub(super) fn of(members: &[Member<'_>], seconds: f64) -> Option<TreeCpu> {
        // Measured together, they know of one tree; the process that ended last knows most.
        let trees = members.iter().filter_map(|member| member.profile.window.tree.as_ref());
        if let Some(tree) = trees.max_by_key(|tree| tree.cpu.as_ref().map(DescendantCpu::total)) {
            let not_shown = tree.not_shown.as_secs_f64() / seconds;
            return tree.cpu.as_ref().map(|cpu| TreeCpu::of_tree(cpu, not_shown, members, seconds));
        }
        let targets: Vec<&Target> = members.iter().map(|member| &member.report.target).collect();
        let parents = roles::parents(&targets);
        let mut sum = TreeCpu::default();
        for root in (0..members.len()).filter(|n| parents[*n].is_none()) {
            let cpu = members[root].profile.window.descendants.as_ref()?;
            let cores = |time: Nanos| time.as_secs_f64() / seconds;
            let below: f64 = (0..members.len()).filter(|n| is_below(*n, root, &parents)).map(|n| members[n].cpu_seconds() / seconds).sum();
            // What is below a root and was measured is Python, but may have ended too soon for the
            // count to know that.
            let (python, unknown) = (cores(cpu.python), cores(cpu.unknown));
            let of_unknown = (below - python).clamp(0.0, unknown);
            sum.measured += cores(cpu.own) + below;
            sum.unmeasured_python += (python - below).max(0.0);
            sum.unknown += unknown - of_unknown;
            sum.other += cores(cpu.other);
        }
        Some(sum)
    }

    fn of_tree(cpu: &DescendantCpu, not_shown: f64, members: &[Member<'_>], seconds: f64) -> TreeCpu {
        let cores = |time: Nanos| time.as_secs_f64() / seconds;
        let measured = not_shown + members.iter().map(|member| member.cpu_seconds() / seconds).sum::<f64>();
        let unmeasured = (cores(cpu.own + cpu.python + cpu.unknown) - measured).max(0.0);
        let unknown = unmeasured.min(cores(cpu.unknown));
        TreeCpu { measured, unmeasured_python: unmeasured - unknown, other: cores(cpu.other), unknown }
    }

    fn all(&self) -> f64 {
        self.measured + self.unmeasured_python + self.other + self.unknown
    }

    /// The share that was measured; all, where nothing used any CPU time.
    pub(super) fn measured_share(&self) -> f64 {
        if self.all() > 0.0 {
            self.measured / self.all()
        } else {
            1.0
        }
    }
}

/// Whether a process is below another one.
fn is_below(n: usize, root: usize, parents: &[Option<usize>]) -> bool {
    let mut at = parents[n];
    // As many steps as there are processes: parents in a circle are an error in the data.
    for _ in 0..parents.len() {
        match at {
            Some(parent) if parent == root => return true,
            Some(parent) => at = parents[parent],
            None => return false,
        }
    }
    false
}
