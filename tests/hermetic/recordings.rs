//! Recordings that are odd, hostile or old.

use crate::support::{cli::gilprof, scratch};
use std::fs;
use std::path::Path;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn unreadable_files_are_refused_with_a_reason() {
    let file = scratch("odd.gilprof");
    for (bytes, says) in
        [(&b"\x7fELF"[..], "is no recording"), (b"gilprof\0\x09\0\0\0", "a newer gilprof wrote it (format 9"), (b"", "is no recording")]
    {
        fs::write(&file, bytes).unwrap();
        gilprof(&["report", text(&file)]).ended(12, &[says, "odd.gilprof"]);
        gilprof(&["diff", text(&file), text(&file)]).ended(12, &[says]);
        // An option that the command does not take harms no file.
        gilprof(&["report", text(&file), "-o", text(&file)]).ended(2, &["cannot write the recording"]);
        gilprof(&["diff", text(&file), text(&file), "-o", text(&file)]).ended(2, &[".svg"]);
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    fs::remove_file(&file).unwrap();
    gilprof(&["report", text(&file)]).ended(12, &["No such file"]);
    gilprof(&["report", "/"]).ended(12, &["it is a directory"]);
    gilprof(&["report", "/dev/null"]).ended(12, &["no regular file"]);
    gilprof(&["report"]).ended(2, &["FILE"]);
}

/// Facts and times that no program has. The results are meaningless, but gilprof ends without a
/// panic.
#[test]
fn hostile_recordings_do_no_harm() {
    use gilprof::ids::{GilId, ThreadId, Tid};
    use gilprof::profile::file::Recorder;
    use gilprof::sample::*;
    use gilprof::units::Nanos;
    use std::sync::Arc;
    const NAME: &str = "\x1b]0;x\x07<script>\n;#\u{202e}";
    let (file, most) = (scratch("hostile.gilprof"), Nanos::from_nanos(u64::MAX));
    let numbers = [f64::MAX, -f64::MAX, 0.0, -1.0, 1e-300, 1e17, 3.0];
    for (n, number) in numbers.into_iter().enumerate() {
        let mut recorder = Recorder::new(fs::File::create(&file).unwrap());
        let function = Arc::new(Function { name: NAME.into(), file: NAME.into(), first_line: u32::MAX });
        let stack = Arc::new(Stack { frames: vec![Frame { function, line: u32::MAX }; 3000], status: StackStatus::Torn });
        for id in [0, 1, u32::MAX] {
            let (tid, gil) = (Tid(i32::MIN), GilId(u32::MAX - 1 - id % 2));
            recorder.thread(&ThreadInfo { id: ThreadId(id), tid, name: NAME.into(), python: true, main: true, gil: Some(gil) });
            for (end, length) in [(u64::MAX, 9e16), (0, 1e6), (u64::MAX, 1e6), (5, 9e16)] {
                for (state, evidence) in [(State::HoldingBlocked, Evidence::GilHolder), (State::Waiting, Evidence::Conservation)] {
                    let mut times = StateTimes::single(state, length);
                    times.add(State::Native, length);
                    let (end, holder) = (Nanos::from_nanos(end), Some((ThreadId(1), &stack)));
                    recorder.slice(&StateSlice { thread: ThreadId(id), end, times, evidence, stack: &stack, holder });
                }
            }
            for at in [most, Nanos::ZERO, most] {
                let holder = [Holder::Thread(ThreadId(id)), Holder::Unmatched, Holder::Nobody][n % 3];
                recorder.gil(&GilSample {
                    gil,
                    at,
                    span: most,
                    holder,
                    switches: Some(at.as_nanos()),
                    waiters: u32::MAX,
                    collecting: Some(true),
                });
                recorder.interval(&MeasuredInterval { thread: ThreadId(id), gil, kind: IntervalKind::Wait, begin: most, end: at });
            }
            recorder.thread_end(ThreadId(id), ThreadTotals { cpu: most, run_queue: most, seen: [Nanos::ZERO, most][n % 2] });
        }
        let command = vec![NAME.into(); 3];
        let target = TargetInfo {
            pid: i32::MIN,
            python: NAME.into(),
            command,
            cpus: number,
            quota: Some(number),
            machine_cpus: Some(-number),
            interpreters: u32::MAX,
            switch_interval_us: Some(u64::MAX),
            gil_enabled: n % 2 == 0,
            ..TargetInfo::default()
        };
        let window = CaptureStats {
            begin: [most, Nanos::ZERO][n % 2],
            seconds: number,
            rate_hz: number,
            counts: SampleCounts { samples: u64::MAX, missed: u64::MAX, torn: u64::MAX, failed: u64::MAX },
            profiler_cpu: number,
            exact: n % 2 == 0,
            events: EventCounts { events: u64::MAX, lost_events: None },
            warnings: vec![NAME.into()],
            descendants: Some(DescendantCpu {
                own: Nanos::from_nanos(n as u64),
                python: most,
                python_processes: u32::MAX,
                largest: vec![Descendant { pid: i32::MIN, command: NAME.into(), kind: ProcessKind::Python, cpu: most, ended: false }; 40],
                ..DescendantCpu::default()
            }),
            ..CaptureStats::default()
        };
        recorder.finish(&target, &window).unwrap();
        let made = ["x.json", "x.svg", "x.folded", "x.pb.gz", "x.speedscope.json", "x.firefox.json", "x.pftrace"].map(scratch);
        let mut words = vec!["report", text(&file), "--flame", "wall"];
        made.iter().for_each(|path| words.extend(["-o", text(path)]));
        let output = gilprof(&words);
        output.ended(0, &[]);
        assert!(!output.out.contains(['\x1b', '\u{202e}']), "{output:?}");
        gilprof(&["diff", text(&file), text(&file)]).ended(0, &[]);
        made.iter().for_each(|path| fs::remove_file(path).unwrap());
    }
    fs::remove_file(file).unwrap();
}

/// `tests/dumps/recordings/vN.gilprof`, each written by the first gilprof with format N, and the
/// figures that every later version must read from it.
#[test]
fn recordings_of_every_version_stay_readable() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/recordings");
    for version in 1..=gilprof::profile::file::VERSION {
        let file = folder.join(format!("v{version}.gilprof"));
        let output = gilprof(&["report", text(&file), "--format", "json"]);
        let report = output.ended(0, &[]).report();
        let golden: serde_json::Value = serde_json::from_str(&fs::read_to_string(file.with_extension("json")).unwrap()).unwrap();
        for part in ["target", "window", "gil", "threads", "functions", "blame"] {
            // Later versions may add fields.
            assert!(contains(&report[part], &golden[part]), "{part} of {file:?} is now {:#}", report[part]);
        }
    }
}

fn contains(now: &serde_json::Value, then: &serde_json::Value) -> bool {
    match (now, then) {
        (serde_json::Value::Object(now), serde_json::Value::Object(then)) => {
            then.iter().all(|(key, then)| now.get(key).is_some_and(|now| contains(now, then)))
        }
        (serde_json::Value::Array(now), serde_json::Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| contains(now, then))
        }
        (now, then) => now == then,
    }
}
