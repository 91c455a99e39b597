//! What each process is in the service: by its children among the measured processes, and by its
//! command line.
//!
//! A process that idles beside working ones is no helper for that: only idle.

use crate::analysis::report::{ProcessRole, Target};
use std::collections::HashSet;

/// Arguments are searched up to this many; multiprocessing's own commands have four.
const MAX_ARGS: usize = 16;
/// Most ancestors of a process that are counted; a longer chain is an error in the data.
const MAX_DEPTH: usize = 32;

/// One of multiprocessing's own commands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    ResourceTracker,
    /// The forkserver. What it forks has the same command line.
    Forkserver,
}

fn command(target: &Target) -> Option<Command> {
    let has = |words: &str| target.command.iter().take(MAX_ARGS).any(|argument| argument.starts_with(words));
    if has("from multiprocessing.resource_tracker import") || has("from multiprocessing.semaphore_tracker import") {
        Some(Command::ResourceTracker)
    } else if has("from multiprocessing.forkserver import") {
        Some(Command::Forkserver)
    } else {
        None
    }
}

/// The role of each process.
pub(super) fn of(targets: &[&Target]) -> Vec<ProcessRole> {
    let forkservers: HashSet<i32> = targets.iter().filter(|target| is_forkserver(target, targets)).map(|target| target.pid).collect();
    let is_helper = |target: &Target| command(target) == Some(Command::ResourceTracker) || forkservers.contains(&target.pid);
    // A tracker says nothing of what its parent is: one process with shared memory has one, too.
    let parents: HashSet<i32> =
        targets.iter().filter(|target| command(target) != Some(Command::ResourceTracker)).filter_map(|target| target.parent).collect();
    let role = |target: &&Target| match target {
        target if is_helper(target) => ProcessRole::Helper,
        target if parents.contains(&target.pid) => ProcessRole::Master,
        _ => ProcessRole::Worker,
    };
    targets.iter().map(role).collect()
}

/// Whether a process with the forkserver's command is the forkserver itself: it has children, or
/// its parent has another command.
fn is_forkserver(target: &Target, targets: &[&Target]) -> bool {
    let parent = targets.iter().find(|other| Some(other.pid) == target.parent);
    let has_children = targets.iter().any(|other| other.parent == Some(target.pid));
    command(target) == Some(Command::Forkserver)
        && (has_children || parent.is_some_and(|parent| command(parent) != Some(Command::Forkserver)))
}

/// The name of a helper.
pub(super) fn helper_name(target: &Target) -> Option<&'static str> {
    command(target).map(|command| match command {
        Command::ResourceTracker => "resource tracker",
        Command::Forkserver => "forkserver",
    })
}

/// The index of the process that started each process.
pub(super) fn parents(targets: &[&Target]) -> Vec<Option<usize>> {
    let parent = |(n, target): (usize, &&Target)| {
        let pid = target.parent?;
        targets.iter().position(|other| other.pid == pid).filter(|at| *at != n)
    };
    targets.iter().enumerate().map(parent).collect()
}

/// The processes in the order of a tree, each with the number of its ancestors.
pub(super) fn tree(targets: &[&Target]) -> Vec<(usize, usize)> {
    let parents = parents(targets);
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); targets.len()];
    for (n, parent) in parents.iter().enumerate() {
        if let Some(parent) = parent {
            children[*parent].push(n);
        }
    }
    children.iter_mut().for_each(|all| all.sort_by_key(|n| targets[*n].pid));
    let mut order = Vec::with_capacity(targets.len());
    let mut seen = vec![false; targets.len()];
    let roots = (0..targets.len()).filter(|n| parents[*n].is_none());
    // Parents in a circle have no root; such processes come last, unindented.
    for root in roots.chain(0..targets.len()) {
        let mut todo = vec![(root, 0)];
        while let Some((n, depth)) = todo.pop() {
            if !std::mem::replace(&mut seen[n], true) {
                order.push((n, depth));
                todo.extend(children[n].iter().rev().map(|child| (*child, (depth + 1).min(MAX_DEPTH))));
            }
        }
    }
    order
}
