//! Measurements that cannot decide everything: what would pass is inconclusive, and what is broken
//! stays broken.

use super::scenes::{golden, now_and_then, only_start, sleep, Scene};
use crate::support::gate::{outcome, Folder};
use crate::support::schema::assert_valid;
use gilprof::sample::{CaptureStats, DescendantCpu, State, TargetInfo};
use gilprof::units::Nanos;

#[test]
fn a_window_that_was_cut_short_keeps_no_limit_and_makes_no_baseline() {
    let folder = Folder::new("gate-cut-short");
    let why = "the window ended after 2.0 s instead of 60.0 s";
    let whole = golden(&folder);
    let short = Scene::new().with(|_, window| window.cut_short = Some(why.into())).write(&folder, "short.gilprof");
    let broken_off = folder.0.join("broken-off.gilprof");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&broken_off, &bytes[..bytes.len() - 3]).unwrap();
    let broken_off = broken_off.to_str().unwrap();
    for (file, why) in [(&short[..], why), (broken_off, "the recording breaks off")] {
        let gate = |limits: &[&str], files: &[&str]| folder.gate(&[limits, files].concat());
        gate(&["--max", "gil.busy <= 100%"], &[file]).ended(3, &[]).printed(&["INCONCLUSIVE", why]);
        gate(&["--max", "gil.busy <= 100%"], &[&whole, file]).ended(3, &[]).printed(&["INCONCLUSIVE", why]);
        gate(&["--max", "gil.busy <= 0%"], &[file]).ended(1, &[]).printed(&["FAIL", why]);
        gate(&["--max", "gil.busy <= 100% @warn"], &[file]).ended(0, &[]).printed(&["! gil.busy", why]);
        let update = ["--baseline", "b.json", "--update-baseline"];
        gate(&update, &[file]).ended(3, &[]).printed(&["NOT CHECKED", "cannot make a baseline", why]);
        assert!(!folder.0.join("b.json").exists());
    }
}

#[test]
fn a_process_whose_children_work_is_not_idle() {
    let folder = Folder::new("gate-unusable");
    let idle = Scene::new().in_states(sleep).write(&folder, "idle.gilprof");
    let python = Nanos::from_millis(1900);
    let pool = DescendantCpu { own: Nanos::from_millis(4), python, python_processes: 2, ..DescendantCpu::default() };
    let parent = Scene::new().in_states(sleep).with(|_, window| window.descendants = Some(pool)).write(&folder, "parent.gilprof");
    let cases = [(golden(&folder), None, "keep-threads"), (idle, Some("idle"), "idle"), (parent, Some("work-in-children"), "inconclusive")];
    for (file, code, verdict) in cases {
        let output = folder.gate(&["--max", "waiting <= 100%", "--format", "json", &file]);
        let run = &assert_valid("gate", output.out.as_bytes())["runs"][0];
        assert_eq!(run["unusable"]["code"].as_str(), code, "{run:#}");
        assert!(code.is_none() || run["verdict"] == verdict && !run["unusable"]["why"].as_str().unwrap().is_empty(), "{run:#}");
    }
}

/// Its interpreter ran, which is no reason to pass.
#[test]
fn a_program_that_did_nothing_is_not_passed() {
    let folder = Folder::new("gate-nothing");
    let started = Scene::new().in_states(only_start).write(&folder, "started.gilprof");
    let imported = Scene::new().in_file("<frozen importlib._bootstrap>").write(&folder, "imported.gilprof");
    let idle = Scene::new().in_states(sleep).write(&folder, "idle.gilprof");
    for (file, why) in [
        (&started, "Idle: nothing ran. The GIL was held for 15 ms in all; give the program some work to measure."),
        (&imported, "Idle: nothing ran but the interpreter's start and imports. The GIL was held for "),
        (&idle, "The GIL was held for 0.0 ms in all; give the program some work to measure."),
    ] {
        for limit in ["waiting <= 20%", "gil.busy <= 100%", "wait_ms.p99 <= 1s", "verdict not in [latency-victims]"] {
            let output = folder.gate(&["--max", limit, file]);
            output.ended(3, &[]).printed(&["INCONCLUSIVE", why]);
            assert!(!output.out.contains("burn"), "no function is responsible: {}", output.out);
        }
        let update = ["--baseline", "b.json", "--update-baseline", file];
        folder.gate(&update).ended(3, &[]).printed(&["NOT CHECKED", "cannot make a baseline of these runs", why]);
    }
    folder.gate(&["--max", "verdict in [idle]", &idle]).ended(0, &[]);
    folder.gate(&["--max", "verdict not in [idle]", &idle]).ended(1, &[]);
    let little = Scene::new().in_states(now_and_then).write(&folder, "little.gilprof");
    folder.gate(&["--max", "waiting <= 20%", "--max", "gil.busy <= 50%", &little]).ended(0, &[]);
}

#[test]
fn the_notes_name_the_warnings_of_every_run_and_the_runs_without_figures() {
    let folder = Folder::new("gate-notes");
    let idle = Scene::new().in_states(sleep).write(&folder, "idle.gilprof");
    let warned = |name: &str, text: &str| Scene::new().with(|_, window| window.warnings.push(text.into())).write(&folder, name);
    let (deep, deeper) = (warned("deep.gilprof", "3 stacks were too deep"), warned("deeper.gilprof", "14 stacks were too deep"));
    let good = golden(&folder);
    let files = [&deep, &idle, &deeper, &good].map(String::as_str);
    let output = folder.gate(&[&["--max", "waiting <= 100%", "--max", "gil.busy <= 100%", "--format", "json"][..], &files].concat());
    let outcome = outcome(&output.out);
    let notes: Vec<&str> = outcome["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect();
    assert!(output.status.success() && notes.len() == 2, "{outcome:#}");
    assert!(notes[0] == "3 stacks were too deep", "{notes:#?}");
    assert!(notes[1].starts_with("1 of 4 runs could not be used: Idle: "), "{notes:#?}");
}

/// One thread holds the GIL. The state of the other is unknown for a fifth of the time.
fn sometimes_unknown(ms: u64) -> [State; 2] {
    [State::HoldingPython, if ms.is_multiple_of(5) { State::Unknown } else { State::Io }]
}

#[test]
fn unknown_time_may_be_waiting() {
    let folder = Folder::new("gate-unknown");
    let file = Scene::new().in_states(sometimes_unknown).write(&folder, "unknown.gilprof");
    for limit in [
        "waiting <= 2%",
        "thread(\"worker-1\").waiting <= 10%",
        "gil.contended <= 10%",
        "gil.waiters_mean <= 0.1",
        "function(\"burn\").inflicted_wait <= 0.1",
        "wait_ms.p99 <= 1s",
    ] {
        folder.gate(&["--max", limit, &file]).ended(3, &[]).printed(&["INCONCLUSIVE"]);
    }
    for limit in ["waiting <= 5%", "gil.waiters_mean <= 0.3", "gil.busy <= 100%", "hold_ms.p50 <= 10s"] {
        folder.gate(&["--max", limit, &file]).ended(0, &[]).printed(&["PASS"]);
    }
}

#[test]
fn lengths_of_waits_are_checked_only_where_they_were_measured() {
    let folder = Folder::new("gate-lengths");
    let alone = |_| [State::HoldingPython, State::Io];
    let old = |target: &mut TargetInfo, _: &mut CaptureStats| target.python = "3.6.9".into();
    let file = Scene::new().in_states(alone).with(old).write(&folder, "old.gilprof");
    folder.gate(&["--max", "wait_ms.max <= 1s", &file]).ended(3, &[]).printed(&["not visible before Python 3.7"]);
    folder.gate(&["--max", "waiting <= 20%", &file]).ended(0, &[]);
    for (lost, code, text) in [
        // The events were of another GIL: the waits of this one are sampled.
        (Some(0), 1, "above the limit"),
        (Some(3), 3, "3 kernel events were lost"),
        (None, 3, "it is not known how many kernel events were lost"),
    ] {
        let exact = |_: &mut TargetInfo, window: &mut CaptureStats| (window.exact, window.events.lost_events) = (true, lost);
        let file = Scene::new().with(exact).write(&folder, "exact.gilprof");
        folder.gate(&["--max", "wait_ms.p50 <= 1ms", &file]).ended(code, &[]).printed(&[text]);
    }
}
