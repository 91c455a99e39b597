//! Threads hundreds and thousands of calls deep: their states are as right as those of others, and
//! their stacks keep their roots.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::{measure, number, thread, Complaints};
use std::collections::BTreeSet;
use support::{gilprof, interpreters, oldest_and_newest, window, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, some(), [depth_does_not_change_shares, a_stack_beyond_the_bound_keeps_its_root]);
}

/// The difference of a half that chance makes in a window of this length.
const UNEVEN: f64 = 0.06;
/// Samples that may be missed.
const MISSED: f64 = 0.05;

/// One release of each representation of frames.
fn some() -> Vec<Interpreter> {
    let minors = [(3, 7), (3, 8), (3, 10), (3, 11), (3, 13), (3, 15)];
    oldest_and_newest(interpreters().into_iter().filter(|i| minors.contains(&i.minor())).collect())
}

fn depth_does_not_change_shares(interpreter: &Interpreter, complaints: &mut Complaints) {
    for depth in [900, 5000] {
        let target = Target::start(interpreter, "deep", &["--depth", &depth.to_string()]);
        measure(interpreter, &target, window(3.0, 1.2), complaints, |measured, found| {
            let report = &measured.report;
            let holds = |name: &str| number(thread(report, name), "/states/holding");
            let share = holds("deep") / (holds("deep") + holds("plain"));
            let [taken, missed] = ["/window/samples", "/window/missed"].map(|n| number(report, n));
            let cpu = number(report, "/window/profiler_cpu");
            row!(interpreter.label, "depth {depth}: {share:.3} of the holding, {missed} of {taken} samples missed, {cpu:.3} of a core");
            if !measured.starving(interpreter, "shares and missed samples") {
                found.expect((share - 0.5).abs() < UNEVEN, || format!("depth {depth}: the deep thread has {share:.3} of the holding"));
                found.expect(missed < MISSED * (taken + missed), || format!("depth {depth}: {missed} samples missed"));
            }
        });
    }
}

/// A flame graph has the root of each thread, and no other: the main thread may run for a moment.
fn a_stack_beyond_the_bound_keeps_its_root(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "deep", &["--depth", "5000"]);
    let folder = Folder::new("deep-stacks");
    let file = folder.path().join("deep.folded");
    let pid = target.pid().to_string();
    let attached = gilprof(&["attach", "--pid", &pid, "--duration", "400ms", "-o", file.to_str().unwrap()]);
    assert!(attached.status.success(), "{attached:?}");
    let folded = std::fs::read_to_string(&file).unwrap();
    let stacks: Vec<Vec<&str>> = folded.lines().map(|line| line.rsplit_once(' ').unwrap().0.split(';').collect()).collect();
    let roots: BTreeSet<&str> = stacks.iter().map(|frames| frames[0]).collect();
    let deepest = stacks.iter().map(Vec::len).max().unwrap_or(0);
    row!(interpreter.label, "{} stacks, the deepest of {deepest} frames, roots {roots:?}", stacks.len());
    let is_root =
        |frame: &&str| frame.starts_with("<module> (") || frame.starts_with("Thread._bootstrap (") || frame.starts_with("_bootstrap (");
    complaints.expect(!roots.is_empty() && roots.iter().all(is_root), || format!("the roots are {roots:?}"));
    complaints.expect(deepest > 1000, || format!("the deepest stack has {deepest} frames"));
    let is_gap = |frame: &&&str| frame.starts_with("[frames left out]");
    let gaps = stacks.iter().filter(|frames| frames.len() > 1000).map(|frames| frames.iter().filter(is_gap).count());
    complaints.expect(gaps.clone().all(|n| n == 1), || format!("gaps of the deep stacks: {:?}", gaps.collect::<Vec<_>>()));
}
