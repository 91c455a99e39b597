//! Programs that stand still while they are measured: frozen by their cgroup, or stopped by a
//! tracer. Stops by a signal are in `compat_life`.

use crate::complaining;
use crate::harness::Suite;
use crate::support::{self, checks, cli, compat};
use checks::{attach, number, Complaints};
use cli::{cpu_ticks, signal, until, warnings, Running};
use compat::{named, state, sum, summary};
use gilprof::ids::Tid;
use gilprof::process::sys_linux::ptrace;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use support::{interpreters, oldest_and_newest, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(
        suite,
        some(),
        [
            frozen_v1,
            frozen_v2,
            frozen_asleep_with_the_gil,
            frozen_in_a_threaded_group,
            stopped_by_a_debugger,
            stopped_often_by_a_tracer,
            holders_that_cannot_be_frozen
        ]
    );
}

fn some() -> Vec<Interpreter> {
    oldest_and_newest(interpreters().into_iter().filter(|i| [(3, 8), (3, 11), (3, 13), (3, 15)].contains(&i.minor())).collect())
}

/// A cgroup of the test's own in a hierarchy that can freeze.
struct Freezer {
    group: PathBuf,
    v2: bool,
    /// Mounted by the test.
    mounted: Option<PathBuf>,
}

impl Freezer {
    /// In a hierarchy that is mounted, or that can be.
    fn new(v2: bool) -> Result<Freezer, String> {
        if !support::is_root() {
            return Err("cgroups need root".into());
        }
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let fits = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            if v2 {
                words[2] == "cgroup2"
            } else {
                words[2] == "cgroup" && words[3].split(',').any(|option| option == "freezer")
            }
        };
        // Cases of one process may run beside each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("gilprof-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        for point in mounts.lines().filter(fits).filter_map(|line| line.split(' ').nth(1)) {
            if let Ok(freezer) = Freezer::make(Path::new(point).join(&name), v2, None) {
                return Ok(freezer);
            }
        }
        let point = support::scratch(&name);
        std::fs::create_dir_all(&point).unwrap();
        let mut mount = Command::new("mount");
        mount.args(if v2 { &["-t", "cgroup2", "none"][..] } else { &["-t", "cgroup", "-o", "freezer", "none"][..] }).arg(&point);
        if !mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Err(format!("no freezer of cgroup v{} can be mounted", 1 + u8::from(v2)));
        }
        Freezer::make(point.join(&name), v2, Some(point))
    }

    fn make(group: PathBuf, v2: bool, mounted: Option<PathBuf>) -> Result<Freezer, String> {
        let made = std::fs::create_dir(&group).map_err(|e| e.to_string());
        let freezer = Freezer { group, v2, mounted };
        let file = freezer.group.join(freezer.file());
        made.and_then(|()| if file.exists() { Ok(()) } else { Err(format!("{} is missing", file.display())) }).map(|()| freezer)
    }

    fn file(&self) -> &'static str {
        if self.v2 {
            "cgroup.freeze"
        } else {
            "freezer.state"
        }
    }

    fn add(&self, target: &Target) {
        std::fs::write(self.group.join("cgroup.procs"), target.pid().to_string()).unwrap();
    }

    fn freeze(&self) {
        let (word, state, frozen) = if self.v2 { ("1", "cgroup.events", "frozen 1") } else { ("FROZEN", "freezer.state", "FROZEN") };
        std::fs::write(self.group.join(self.file()), word).unwrap();
        until("it is frozen", || std::fs::read_to_string(self.group.join(state)).unwrap().contains(frozen));
    }

    fn thaw(&self) {
        let _ = std::fs::write(self.group.join(self.file()), if self.v2 { "0" } else { "THAWED" });
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        for process in std::fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = std::fs::write(self.group.with_file_name("cgroup.procs"), process);
        }
        let _ = std::fs::remove_dir(&self.group);
        if let Some(point) = &self.mounted {
            let _ = Command::new("umount").arg("-l").arg(point).status();
        }
    }
}

fn endless(target: &Target) -> Running {
    let running = Running::start(&["attach", "--pid", &target.pid().to_string(), "--duration", "0", "--format", "json"]);
    running.measures(target);
    running
}

/// Waits until a process has worked for some ticks of 10 ms.
fn works(pid: i32, ticks: u64) {
    let begin = cpu_ticks(pid);
    until("the process has worked", || cpu_ticks(pid) > begin + ticks);
}

/// What a report on the two workers of `life` says of the time in which they ran: one holds the GIL
/// while the other waits or lacks a core.
fn as_if_alone(what: &str, report: &Value, complaints: &mut Complaints) {
    let ran = 2.0 - sum(report, "worker-", "unknown");
    let held = sum(report, "worker-", "holding") / ran;
    complaints.expect((0.4..0.6).contains(&held) && ran < 1.95, || format!("{what}: held {held:.2} of {ran:.2}: {}", summary(report)));
    for worker in named(report, "worker-") {
        complaints.expect(state(worker, "io") < 0.03 && state(worker, "lock") < 0.03, || format!("{what}: {}", worker["states"]));
        complaints.expect(number(worker, "/holding/blocked") < 0.03, || format!("{what}: holds asleep: {worker}"));
    }
    let (code, gain) = (&report["verdict"]["code"], report.pointer("/verdict/speedup/processes/estimate").and_then(Value::as_f64));
    // Cores that others use, such as the tests beside this one, are none that processes gain.
    let shared = report["verdict"]["because"].to_string().contains("Other programs use");
    let gains = shared || gain.is_some_and(|gain| gain > 1.6);
    complaints.expect(code != "switch-to-processes" || gains, || format!("{what}: {}", report["verdict"]));
    let blamed = report["findings"].as_array().unwrap().iter().any(|f| f["code"] == "blocked-holding-gil");
    complaints.expect(code != "blocked-holding-gil" && !blamed, || format!("{what}: {} {}", report["verdict"], report["findings"]));
    eprintln!("{what}: {}, gain {gain:?}; {}", summary(report), warnings(report));
}

/// What a report says of a program that stood still for the whole window.
fn stood_still(what: &str, report: &Value, reason: &str, remedy: &str, complaints: &mut Complaints) {
    let verdict = &report["verdict"];
    let text = |field: &str| verdict[field].to_string();
    complaints.expect(verdict["code"] == "inconclusive" && text("headline").contains("stopped throughout"), || verdict.to_string());
    complaints.expect(text("because").contains(reason) && warnings(report).contains(reason), || {
        format!("{what}: no {reason:?} in {verdict} and {:?}", warnings(report))
    });
    complaints.expect(text("next_steps").contains(remedy) && !text("next_steps").contains("CONT"), || format!("{what}: {verdict}"));
    complaints.expect(named(report, "").iter().all(|t| state(t, "unknown") > 0.9), || format!("{what}: {}", summary(report)));
    complaints.expect(number(report, "/window/stopped_seconds") > 0.0, || report["window"].to_string());
    eprintln!("{what}: {verdict}");
}

fn frozen(interpreter: &Interpreter, v2: bool, complaints: &mut Complaints) {
    let freezer = match Freezer::new(v2) {
        Ok(freezer) => freezer,
        Err(why) => return support::skip(&format!("{}: {why}", interpreter.label)),
    };
    let target = Target::start(interpreter, "life", &[]);
    // Dropped before the target: a frozen process cannot end.
    let freezer = freezer;
    freezer.add(&target);
    let running = endless(&target);
    works(target.pid(), 40);
    freezer.freeze();
    works(running.pid(), 3);
    freezer.thaw();
    works(target.pid(), 40);
    running.signal(libc::SIGINT);
    let (report, path) = (running.end().ended(0, &[]).report(), freezer.group.display().to_string());
    as_if_alone("frozen meanwhile", &report, complaints);
    complaints.expect(warnings(&report).contains(&format!("frozen by its cgroup {path}")), || warnings(&report));

    freezer.freeze();
    let pid = target.pid().to_string();
    let thaw = if v2 { "echo 0 > " } else { "echo THAWED > " };
    stood_still("frozen", &attach(target.pid(), 0.4, &[]), &path, thaw, complaints);
    let stopped = cli::gilprof(&["attach", "--pid", &pid, "--duration", "400ms", "--freeze-holder"]);
    stopped.ended(0, &[&format!("pid {pid} is frozen by its cgroup {path}; let it go on: {thaw}")]).printed(&["stopped throughout"]);
    // Ctrl-C ends a window without an end.
    let endless = Running::start(&["attach", "--pid", &pid, "--duration", "0", "--freeze-holder", "--format", "json"]);
    works(endless.pid(), 3);
    endless.signal(libc::SIGINT);
    endless.end().ended(0, &[]);
    freezer.thaw();
}

fn frozen_v1(interpreter: &Interpreter, complaints: &mut Complaints) {
    frozen(interpreter, false, complaints);
}

fn frozen_v2(interpreter: &Interpreter, complaints: &mut Complaints) {
    frozen(interpreter, true, complaints);
}

/// All threads are in one threaded group, below the one that has the process and is not frozen.
fn frozen_in_a_threaded_group(interpreter: &Interpreter, complaints: &mut Complaints) {
    let whole = match Freezer::new(true) {
        Ok(whole) => whole,
        Err(why) => return support::skip(&format!("{}: {why}", interpreter.label)),
    };
    let target = Target::start(interpreter, "sleepers", &[]);
    let whole = whole;
    whole.add(&target);
    let threads = Freezer::make(whole.group.join("threads"), true, None).unwrap();
    std::fs::write(threads.group.join("cgroup.type"), "threaded").unwrap();
    let moves = |group: &Freezer, tid: Tid| std::fs::write(group.group.join("cgroup.threads"), tid.to_string()).unwrap();
    tids(target.pid()).for_each(|tid| moves(&threads, tid));
    threads.freeze();
    let stopped = |report: &Value| report.pointer("/window/stopped_seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let report = attach(target.pid(), 0.4, &[]);
    stood_still("a threaded group", &report, &threads.group.display().to_string(), threads.file(), complaints);
    // A group that has not all threads does not stop the program.
    moves(&whole, Tid(target.pid()));
    let report = attach(target.pid(), 0.4, &[]);
    complaints.expect(stopped(&report) == 0.0, || format!("stopped by a part of its threads: {}", report["window"]));
    threads.thaw();
    std::fs::write(whole.group.with_file_name("cgroup.procs"), target.pid().to_string()).unwrap();
}

/// No thread is outside a system call, so that only the cgroup tells.
fn frozen_asleep_with_the_gil(interpreter: &Interpreter, complaints: &mut Complaints) {
    for v2 in [false, true] {
        match Freezer::new(v2) {
            Ok(freezer) => {
                let target = Target::start(interpreter, "sleepers", &[]);
                let freezer = freezer;
                freezer.add(&target);
                freezer.freeze();
                let report = attach(target.pid(), 0.4, &[]);
                stood_still("sleepers", &report, &freezer.group.display().to_string(), freezer.file(), complaints);
            }
            Err(why) => support::leave_out(&format!("{}: {why}", interpreter.label)),
        }
    }
}

/// gdb attached to the target, which stands still until this is dropped.
struct Debugger(Child);

impl Debugger {
    fn attached(target: &Target) -> Option<Debugger> {
        let mut gdb = Command::new("gdb");
        gdb.args(["-q", "-batch", "-nx", "-p", &target.pid().to_string(), "-ex", "shell read x"]);
        let gdb = gdb.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        until("gdb has stopped all threads", || {
            let stat = |tid: Tid| std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", target.pid())).unwrap();
            tids(target.pid()).all(|tid| stat(tid).contains(") t "))
        });
        Some(Debugger(gdb))
    }
}

impl Drop for Debugger {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn stopped_by_a_debugger(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "life", &[]);
    let Some(gdb) = Debugger::attached(&target) else {
        return support::skip(&format!("{}: gdb is not installed", interpreter.label));
    };
    let (pid, name) = (target.pid().to_string(), format!("gdb (pid {})", gdb.0.id()));
    stood_still("gdb", &attach(target.pid(), 0.4, &[]), &name, &format!("end {name}"), complaints);
    let stopped = cli::gilprof(&["attach", "--pid", &pid, "--duration", "400ms", "--freeze-holder"]);
    stopped.ended(0, &[&format!("pid {pid} is stopped by {name}, which traces it; let it go on: end {name}")]);
    complaints.expect(!stopped.err.contains("CONT"), || stopped.err.clone());
    // A stop signal that arrives while the tracer is there changes nothing of that.
    signal(target.pid(), libc::SIGCONT);
    drop(gdb);
    works(target.pid(), 3);
    // On a busy machine a thread may have to wait for a core for a while before its state is known.
    let report = attach(target.pid(), 0.8, &[]);
    complaints.expect(sum(&report, "worker-", "unknown") < 0.2 && warnings(&report).is_empty(), || summary(&report));
}

fn tids(pid: i32) -> impl Iterator<Item = Tid> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.flatten().map(|task| Tid(task.file_name().to_str().unwrap().parse().unwrap()))
}

/// Stops all threads of the target for a millisecond, again and again, as py-spy does, until `end`.
fn stop_often(pid: i32, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        let seized: Vec<Tid> = tids(pid).filter(|&tid| ptrace::seize(tid).and_then(|()| ptrace::interrupt(tid)).is_ok()).collect();
        seized.iter().for_each(|&tid| until("the thread has stopped", || ptrace::is_stopped(tid)));
        std::thread::sleep(Duration::from_millis(1));
        seized.iter().for_each(|&tid| ptrace::detach(tid).unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn stopped_often_by_a_tracer(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "life", &[]);
    let end = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let (pid, end) = (target.pid(), &end);
        scope.spawn(move || stop_often(pid, end));
        // On a busy machine the tracer may have no core for a whole window.
        let stopped = |report: &Value| report["window"]["stopped_seconds"].as_f64().is_some_and(|seconds| seconds > 0.06);
        let mut report = attach(pid, 1.0, &[]);
        for _ in 0..3 {
            if !stopped(&report) {
                report = attach(pid, 1.0, &[]);
            }
        }
        end.store(true, Ordering::Relaxed);
        report
    });
    as_if_alone("stopped often", &report, complaints);
    let tracer = format!("(pid {}), which traces it", std::process::id());
    complaints.expect(warnings(&report).contains(&tracer), || warnings(&report));
}

/// A program that another tracer traces without stopping it.
fn holders_that_cannot_be_frozen(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "life", &[]);
    let target_pid = target.pid();
    let report = std::thread::scope(|scope| {
        let ((ready, traced), (end, ended)) = (mpsc::channel(), mpsc::channel::<()>());
        // The kernel detaches the target when this thread ends.
        scope.spawn(move || {
            tids(target_pid).for_each(|tid| ptrace::seize(tid).unwrap());
            ready.send(()).unwrap();
            let _ = ended.recv();
        });
        traced.recv().unwrap();
        let report = attach(target_pid, 0.4, &["--freeze-holder"]);
        drop(end);
        report
    });
    let tracer = format!("(pid {}), traces it", std::process::id());
    let said = warnings(&report);
    complaints.expect(said.contains("--freeze-holder could not stop") && said.contains(&tracer), || said.clone());
    complaints.expect(sum(&report, "worker-", "unknown") < 0.2, || summary(&report));
}
