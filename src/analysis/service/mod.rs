//! Several processes of one time: their roles, a table of them, the share of the work that was
//! measured, and one verdict on the service as a whole.
//!
//! Every figure stays that of one process. What concerns all of them is counted in thread-seconds
//! and cores, which do add up; shares of a GIL do not and are never summed. `roles` says what each
//! process is, `times` puts their threads on one clock, `tree` compares with the kernel's count of
//! CPU time, `figures` has what the diagnoses use, each diagnosis is in one of `rules`, `verdict`
//! has their order, and `prediction` answers what other numbers of workers and threads would do.

mod figures;
mod member;
mod prediction;
pub mod report;
mod roles;
mod rules;
mod table;
#[cfg(test)]
mod tests;
mod times;
mod tree;
mod verdict;

use super::report::{Report, Target};
use super::what_if::Question;
use crate::profile::Profile;
use crate::sample::RefusedProcess;
use figures::ServiceFigures;
use member::Member;
use report::ServiceReport;

/// Threads waiting on average, below which the page of a process shows nothing about waiting.
const HARDLY: f64 = 0.05;
/// What is said of several processes together, with answers to `--what-if` questions about the
/// service.
pub fn service(measured: &[(&Profile, &Report)], questions: &[Question]) -> ServiceReport {
    let targets: Vec<&Target> = measured.iter().map(|(_, report)| &report.target).collect();
    let roles = roles::of(&targets);
    let members: Vec<Member<'_>> =
        measured.iter().zip(&roles).map(|((profile, report), role)| Member { profile, report, role: *role }).collect();
    let figures = ServiceFigures::new(&members);
    let decided = verdict::decide(&figures);
    let questions = questions.iter().filter(|question| question.is_of_service());
    ServiceReport {
        what_if: questions.map(|question| prediction::answer(&figures, question, decided.refused)).collect(),
        verdict: decided.verdict,
        processes: members.len(),
        measured_share: figures.tree.map(|tree| tree.measured_share()),
        unmeasured_python_cores: figures.tree.map(|tree| tree.unmeasured_python),
        other_cores: figures.tree.map(|tree| tree.other + tree.unknown),
        refused: refused(&members),
        table: table::rows(&members, figures.times.seconds),
        most_waiting: most_waiting(&members),
        roles,
    }
}

/// The process that ended last knows most.
fn refused(members: &[Member<'_>]) -> Vec<RefusedProcess> {
    let trees = members.iter().filter_map(|member| member.profile.window.tree.as_ref());
    trees.map(|tree| &tree.refused).max_by_key(|refused| refused.len()).cloned().unwrap_or_default()
}

fn most_waiting(members: &[Member<'_>]) -> Vec<usize> {
    let waiting = |n: &usize| members[*n].waiting().0 / members[*n].profile.seconds().max(1e-9);
    let mut all: Vec<usize> = (0..members.len()).filter(|n| waiting(n) >= HARDLY).collect();
    all.sort_by(|a, b| waiting(b).total_cmp(&waiting(a)).then(a.cmp(b)));
    all
}
