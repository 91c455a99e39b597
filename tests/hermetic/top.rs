//! `gilprof top` on a recording: golden screens, and figures that are those of a report.
//!
//! `GILPROF_BLESS=1 cargo test --test hermetic top::` writes the golden screens again.

use crate::output::golden;
use crate::support::cli::gilprof;
use crate::support::{repository, scratch};
use gilprof::profile::file::{Recording, RecordingWriter};
use gilprof::sample::TargetInfo;
use gilprof::top::draw::Paint;
use gilprof::top::history::Span;
use gilprof::top::measurement::{Pace, RunningMeasurement};
use gilprof::top::model::{Model, View};
use gilprof::top::terminal::text;
use std::path::Path;
use std::sync::atomic::AtomicBool;

fn recording() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/recordings/v1.gilprof")
}

/// The last picture of a recording.
fn played() -> Model {
    let measurement = RunningMeasurement::replay(Recording::open(&recording()).unwrap(), Pace::Unlimited, Span::TenSeconds);
    measurement.wait(&AtomicBool::new(false));
    let mut model = Model::default();
    assert!(model.take(&mut measurement.latest()));
    model
}

#[test]
fn screens_of_a_recording_match_their_golden_files() {
    let mut model = played();
    for view in View::OF_PROCESS {
        model.view = view;
        for size in [(80, 24), (200, 50)] {
            let name = format!("top-{}-{}x{}", view.name(), size.0, size.1);
            golden(&format!("{name}.txt"), &text(&model, Paint { colour: false, ascii: false }, size));
            if view == View::Threads {
                golden(&format!("{name}.ascii.txt"), &text(&model, Paint { colour: false, ascii: true }, size));
            }
        }
    }
}

#[test]
fn a_figure_of_top_is_that_of_a_report() {
    let file = recording();
    let file = file.to_str().unwrap();
    let report = gilprof(&["report", file, "--format", "json"]);
    for window in ["start", "10s"] {
        let top = gilprof(&["top", "--replay", file, "--json", "--window", window]);
        top.ended(0, &[]);
        let (mut of_top, mut of_report) = (top.report(), report.report());
        if window == "10s" {
            // The kernel's counts of threads that ended are those of the whole recording too.
            assert_eq!(of_top["window"]["seconds"], of_report["window"]["seconds"]);
        }
        assert_eq!(of_top.take(), of_report.take(), "{window}");
    }
}

/// The golden recording twice in one file, as two processes.
#[test]
fn one_of_several_recorded_processes_is_played() {
    let (path, one) = (scratch("two.gilprof"), Recording::open(&recording()).unwrap());
    let mut writer = RecordingWriter::new(std::fs::File::create(&path).unwrap());
    for pid in [11, 12] {
        let mut recorder = writer.recorder();
        let replayed = one.replay(&mut recorder).unwrap();
        recorder.finish(&TargetInfo { pid, ..replayed.target }, &replayed.window).unwrap();
    }
    writer.finish().unwrap();
    let file = path.to_str().unwrap();
    gilprof(&["top", "--replay", file, "--once"]).ended(2, &["choose one", "--pid 11", "--pid 12"]);
    gilprof(&["top", "--replay", file, "--pid", "12", "--once"]).ended(0, &[]).printed(&["pid 12"]);
    gilprof(&["report", file]).ended(0, &[]).printed(&["2 processes"]);
    gilprof(&["report", file, "--pid", "11"]).ended(0, &[]).printed(&["pid 11"]);
    gilprof(&["diff", file, file]).ended(12, &["it holds 2 processes"]);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_recording_is_printed_and_errors_name_what_helps() {
    let file = recording();
    let file = file.to_str().unwrap();
    let screen = gilprof(&["top", "--replay", file, "--once", "--sort", "name", "--filter", "sort|burn"]);
    screen.ended(0, &[]).printed(&["/sort|burn/", "native-held", "sampled 500/s"]);
    assert!(!screen.out.contains("MainThread"), "{}", screen.out);
    let documented = std::fs::read_to_string(repository().join("docs/top.md")).unwrap();
    let screen = gilprof(&["top", "--replay", file, "--once"]);
    assert!(documented.contains(&format!("```text\n{}```\n", screen.out)), "docs/top.md has another screen than:\n{}", screen.out);
    gilprof(&["top", "--replay", file]).ended(2, &["top needs a terminal", "--once"]);
    gilprof(&["top", "--replay", "/dev/null", "--once"]).ended(12, &["no regular file"]);
    gilprof(&["top", "--json"]).ended(2, &["--json needs a program"]);
    gilprof(&["top", "--once", "--filter", "("]).ended(2, &["no regular expression"]);
    gilprof(&["top", "--replay", file, "--pid", "1", "--once"]).ended(2, &["cannot tell which process", "--pid 7441"]);
    gilprof(&["top", "--replay", file, "1", "--once"]).ended(2, &["cannot be used with"]);
    gilprof(&["top", "1", "--once", "--engine", "both"]).ended(2, &["top measures with one engine"]);
}
