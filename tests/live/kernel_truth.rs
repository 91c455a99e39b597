//! The kernel engine against a source that shares no code with it: bpftrace's uprobes on `take_gil`
//! and `drop_gil` of unstripped interpreters.
//!
//! An actual wait is a `take_gil` that slept in futex(2), from its first sleep to its last
//! instruction. Time before that, without a CPU on a busy machine, is not waiting for the GIL. An
//! actual forced switch is a whole `drop_gil` followed by a `take_gil` at once (the thread had a
//! drop request, and may have been preempted on the way). Of any other `drop_gil`, only the sleep
//! in futex(2) counts. Both are cut to the window that gilprof reports. The test prints both
//! figures; the bounds are those of the promised accuracy.

use crate::harness::{newest, Suite};
use crate::on;
use crate::support;
use gilprof::capture::session::{CaptureConfig, Engine};
use gilprof::capture::target::Target as Measured;
use gilprof::ids::ThreadId;
use gilprof::sample::*;
use gilprof::units::Nanos;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use support::{Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, unstripped(), [waits_are_those_of_take_gil]);
    on!(suite, newest(unstripped()), [waits_of_other_programs]);
}

/// gilprof's figures for one thread.
#[derive(Clone, Debug, Default)]
struct Reported {
    name: String,
    tid: i32,
    seen: f64,
    times: StateTimes,
    waits: u64,
}

/// Keeps every figure.
#[derive(Default)]
struct Record {
    threads: HashMap<ThreadId, Reported>,
    samples: Option<(Nanos, Nanos)>,
}

impl Sink for Record {
    fn thread(&mut self, info: &ThreadInfo) {
        let thread = self.threads.entry(info.id).or_default();
        (thread.name, thread.tid) = (info.name.clone(), info.tid.0);
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.threads.entry(slice.thread).or_default().times.merge(&slice.times);
    }

    fn gil(&mut self, sample: &GilSample) {
        self.samples = Some((self.samples.map_or(sample.at, |first| first.0), sample.at));
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        let thread = self.threads.entry(measured.thread).or_default();
        match measured.kind {
            IntervalKind::Wait => thread.waits += 1,
            IntervalKind::Hold | IntervalKind::ForcedSwitch => {}
        }
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.threads.entry(thread).or_default().seen = totals.seen.as_secs_f64();
    }
}

/// Nanoseconds. Longer than any `take_gil` of the workloads: of eight threads, each waits for seven
/// switch intervals of 5 ms.
const LONGEST_CALL: u64 = 400_000_000;

/// An actual interval.
#[derive(Clone, Copy, Debug)]
struct Actual {
    take: bool,
    tid: i32,
    begin: u64,
    end: u64,
}

/// A running bpftrace, killed when dropped.
struct Truth {
    child: Child,
    lines: Receiver<String>,
}

/// The compiler makes copies such as `take_gil.constprop.0` (3.8).
const PROGRAM: &str = r#"
uprobe:LIB:take_gil* /pid == PID/ {
  if (nsecs - @back[tid] < 50000) { printf("0 %d %lu %lu\n", tid, @went[tid], nsecs); }
  else if (@fell[tid]) { printf("0 %d %lu %lu\n", tid, @fell[tid], @rose[tid]); }
  @take[tid] = nsecs; @slept[tid] = 0; @back[tid] = 0; @fell[tid] = 0;
}
uprobe:LIB:drop_gil /pid == PID/ { @drop[tid] = nsecs; @slept[tid] = 0; }
tracepoint:syscalls:sys_enter_futex /pid == PID && ((args->op & 127) == 0 || (args->op & 127) == 9)/ { @asks[tid] = 1; }
tracepoint:sched:sched_switch /@asks[args->prev_pid] && (args->prev_state & 255)/ { if (@slept[args->prev_pid] == 0) { @slept[args->prev_pid] = nsecs; } }
tracepoint:syscalls:sys_exit_futex /pid == PID/ { @asks[tid] = 0; if (@drop[tid]) { @woke[tid] = nsecs; } }
uretprobe:LIB:take_gil* /@take[tid]/ { if (@slept[tid]) { printf("1 %d %lu %lu\n", tid, @slept[tid], nsecs); } delete(@take[tid]); }
uretprobe:LIB:drop_gil /@drop[tid]/ { @went[tid] = @drop[tid]; @back[tid] = nsecs; @fell[tid] = @slept[tid]; @rose[tid] = @woke[tid]; delete(@drop[tid]); }
"#;

impl Truth {
    /// Starts bpftrace and waits for its first line. The tracefs that it needs is mounted in a
    /// namespace of its own.
    fn watch(pid: i32) -> Result<Truth, String> {
        let program = PROGRAM.replace("PID", &pid.to_string()).replace("LIB", &library(pid));
        let script = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec bpftrace -B line -e \"$0\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, &program]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.env("BPFTRACE_PERF_RB_PAGES", "1024").spawn().map_err(|e| format!("unshare: {e}"))?;
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let err = BufReader::new(child.stderr.take().unwrap());
        let complaint = std::thread::spawn(move || err.lines().map_while(Result::ok).collect::<Vec<_>>().join("; "));
        let truth = Truth { child, lines };
        let mut first = None;
        loop {
            match truth.lines.recv_timeout(support::PATIENCE).map(|line| parse(&line)) {
                // Calls that had begun before bpftrace are not seen. After this time none is left.
                Ok(Some(interval)) if interval.begin > *first.get_or_insert(interval.begin) + LONGEST_CALL => return Ok(truth),
                Ok(_) => {}
                Err(_) => {
                    drop(truth);
                    return Err(format!("bpftrace printed nothing: {}", complaint.join().unwrap()));
                }
            }
        }
    }

    /// All intervals until now and for a while longer, so that those in progress are complete.
    fn finish(mut self, until: Nanos) -> Vec<Actual> {
        let mut all = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(support::PATIENCE) {
            let Some(interval) = parse(&line) else { continue };
            all.push(interval);
            if interval.begin > until.as_nanos() + LONGEST_CALL {
                break;
            }
        }
        self.stop();
        all
    }

    fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.stop();
    }
}

fn parse(line: &str) -> Option<Actual> {
    let [take, tid, begin, end] = line.split(' ').map(|w| w.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?.try_into().ok()?;
    Some(Actual { take: take == 1, tid: tid as i32, begin, end })
}

/// The file that contains the interpreter's code.
fn library(pid: i32) -> String {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let found = maps.lines().filter_map(|l| l.split_once('/')).find(|(_, path)| path.contains("libpython"));
    found.map_or_else(|| format!("/proc/{pid}/exe"), |(_, path)| format!("/{path}"))
}

fn measure(pid: i32, ms: u64) -> Option<(Record, CaptureStats)> {
    let config = CaptureConfig { duration: Some(Nanos::from_millis(ms)), engine: Engine::Kernel, ..CaptureConfig::default() };
    let mut record = Record::default();
    let window = Measured::attach(pid).unwrap().config(config).run(&mut record).unwrap();
    if !window.stats.exact {
        support::skip(&format!("kernel engine: {}", window.stats.warnings.join("; ")));
        return None;
    }
    Some((record, window.stats))
}

/// The errors of one run.
#[derive(Debug)]
struct Errors {
    /// The worst thread's error, as a share of its time.
    waiting: f64,
    /// The relative error of the number of all waits. Waits at the two ends of the window may fall
    /// on either side.
    count: f64,
    /// The share of the CPUs' time that a hypervisor took meanwhile. The kernel does not know which
    /// threads lost it.
    stolen: f64,
}

impl Errors {
    fn hold(&self) -> bool {
        let waiting = if support::all() { WAITING } else { 2.0 * WAITING };
        self.waiting <= if self.stolen > STOLEN { 4.0 * waiting } else { waiting } && self.count <= COUNT
    }
}

/// Time that a hypervisor took from the CPUs so far, and all time, in the kernel's ticks.
fn ticks() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let words: Vec<f64> = stat.lines().next().unwrap().split_whitespace().skip(1).take(8).map(|w| w.parse().unwrap()).collect();
    (words[7], words.iter().sum())
}

/// Measures a workload in both ways. `None` where that is not possible.
fn compare(interpreter: &Interpreter, workload: &str, args: &[&str], ms: u64) -> Option<Errors> {
    let target = Target::start(interpreter, workload, args);
    let truth = match Truth::watch(target.pid()) {
        Ok(truth) => truth,
        Err(why) => {
            support::skip(&format!("kernel events to compare with on {}: {why}", interpreter.label));
            return None;
        }
    };
    let before = ticks();
    let (record, stats) = measure(target.pid(), ms)?;
    let after = ticks();
    let stolen = (after.0 - before.0) / (after.1 - before.1).max(1.0);
    let (first, last) = record.samples.unwrap();
    let (from, to) = (first.as_nanos(), last.as_nanos());
    let mut actual: BTreeMap<i32, (f64, u64)> = BTreeMap::new();
    for interval in truth.finish(last).iter().filter(|s| s.begin < to && s.end > from) {
        let cell = actual.entry(interval.tid).or_default();
        cell.0 += (interval.end.min(to) - interval.begin.max(from)) as f64;
        cell.1 += u64::from(interval.take);
    }
    println!(
        "{} {workload} {args:?}: {} kernel events, {} lost",
        interpreter.label,
        stats.events.events,
        stats.events.lost_events.unwrap()
    );
    let mut threads: Vec<&Reported> = record.threads.values().collect();
    threads.sort_by_key(|t| t.tid);
    let mut waiting: f64 = 0.0;
    // Threads with a life of a few samples are checked together, by their counts.
    for thread in threads.iter().filter(|t| t.seen > ms as f64 / 2e3) {
        let (waited, count) = actual.get(&thread.tid).copied().unwrap_or_default();
        let (reported, real) = (thread.times.get(State::Waiting) / thread.times.total(), waited / thread.times.total());
        println!("  {:<14} waiting {reported:.4}, actual {real:.4}; waits {}, actual {count}", thread.name, thread.waits);
        waiting = waiting.max((reported - real).abs());
    }
    let all_reported: f64 = threads.iter().map(|t| t.times.get(State::Waiting)).sum();
    let all_actual: f64 = actual.values().map(|c| c.0).sum();
    waiting = waiting.max((all_reported - all_actual).abs() / threads.iter().map(|t| t.times.total()).sum::<f64>());
    let (waits, count) = (threads.iter().map(|t| t.waits).sum::<u64>(), actual.values().map(|c| c.1).sum::<u64>());
    let errors = Errors { waiting, count: (waits as f64 - count as f64).abs() / (count as f64).max(1.0), stolen };
    println!(
        "  worst waiting {:.4}; all waits {waits}, actual {count}, off by {:.2} %; stolen {stolen:.3}",
        errors.waiting,
        100.0 * errors.count
    );
    Some(errors)
}

/// Programs whose threads wait all the time, so that every second has events to compare.
const WORKLOADS: [(&str, &[&str]); 5] =
    [("cpu", &["--threads", "3"]), ("cpu", &["--threads", "8"]), ("mixed", &[]), ("churn", &[]), ("convoy", &["--short", "2"])];
/// The promised accuracy, of windows of five seconds. For waiting twice as much in the short ones,
/// in which one wait of some milliseconds is .004 of a thread's time, and four times as much if a
/// hypervisor took more than this share of the CPUs' time.
const WAITING: f64 = 0.005;
const STOLEN: f64 = 0.04;
const COUNT: f64 = 0.01;

fn waits_are_those_of_take_gil(interpreter: &Interpreter) {
    compared(interpreter, &WORKLOADS[..1]);
}

/// On the newest interpreter with symbols. `python3 scripts/eval accuracy --engine kernel` measures
/// more.
fn waits_of_other_programs(interpreter: &Interpreter) {
    compared(interpreter, if support::all() { &WORKLOADS[1..] } else { &WORKLOADS[2..] });
}

fn compared(interpreter: &Interpreter, workloads: &[(&str, &[&str])]) {
    if !support::is_root() {
        return support::skip("the kernel engine against uprobes: needs root");
    }
    let ms = if support::all() { 5000 } else { 1500 };
    for (workload, args) in workloads {
        let Some(errors) = compare(interpreter, workload, args, ms) else { return };
        assert!(errors.hold(), "{} {workload} {args:?}: {errors:?}", interpreter.label);
    }
}

/// uprobes need the names of `take_gil` and `drop_gil`.
fn unstripped() -> Vec<Interpreter> {
    support::interpreters().into_iter().filter(Interpreter::has_static_names).collect()
}
