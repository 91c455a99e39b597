//! The formats, against golden files and against hostile names.
//!
//! `GILPROF_BLESS=1 cargo test --test hermetic output::` rewrites the golden files. Read the
//! difference before you commit it.
// A helper of a test may fail as a test does; clippy's own exception covers only the test
// functions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod reports;
mod stacks;

use gilprof::analysis::report::Report;
use gilprof::output::text::service::render_service;
use gilprof::output::text::{program, render, Style};
use gilprof::output::{columns, format_for_path, json, sanitize, FileFormat};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const COLOUR: Style = Style { colour: true, bars: true, width: 80 };
const BARS: Style = Style { colour: false, bars: true, width: 80 };

/// Compares with a golden file, or rewrites it under `GILPROF_BLESS`.
pub fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/golden").join(name);
    if std::env::var_os("GILPROF_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "{name} has changed; it is now:\n{text}");
}

/// Without colour codes, which are the only escapes that may occur.
fn bare(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        let (code, tail) = after.split_once('m').expect("a colour code ends with m");
        assert!(code.chars().all(|c| c.is_ascii_digit() || c == ';'), "{code:?}");
        out += before;
        rest = tail;
    }
    out + rest
}

fn assert_page(text: &str, width: usize) {
    for line in bare(text).lines() {
        assert!(columns::width(line) <= width, "{} columns: {line:?}", columns::width(line));
        assert!(!line.chars().any(sanitize::is_hostile), "{line:?}");
        assert_eq!(line, line.trim_end());
    }
}

#[test]
fn pages_match_their_golden_files() {
    for (name, report) in [("saturated", reports::saturated()), ("unknown", reports::unknown()), ("crowd", reports::crowd())] {
        golden(&format!("{name}.txt"), &render(&report, Style::PLAIN));
        golden(&format!("{name}.bars.txt"), &render(&report, BARS));
        golden(&format!("{name}.colour.txt"), &render(&report, COLOUR));
        golden(&format!("{name}.json"), &json::render(&report).unwrap());
    }
}

#[test]
fn a_service_matches_its_golden_files() {
    let (service, reports) = reports::service();
    let reports: Vec<&Report> = reports.iter().collect();
    golden("service.txt", &render_service(&service, &reports, Style::PLAIN));
    golden("service.json", &json::render_service(&service, &reports).unwrap());
    assert_eq!(bare(&render_service(&service, &reports, COLOUR)), render_service(&service, &reports, BARS));
    for width in [0, 64, 72, 80, 100, 300] {
        assert_page(&render_service(&service, &reports, Style { width, ..COLOUR }), width.clamp(Style::NARROWEST, Style::WIDEST));
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    for report in [reports::saturated(), reports::unknown(), reports::crowd()] {
        assert_eq!(bare(&render(&report, COLOUR)), render(&report, BARS));
        assert!(!render(&report, Style::PLAIN).contains('\x1b'));
        for width in [0, 64, 72, 80, 100, 300] {
            assert_page(&render(&report, Style { width, ..COLOUR }), width.clamp(Style::NARROWEST, Style::WIDEST));
        }
    }
}

#[test]
fn the_program_is_the_script_not_the_interpreter() {
    let mut target = reports::saturated().target;
    for (command, name) in [
        ("python -u -X dev /srv/app.py -x", "app.py"),
        ("python -m http.server 80", "-m http.server"),
        ("python -c pass", "-c"),
        ("python -Im http.server 80", "-m http.server"),
        ("python3.11 -mhttp.server 80", "-m http.server"),
        ("python3.13t -Ic pass 7", "-c"),
        ("python3-dbg -Wignore -Xdev --check-hash-based-pycs never /srv/app.py", "app.py"),
        ("python - x", "-"),
        ("/usr/bin/uwsgi", "uwsgi"),
    ] {
        target.command = command.split(' ').map(String::from).collect();
        assert_eq!(program(&target), name);
    }
    // A program made of a script, one with Python inside, and an interpreter under another name.
    target.executable = "/srv/app".into();
    for (command, name) in [
        ("/srv/app 6", "app"),
        ("./app.bin --threads 4", "app.bin"),
        ("uwsgi --plugin python3 --threads 4", "uwsgi"),
        ("python-app 6", "python-app"),
        ("worker-7 /srv/cpu.py 6", "cpu.py"),
        ("/usr/bin/python3 /srv/app.py 6", "app.py"),
    ] {
        target.command = command.split(' ').map(String::from).collect();
        assert_eq!(program(&target), name);
    }
}

#[test]
fn json_has_the_contracts_fields_and_no_nan() {
    let text = json::render(&reports::saturated()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    for pointer in [
        "/schema",
        "/gilprof",
        "/target/pid",
        "/target/python",
        "/target/executable",
        "/target/command/0",
        "/target/free_threaded",
        "/target/gil_enabled",
        "/target/interpreters",
        "/target/cpus",
        "/target/switch_interval_us",
        "/window/seconds",
        "/window/rate_hz",
        "/window/samples",
        "/window/missed",
        "/window/torn",
        "/window/failed",
        "/window/profiler_cpu",
        "/window/exact",
        "/gil/busy",
        "/gil/contended",
        "/gil/waiters_mean",
        "/gil/switches_per_s",
        "/gil/hold_ms/p50",
        "/gil/hold_ms/p99",
        "/gil/hold_ms/max",
        "/gil/wait_ms/max",
        "/threads/0/tid",
        "/threads/0/name",
        "/threads/0/python",
        "/threads/0/cpu",
        "/threads/0/states/holding",
        "/threads/0/states/waiting",
        "/threads/0/states/native",
        "/threads/0/states/starved",
        "/threads/0/states/lock",
        "/threads/0/states/io",
        "/threads/0/states/unknown",
        "/threads/0/holding/python",
        "/threads/0/holding/native",
        "/threads/0/holding/blocked",
        "/threads/0/holding/starved",
        "/threads/0/hold_ms/p50",
        "/threads/0/wait_ms",
        "/threads/0/acquisitions_per_s",
        "/functions/0/name",
        "/functions/0/file",
        "/functions/0/line",
        "/functions/0/holding",
        "/functions/0/waiting",
        "/functions/0/inflicted_wait",
        "/functions/0/native",
        "/blame/0/waiter/name",
        "/blame/0/holder/file",
        "/blame/0/seconds",
        "/verdict/code",
        "/verdict/headline",
        "/verdict/confidence",
        "/verdict/speedup/processes/estimate",
        "/verdict/speedup/free_threading/low",
        "/verdict/speedup/release_in_native",
        "/verdict/gil_saturates_at",
        "/verdict/because/0",
        "/verdict/next_steps/0",
        "/findings/0/code",
        "/findings/0/severity",
        "/findings/0/evidence",
        "/findings/0/advice",
        "/warnings/0",
    ] {
        assert!(value.pointer(pointer).is_some(), "{pointer} is missing");
    }
    assert_eq!(value["schema"], "gilprof.report/1");
    assert_eq!(value["verdict"]["code"], "switch-to-processes");
    let unknown = json::render(&reports::unknown()).unwrap();
    assert!(!unknown.contains("NaN"));
    assert!(serde_json::from_str::<serde_json::Value>(&unknown).unwrap()["threads"][0]["cpu"].is_null());
}

#[test]
fn endings_choose_the_format() {
    for (path, format) in
        [("a.svg", FileFormat::Svg), ("b/C.JSON", FileFormat::Json), ("x.folded", FileFormat::Folded), ("x.folded.txt", FileFormat::Folded)]
    {
        assert_eq!(format_for_path(Path::new(path)).unwrap(), format);
    }
    for path in ["a.png", "svg", ".svg", "", "a.txt", "/"] {
        let message = format_for_path(Path::new(path)).unwrap_err().to_string();
        assert!([".svg", ".json", ".folded"].iter().all(|e| message.contains(e)), "{message}");
    }
}

/// The figures of a row of the threads table without the cpu column.
fn row_figures(line: &str) -> Vec<u32> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    let figures = &cells[1..cells.len() - 1];
    figures.iter().map(|c| if *c == "<1" { 0 } else { c.parse().unwrap() }).collect()
}

fn with_names(mut report: Report, name: &str) -> Report {
    report.target.python = name.into();
    report.target.executable = name.into();
    report.target.command = vec!["python".into(), name.into()];
    report.threads.iter_mut().for_each(|t| t.name = name.into());
    for f in &mut report.functions {
        (f.name, f.file) = (name.into(), name.into());
    }
    for b in &mut report.blame {
        b.waiter = reports::place(name, name, 1);
        b.holder = Some(reports::place(name, name, 1));
    }
    report.verdict.headline = format!("{name} waits");
    report.verdict.because.push(name.into());
    report.verdict.next_steps.push(name.into());
    report.findings.iter_mut().for_each(|f| (f.evidence, f.advice) = (name.into(), name.into()));
    report.warnings.push(name.into());
    report
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::support::cases(64)))]

    #[test]
    fn hostile_names_stay_on_their_line(name in any::<String>(), evil in "[\u{1b}\n\r\u{9b}\u{202e}\u{301}線;\" a-c]{0,600}", width in 0usize..200) {
        for name in [name, evil] {
            let report = with_names(reports::saturated(), &name);
            let lines = render(&report, Style { width, ..BARS }).lines().count();
            assert_page(&render(&report, Style { width, ..COLOUR }), width.clamp(Style::NARROWEST, Style::WIDEST));
            prop_assert!(lines < 200);
            let back: serde_json::Value = serde_json::from_str(&json::render(&report).unwrap()).unwrap();
            prop_assert_eq!(back["threads"][0]["name"].as_str().unwrap(), name);
        }
    }

    #[test]
    fn rows_add_to_100(shares in prop::array::uniform7(0.0f64..1.0), scale in 0.001f64..2.0) {
        let mut report = reports::saturated();
        let sum: f64 = shares.iter().sum::<f64>() / scale;
        report.threads = vec![reports::thread(1, "solo", 0.5, shares.map(|s| s / sum), [0.0; 4])];
        let text = render(&report, Style::PLAIN);
        let line = text.lines().find(|l| l.contains("solo")).unwrap();
        prop_assert_eq!(row_figures(line).iter().sum::<u32>(), 100);
    }

    #[test]
    fn any_figures_keep_the_width(x in any::<f64>(), n in any::<u64>()) {
        let mut report = reports::crowd();
        (report.window.seconds, report.window.samples, report.window.missed) = (x, n, n);
        (report.target.cpus, report.target.switch_interval_us) = (x, Some(n));
        report.gil.switches_per_s = Some(x);
        report.threads.iter_mut().for_each(|t| (t.cpu, t.seconds, t.states.holding) = (x, x, x));
        report.functions.iter_mut().for_each(|f| (f.holding, f.inflicted_wait, f.line) = (x, x, n as u32));
        report.verdict.gil_saturates_at = Some(x);
        report.verdict.speedup.processes.iter_mut().for_each(|e| e.estimate = x);
        assert_page(&render(&report, COLOUR), 80);
    }
}
