//! The table of processes, each below the one that started it. Many short-lived processes of one
//! kind are one row.

use super::member::Member;
use super::report::ProcessRow;
use super::roles;
use crate::analysis::report::{Code, ProcessRole, Target};
use std::collections::HashMap;

/// A process that was there for less than this share of the service's window is short-lived.
const SHORT: f64 = 0.5;
/// Short-lived processes of one kind that have a row each; more of them share one.
const APART: usize = 4;

/// What short-lived processes of one row have in common.
type Kind<'a> = (ProcessRole, Option<i32>, &'a [String]);

pub(super) fn rows(members: &[Member<'_>], seconds: f64) -> Vec<ProcessRow> {
    let targets: Vec<&Target> = members.iter().map(|member| &member.report.target).collect();
    let kind = |n: usize| -> Kind<'_> { (members[n].role, targets[n].parent, &targets[n].command) };
    let has_children = |n: usize| targets.iter().any(|other| other.parent == Some(targets[n].pid));
    let is_short = |n: usize| members[n].presence(seconds) < SHORT && !has_children(n);
    let mut groups: HashMap<Kind<'_>, Vec<usize>> = HashMap::new();
    for n in (0..members.len()).filter(|n| is_short(*n)) {
        groups.entry(kind(n)).or_default().push(n);
    }
    groups.retain(|_, group| group.len() > APART);
    let mut rows = Vec::new();
    for (n, depth) in roles::tree(&targets) {
        match groups.get(&kind(n)).filter(|_| is_short(n)) {
            Some(group) if group[0] != n => {}
            Some(group) => rows.push(row(group.iter().map(|n| &members[*n]), n, depth)),
            None => rows.push(row(std::iter::once(&members[n]), n, depth)),
        }
    }
    rows
}

/// Means over the time of the processes.
fn row<'a>(group: impl Iterator<Item = &'a Member<'a>> + Clone, report: usize, depth: usize) -> ProcessRow {
    let weight = |member: &Member<'_>| member.profile.seconds().max(1e-9);
    let seconds: f64 = group.clone().map(weight).sum();
    let mean = |of: &dyn Fn(&Member<'_>) -> f64| group.clone().map(|member| of(member) * weight(member)).sum::<f64>() / seconds;
    let mut codes: HashMap<Code, f64> = HashMap::new();
    group.clone().for_each(|member| *codes.entry(member.report.verdict.code).or_default() += weight(member));
    let verdict = codes.into_iter().max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0))).map_or(Code::Inconclusive, |most| most.0);
    let (mut waited, mut used) = (0.0, 0.0);
    for member in group.clone() {
        let (waiting, using) = member.waiting();
        waited += waiting;
        used += using;
    }
    let first = group.clone().min_by_key(|member| member.profile.window.begin);
    let target = first.map(|member| &member.report.target);
    ProcessRow {
        pid: target.map_or(0, |target| target.pid),
        parent: target.and_then(|target| target.parent),
        depth,
        role: first.map_or(ProcessRole::Worker, |member| member.role),
        report,
        helper: target.and_then(roles::helper_name).filter(|_| first.is_some_and(|member| member.role == ProcessRole::Helper)),
        processes: group.clone().count(),
        seconds,
        threads: mean(&|member| member.report.threads.iter().filter(|thread| thread.python).count() as f64),
        busy: mean(&|member| member.report.gil.busy),
        waiting: if used > 0.0 { waited / used } else { 0.0 },
        cpu: mean(&|member| member.cpu_seconds() / weight(member)),
        verdict,
    }
}
