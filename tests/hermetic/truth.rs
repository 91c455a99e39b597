//! Kept samples, classified again, against the kernel's events of the same run. No live program
//! runs.
//!
//! `python3 scripts/eval accuracy --keep tests/dumps/truth` made them; `scripts/eval replay` prints
//! the same figures thread by thread.

use flate2::read::MultiGzDecoder;
use gilprof::estimate::raw_stream::RawReader;
use gilprof::estimate::replay::replay;
use gilprof::estimate::rules::Rules;
use gilprof::ids::Tid;
use gilprof::sample::{Resolver, State, StateTimes};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// Largest and mean error of `waiting`: the best evidence, whether other programs compete, bounds.
/// Those of kernel stacks and of counts of switches are of docs/accuracy.md; CPU time, which is
/// left where neither tells, has what it has.
const BOUNDS: [(Resolver, bool, f64, f64); 6] = [
    (Resolver::KernelStack, false, 0.03, 0.01),
    (Resolver::KernelStack, true, 0.05, 0.01),
    (Resolver::SwitchCounts, false, 0.05, 0.01),
    (Resolver::SwitchCounts, true, 0.08, 0.02),
    (Resolver::CpuTime, false, 0.07, 0.01),
    (Resolver::CpuTime, true, 0.20, 0.045),
];
/// Share of a thread's time that the probes may use: `DISTURBED` of scripts/eval.
const DISTURBED: f64 = 0.05;

/// Share of the CPUs' time that the hypervisor may steal: `STOLEN` there.
const STOLEN: f64 = 0.04;

struct Kept {
    name: String,
    stream: Vec<u8>,
    truth: Value,
}

fn kept() -> Vec<Kept> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/truth");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let mut stream = Vec::new();
        MultiGzDecoder::new(std::fs::File::open(&path).unwrap()).read_to_end(&mut stream).unwrap();
        let last = stream.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap();
        let truth = serde_json::from_slice(last.strip_prefix(b"# ").unwrap()).unwrap();
        Kept { name: path.file_stem().unwrap().to_string_lossy().into_owned(), stream, truth }
    };
    paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "gz")).map(read).collect()
}

/// The error of a thread's `waiting`, to the nearest value that the events leave possible: `error`
/// of scripts/eval/accuracy/table.py. `None` for a thread that the probes disturbed.
fn error(row: &Value, times: &StateTimes) -> Option<f64> {
    let actual = |key: &str| row["actual"][key].as_f64().unwrap_or(0.0);
    if actual("inside") > DISTURBED {
        return None;
    }
    let reported = times.get(State::Waiting) / 1e9 / row["life"].as_f64()?;
    let off = reported - actual("waiting");
    let (below, above) = (actual("doubt") + actual("ending"), actual("trapped") + actual("unsigned"));
    Some(if off > 0.0 { (off - above).max(0.0) } else { (off + below).min(0.0) })
}

#[test]
fn kept_samples_give_the_actual_states() {
    let all = kept();
    assert!(all.len() >= 30, "tests/dumps/truth has {} files", all.len());
    let mut complaints = Vec::new();
    for (resolver, loaded, worst_bound, mean_bound) in BOUNDS {
        let mut errors: Vec<(f64, String)> = Vec::new();
        for one in all.iter().filter(|one| one.truth["loaded"] == loaded && one.truth["facts"]["stolen"].as_f64() <= Some(STOLEN)) {
            let replayed = replay(&mut RawReader::new(one.stream.as_slice()).unwrap(), resolver, Rules::default()).unwrap();
            let by_tid: BTreeMap<Tid, StateTimes> = replayed.threads;
            for row in one.truth["threads"].as_array().unwrap() {
                let times = by_tid.get(&Tid(row["tid"].as_i64().unwrap() as i32)).unwrap_or_else(|| panic!("{}: {row}", one.name));
                errors.extend(error(row, times).map(|off| (off.abs(), format!("{}, {}", one.name, row["name"]))));
            }
        }
        assert!(!errors.is_empty(), "{resolver:?}, loaded {loaded}: no file");
        let mean = errors.iter().map(|(off, _)| off).sum::<f64>() / errors.len() as f64;
        let (worst, on) = errors.iter().max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
        let line = format!("{resolver:?}, loaded {loaded}: worst {worst:.4} on {on}, mean {mean:.4}, {} threads", errors.len());
        println!("{line}");
        if *worst > worst_bound || mean > mean_bound {
            complaints.push(format!("{line}; bounds {worst_bound} and {mean_bound}"));
        }
    }
    assert!(complaints.is_empty(), "{complaints:#?}");
}
