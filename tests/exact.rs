//! Exact mode against a truth that shares no code with it: bpftrace's uprobes on `take_gil` and `drop_gil` of unstripped interpreters.
//!
//! A true wait is a `take_gil` that slept in futex(2), from its first instruction to its last; a true hand-over is a `drop_gil` that did.
//! Both are cut to the window that gilprof says it looked at. Prints what each said; the bounds are those of the accuracy promised.

#![allow(clippy::unwrap_used)] // clippy knows tests, not their helpers

mod support;

use gilprof::capture::sampler::{self, Plan};
use gilprof::ids::{Pid, ThreadId};
use gilprof::python::attach::Python;
use gilprof::sample::*;
use gilprof::units::Nanos;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{channel, Receiver};
use support::{Interpreter, Target};

/// What gilprof said of one thread.
#[derive(Clone, Debug, Default)]
struct Said {
    name: String,
    tid: i32,
    seen: f64,
    split: Split,
    waits: u64,
    stretches: Vec<(u64, u64)>,
    holds: Vec<f64>,
}

/// Keeps all.
#[derive(Default)]
struct Record {
    threads: HashMap<ThreadId, Said>,
    looks: Option<(Nanos, Nanos)>,
}

impl Sink for Record {
    fn thread(&mut self, facts: &ThreadFacts) {
        let said = self.threads.entry(facts.id).or_default();
        (said.name, said.tid) = (facts.name.clone(), facts.tid.0);
    }

    fn slice(&mut self, slice: &Slice<'_>) {
        self.threads.entry(slice.thread).or_default().split.merge(&slice.split);
    }

    fn gil(&mut self, look: &GilLook) {
        self.looks = Some((self.looks.map_or(look.at, |l| l.0), look.at));
    }

    fn exact(&mut self, measured: &Exact) {
        let said = self.threads.entry(measured.thread).or_default();
        match measured.stretch {
            Stretch::Wait => {
                said.stretches.push((measured.begin.as_nanos(), measured.end.as_nanos()));
                said.waits += 1
            }
            Stretch::Hold => said.holds.push(measured.end.since(measured.begin).as_millis_f64()),
            Stretch::HandOver => {}
        }
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.threads.entry(thread).or_default().seen = totals.seen.as_secs_f64();
    }
}

/// A true stretch.
#[derive(Clone, Copy, Debug)]
struct True {
    take: bool,
    tid: i32,
    begin: u64,
    end: u64,
}

/// bpftrace at work. Gone when dropped.
struct Truth {
    child: Child,
    lines: Receiver<String>,
}

const PROGRAM: &str = r#"
uprobe:LIB:take_gil /pid == PID/ { @take[tid] = nsecs; @slept[tid] = 0; }
uprobe:LIB:drop_gil /pid == PID/ { @drop[tid] = nsecs; @slept[tid] = 0; }
tracepoint:syscalls:sys_enter_futex /pid == PID && ((args->op & 127) == 0 || (args->op & 127) == 9)/ { @slept[tid] = 1; }
uretprobe:LIB:take_gil /@take[tid]/ { if (@slept[tid]) { printf("1 %d %lu %lu\n", tid, @take[tid], nsecs); } delete(@take[tid]); }
uretprobe:LIB:drop_gil /@drop[tid]/ { if (@slept[tid]) { printf("0 %d %lu %lu\n", tid, @drop[tid], nsecs); } delete(@drop[tid]); }
"#;

impl Truth {
    /// Starts it and waits for its first word. The tracefs that it needs is mounted where nobody else sees it.
    fn watch(pid: i32) -> Result<Truth, String> {
        let program = PROGRAM.replace("PID", &pid.to_string()).replace("LIB", &library(pid));
        let script = "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec bpftrace -B line -e \"$0\"";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script, &program]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.env("BPFTRACE_PERF_RB_PAGES", "1024").spawn().map_err(|e| format!("unshare: {e}"))?;
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let err = BufReader::new(child.stderr.take().unwrap());
        let complaint = std::thread::spawn(move || err.lines().map_while(Result::ok).collect::<Vec<_>>().join("; "));
        let truth = Truth { child, lines };
        let mut first = None;
        loop {
            match truth.lines.recv_timeout(support::PATIENCE).map(|line| parse(&line)) {
                // Calls that were under way when it came are not seen; after a second none is left.
                Ok(Some(stretch)) if stretch.begin > *first.get_or_insert(stretch.begin) + 1_000_000_000 => return Ok(truth),
                Ok(_) => {}
                Err(_) => {
                    drop(truth);
                    return Err(format!("bpftrace gave nothing: {}", complaint.join().unwrap()));
                }
            }
        }
    }

    /// All that it said, up to now and a little more, so that what was under way is complete.
    fn finish(mut self, until: Nanos) -> Vec<True> {
        let mut all = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(support::PATIENCE) {
            let Some(stretch) = parse(&line) else { continue };
            all.push(stretch);
            if stretch.begin > until.as_nanos() + 1_000_000_000 {
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

fn parse(line: &str) -> Option<True> {
    let [take, tid, begin, end] = line.split(' ').map(|w| w.parse::<u64>().ok()).collect::<Option<Vec<_>>>()?.try_into().ok()?;
    Some(True { take: take == 1, tid: tid as i32, begin, end })
}

/// The file that the interpreter's code is in.
fn library(pid: i32) -> String {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let found = maps.lines().filter_map(|l| l.split_once('/')).find(|(_, path)| path.contains("libpython"));
    found.map_or_else(|| format!("/proc/{pid}/exe"), |(_, path)| format!("/{path}"))
}

fn measure(pid: i32, ms: u64) -> Option<(Record, WindowFacts)> {
    let plan = Plan { rate_hz: 1000.0, duration: Some(Nanos::from_millis(ms)), exact: true };
    let mut record = Record::default();
    let python = Python::open(Pid(pid)).unwrap();
    let window = sampler::measure(python, plan, &|_| None, &AtomicBool::new(false), &mut record, &mut |_, _| ()).unwrap();
    if !window.facts.exact {
        support::skip(&format!("exact mode: {}", window.facts.warnings.join("; ")));
        return None;
    }
    Some((record, window.facts))
}

/// Errors of one run.
#[derive(Debug, Default)]
struct Errors {
    waiting: f64,
    /// Of the count of all waits, relative.
    count: f64,
}

/// Measures a workload both ways. `None` where that is not possible here.
fn compare(interpreter: &Interpreter, workload: &str, args: &[&str], ms: u64) -> Option<Errors> {
    let target = Target::start(interpreter, workload, args);
    let truth = match Truth::watch(target.pid()) {
        Ok(truth) => truth,
        Err(why) => {
            support::skip(&format!("exact mode's truth on {}: {why}", interpreter.label));
            return None;
        }
    };
    let (record, facts) = measure(target.pid(), ms)?;
    let (first, last) = record.looks.unwrap();
    let (from, to) = (first.as_nanos(), last.as_nanos());
    let all = truth.finish(last);
    if std::env::var_os("DIFF").is_some() {
        for said in record.threads.values() {
            let t: Vec<(u64, u64)> =
                all.iter().filter(|s| s.take && s.tid == said.tid && s.begin < to && s.end > from).map(|s| (s.begin, s.end)).collect();
            let mut bias = (0.0, 0.0, 0);
            for s in &said.stretches {
                let over: Vec<_> = t.iter().filter(|t| t.0 < s.1 && t.1 > s.0).collect();
                if over.len() != 1 {
                    println!(
                        "{} said {} +{}us over {:?}",
                        said.name,
                        (s.0 - from) / 1000,
                        (s.1 - s.0) / 1000,
                        over.iter().map(|t| ((t.0 as i64 - s.0 as i64) / 1000, (t.1 as i64 - s.0 as i64) / 1000)).collect::<Vec<_>>()
                    );
                } else {
                    bias.0 += s.0 as f64 - over[0].0 as f64;
                    bias.1 += over[0].1 as f64 - s.1 as f64;
                    bias.2 += 1;
                    if over[0].1 as f64 - s.1 as f64 > 300e3 {
                        println!(
                            "{} said {} +{}us true to +{}",
                            said.name,
                            (s.0 - from) / 1000,
                            (s.1 - s.0) / 1000,
                            (over[0].1 - s.1) / 1000
                        );
                    }
                }
            }
            for t in &t {
                let over: Vec<_> = said.stretches.iter().filter(|s| t.0 < s.1 && t.1 > s.0).collect();
                if over.len() != 1 {
                    println!(
                        "{} true {} +{}us over {:?}",
                        said.name,
                        (t.0 as i64 - from as i64) / 1000,
                        (t.1 - t.0) / 1000,
                        over.iter().map(|s| ((s.0 as i64 - t.0 as i64) / 1000, (s.1 as i64 - t.0 as i64) / 1000)).collect::<Vec<_>>()
                    );
                }
            }
            if bias.2 > 0 {
                println!(
                    "{} begin late {:.1} us, end early {:.1} us",
                    said.name,
                    bias.0 / bias.2 as f64 / 1e3,
                    bias.1 / bias.2 as f64 / 1e3
                );
            }
        }
    }
    let mut by_tid: BTreeMap<i32, (f64, u64)> = BTreeMap::new();
    let mut longest = 0;
    for stretch in all.iter().filter(|s| s.begin < to && s.end > from) {
        let cell = by_tid.entry(stretch.tid).or_default();
        let length = stretch.end.min(to) - stretch.begin.max(from);
        cell.0 += length as f64 / 1e9;
        cell.1 += u64::from(stretch.take);
        longest = longest.max(if stretch.take { length } else { 0 });
    }
    let mut errors = Errors::default();
    let (mut said_count, mut true_count) = (0, 0);
    let mut threads: Vec<&Said> = record.threads.values().collect();
    threads.sort_by_key(|t| t.tid);
    println!(
        "{} {workload} {args:?}: {} events, {} lost, longest wait {:.1} ms",
        interpreter.label,
        facts.events,
        facts.lost_events,
        longest as f64 / 1e6
    );
    for said in threads {
        let (waited, count) = by_tid.get(&said.tid).copied().unwrap_or_default();
        let (said_share, true_share) = (said.split.get(State::Waiting) / said.split.total(), waited / (said.split.total() / 1e9));
        // Threads that live for a few looks are judged together, by their counts.
        if said.seen > ms as f64 / 2e3 {
            println!("  {:<14} waiting {said_share:.4}, true {true_share:.4}; waits {}, true {count}", said.name, said.waits);
            errors.waiting = errors.waiting.max((said_share - true_share).abs());
        }
        assert!(said.holds.iter().all(|ms| *ms < 1e3), "{}: {:?}", said.name, said.holds);
        said_count += said.waits;
    }
    true_count += by_tid.values().map(|c| c.1).sum::<u64>();
    errors.count = (said_count as f64 / true_count as f64 - 1.0).abs();
    println!("  all waits: {said_count}, true {true_count}: {:+.2} %", 100.0 * (said_count as f64 / true_count as f64 - 1.0));
    Some(errors)
}

#[test]
fn waits_are_those_of_take_gil() {
    let _alone = support::alone();
    if !support::is_root() {
        return support::skip("exact mode against uprobes: needs root");
    }
    for interpreter in support::interpreters() {
        for (workload, args) in [("cpu", &["--threads", "3"][..]), ("cpu", &["--threads", "8"]), ("mixed", &[]), ("churn", &[]), ("hashing", &[]), ("sleepers", &[]), ("lock", &[])]
            .into_iter()
            .filter(|w| std::env::var("ONLY").is_ok_and(|o| o.contains(w.0)) || std::env::var("ONLY").is_err())
        {
            if let Some(errors) = compare(&interpreter, workload, args, 3000) {
                println!("  errors: waiting {:.4}, count {:.2} %", errors.waiting, 100.0 * errors.count);
            }
        }
    }
}
