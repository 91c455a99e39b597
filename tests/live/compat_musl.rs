//! Programs with musl, as in Alpine's images: recognised by what is mapped, and measured like those
//! with glibc. The other modules have the figures; this one has what only musl does.

use crate::harness::Suite;
use crate::support::{self, checks, cli, compat};
use crate::{complaining, on, row};
use checks::{attach, number, Complaints};
use compat::{named, not_computing, summary, unsound, workload};
use gilprof::ids::Pid;
use gilprof::process::c_library::CLibrary;
use gilprof::process::kernel_events::KernelEvents;
use gilprof::process::live::LiveMemory;
use gilprof::process::maps::Maps;
use std::collections::HashMap;
use std::process::Command;
use std::time::Instant;
use support::{skip, window, Folder, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, cli::two_interpreters(), [a_file_of_musls_name_is_not_musl]);
    complaining!(
        suite,
        with_musl(),
        [musls_loader_by_another_name, the_kernel_engine_finds_waiters, shares_are_those_of_clocks_and_counts]
    );
}

fn with_musl() -> Vec<Interpreter> {
    let found: Vec<Interpreter> = support::with_musl();
    if found.is_empty() {
        skip("musl: scripts/setup-pythons found no interpreter with it");
    }
    found
}

fn c_library(target: &Target) -> CLibrary {
    let pid = Pid(target.pid());
    CLibrary::of(&LiveMemory::new(pid), &Maps::from_pid(pid).unwrap())
}

/// A process with glibc that has mapped a file of the name of musl's loader.
fn a_file_of_musls_name_is_not_musl(interpreter: &Interpreter) {
    let folder = Folder::new("musl");
    let file = folder.path().join("ld-musl-x86_64.so.1");
    std::fs::write(&file, vec![0; 4096]).unwrap();
    let code = format!(
        "import mmap, os\nfile = open({file:?}, 'rb')\n\
         mapped = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)\nos.write(1, b'ready\\n')\nos.read(0, 1)"
    );
    let mut command = interpreter.command();
    command.args(["-c", &code]);
    let target = Target::start_command(command);
    assert_eq!(c_library(&target), CLibrary::Glibc, "{}", interpreter.label);
    let output = cli::gilprof(&["attach", "--pid", &target.pid().to_string(), "--duration", "300ms"]);
    output.ended(0, &[]);
    row!(interpreter.label, "a mapped {} is not taken for musl", file.display());
}

/// The loader is mapped under the name by which it was called, and no file is named like musl.
fn musls_loader_by_another_name(interpreter: &Interpreter, complaints: &mut Complaints) {
    let root = interpreter.root.as_ref().unwrap();
    let folder = Folder::create(root.join(format!("tmp/gilprof-loader-{}", std::process::id())));
    let loader = std::fs::read_dir(root.join("lib")).unwrap().flatten().map(|entry| entry.path());
    let loader = loader.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("ld-musl-")).unwrap();
    std::fs::copy(&loader, folder.path().join("start")).unwrap();
    for name in ["cpu", "harness"] {
        std::fs::copy(workload(name), folder.path().join(name).with_extension("py")).unwrap();
    }
    let inside = std::path::Path::new("/").join(folder.path().strip_prefix(root).unwrap());
    let mut command = Command::new("chroot");
    command.arg(root).arg(inside.join("start")).arg(&interpreter.path).arg("-B").arg(inside.join("cpu.py"));
    let target = Target::start_command(command);
    let maps = Maps::from_pid(Pid(target.pid())).unwrap();
    let named =
        maps.mappings.iter().filter_map(|mapping| mapping.file_name()).any(|name| name.starts_with("ld-musl") || name.starts_with("libc."));
    complaints.expect(!named, || "some file is named like musl".to_owned());
    complaints.expect(c_library(&target) == CLibrary::Musl, || format!("{:?}", c_library(&target)));
    let report = attach(target.pid(), window(0.7, 0.4), &[]);
    row!(interpreter.label, "by the loader's own name: {}", summary(&report));
    not_computing(&report, 3).into_iter().for_each(|what| complaints.add(&what));
}

/// Its waiters sleep at addresses on their stacks; the kernel's programs follow its lists.
fn the_kernel_engine_finds_waiters(interpreter: &Interpreter, complaints: &mut Complaints) {
    if let Err(why) = KernelEvents::open(1000.0) {
        return support::skip(&format!("kernel events: {why}"));
    }
    let target = Target::start(interpreter, "cpu", &[]);
    let report = attach(target.pid(), window(0.7, 0.4), &["--engine", "kernel"]);
    row!(interpreter.label, "--engine kernel: {}", summary(&report));
    complaints.expect(report["window"]["engine"] == "kernel", || report["window"].to_string());
    not_computing(&report, 3).into_iter().for_each(|what| complaints.add(&what));
}

/// The largest difference from what the workload's clocks and counts say: the bound of accuracy,
/// and what attaching adds, during which the clocks run too.
const NEAR: f64 = 0.05;

/// A thread that sleeps for nothing but the GIL waits whenever it does not run, but for some of its
/// time in the run queue; the kernel counts both. What others sleep for is known from the workload.
/// That needs no symbols, and no knowledge of musl.
fn shares_are_those_of_clocks_and_counts(interpreter: &Interpreter, complaints: &mut Complaints) {
    for (name, args) in [("cpu", &["--threads", "3"][..]), ("released", &["--sha", "--half"]), ("convoy", &["--short", "2"])] {
        let target = Target::start(interpreter, name, args);
        let (before, begun) = (clocks(target.pid()), Instant::now());
        let report = attach(target.pid(), window(2.0, 1.2), &[]);
        let (after, seconds) = (clocks(target.pid()), begun.elapsed().as_secs_f64());
        row!(interpreter.label, "{name} {}: {}", args.join(" "), summary(&report));
        unsound(&report).into_iter().for_each(|what| complaints.add(&what));
        for thread in named(&report, "worker-").into_iter().chain(named(&report, "hog-")) {
            let of = |state: &str| compat::state(thread, state);
            let tid = thread["tid"].as_i64().unwrap();
            let [cpu, queue] = [0, 1].map(|n| (after[&tid][n] - before[&tid][n]) / seconds);
            let (waiting, most) = (of("waiting"), 1.0 - cpu);
            let running = of("holding") - number(thread, "/holding/starved") + of("native");
            let what = format!("{name}: {} runs {cpu:.3} and is queued {queue:.3} by the clocks: {}", thread["name"], thread["states"]);
            row!(interpreter.label, "{what}");
            let right = (most - queue - NEAR..most + NEAR).contains(&waiting) && (running - cpu).abs() < NEAR;
            complaints.expect(right, || what);
        }
        let short = named(&report, "short-");
        let (count, waiting) = (short.len() as f64, short.iter().map(|t| compat::state(t, "waiting")).sum::<f64>());
        let last = target.finish().1.unwrap();
        if count > 0.0 {
            // A turn is a pause of one millisecond, what the kernel's timers add, and a wait.
            let turns = number(&last, "/done") / number(&last, "/seconds");
            let expected = count - turns * 0.00106;
            let what = format!("{turns:.0} turns a second: the short ones wait {waiting:.3}, not {expected:.3}");
            row!(interpreter.label, "{what}");
            complaints.expect((waiting - expected).abs() < count * NEAR, || what);
        }
    }
    for (name, state) in [("lock", "lock"), ("sleepers", "io")] {
        let target = Target::start(interpreter, name, &[]);
        let report = attach(target.pid(), window(0.7, 0.4), &[]);
        row!(interpreter.label, "{name}: {}", summary(&report));
        let mut others = named(&report, "").into_iter().filter(|t| t["name"] != "MainThread");
        complaints.expect(others.all(|t| compat::state(t, state) > 1.0 - NEAR), || summary(&report));
    }
}

/// The CPU time of each thread and its time in the run queue, in seconds.
fn clocks(pid: i32) -> HashMap<i64, [f64; 2]> {
    let of = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        let mut words = stat.split_ascii_whitespace().map(|word| word.parse::<f64>().unwrap() / 1e9);
        (task.file_name().to_str().unwrap().parse().unwrap(), [words.next().unwrap(), words.next().unwrap()])
    };
    std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| of(task.unwrap())).collect()
}
