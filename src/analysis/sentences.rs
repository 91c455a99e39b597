//! Every sentence of a report, from scenarios that together make every rule apply.
//!
//! The list is tests/dumps/golden/sentences.txt, so that a change of a sentence shows in review.
//! `GILPROF_BLESS=1 cargo test --lib analysis::sentences` rewrites the list; read the difference
//! before committing it.

use super::report::{Code, Report};
use super::testing::{children, undetermined, Scene};
use super::verdict::VERDICT_RULES;
use super::what_if::Question;
use super::{report, report_with};
use crate::profile::Profile;
use crate::sample::ProcessKind::{self, Other, Python, Unknown};
use crate::sample::{StopCause, Tracer};
use std::collections::BTreeSet;
use std::path::Path;

type States = Vec<&'static str>;

const SELECT: &str = "I run_forever@asyncio/base_events.py>_run_once@asyncio/base_events.py>select@selectors.py";
const LOOP_WAITS: &str = "W run_forever@asyncio/base_events.py>_run_once@asyncio/base_events.py>_run@asyncio/events.py>answer";
const LOOP_SLEEPS: &str = "I run_forever@asyncio/base_events.py>_run_once@asyncio/base_events.py>_run@asyncio/events.py>answer";

/// Frames of one start of code each, whose innermost function holds the GIL.
const STARTS: [(&str, &str); 10] = [
    ("a thread of a library", "Thread.run@/lib/python3.11/threading.py>poll@/v/site-packages/lib/poll.py"),
    ("code in the targets of threads", "Thread.run@/lib/python3.11/threading.py>crawl>parse"),
    (
        "code in a subclass of Thread",
        "Thread._bootstrap_inner@/lib/python3.11/threading.py>Crawler.run>encode@/lib/python3.11/json/encoder.py",
    ),
    ("tasks of a pool", "_worker@/lib/python3.11/concurrent/futures/thread.py>get>encode@/lib/python3.11/json/encoder.py"),
    ("a pool's task is a method", "_worker@/lib/python3.11/concurrent/futures/thread.py>Client.get"),
    ("a pool's task is a nested function", "_worker@/lib/python3.11/concurrent/futures/thread.py>main.<locals».get"),
    ("a pool's task is in a cell of a notebook", "_worker@/lib/python3.11/concurrent/futures/thread.py>get@/ipykernel_7/1.py"),
    ("handlers of gunicorn", "handle@/v/site-packages/gunicorn/workers/gthread.py>page"),
    ("handlers of a server in one process", "process_request_thread@/lib/python3.11/socketserver.py>page"),
    ("callbacks of event loops", "_run_once@/lib/python3.11/asyncio/base_events.py>answer"),
];

/// Two threads that hold the GIL for 5 ms in turn, in the first state, and wait in the second.
fn turns(holds: &'static str, waits: &'static str) -> impl Fn(u64) -> States {
    move |t| if (t / 5).is_multiple_of(2) { vec![holds, waits] } else { vec![waits, holds] }
}

/// `first` for the samples before `end`, then `then`.
fn phases(end: u64, first: impl Fn(u64) -> States, then: impl Fn(u64) -> States) -> impl Fn(u64) -> States {
    move |t| if t < end { first(t) } else { then(t) }
}

/// Three workers on a lock, except the one whose turn it is.
fn lock(t: u64) -> States {
    let mut all = vec!["L join@threading.py", "L update", "L update", "L update"];
    all[1 + (t / 5 % 3) as usize] = "P update";
    all
}

/// Four threads, of which one at a time is in `owner`; the others wait in `waiter`.
fn owned(owner: &'static str, waiter: &'static str) -> impl Fn(u64) -> States {
    move |t| {
        let mut all = vec![waiter; 4];
        all[(t / 3 % 4) as usize] = if t.is_multiple_of(20) { "P main" } else { owner };
        all
    }
}

/// Two threads that get half of a core between them.
fn hashing(t: u64) -> States {
    match t % 4 {
        0 => vec!["N hash", "S hash"],
        2 => vec!["S hash", "N hash"],
        _ => vec!["S hash", "S hash"],
    }
}

/// Two threads in turn; the holder lacks a core for four samples of five.
fn hogged(t: u64) -> States {
    turns(if t.is_multiple_of(5) { "P burn" } else { "X burn" }, "W burn")(t)
}

/// A thread that waits for half of the time behind one that does what `holds` says.
fn behind(holds: &'static str) -> impl Fn(u64) -> States {
    move |t| match convoy(t) {
        all if all[0] == "P crunch" => vec![holds, all[1]],
        all => all,
    }
}

/// Threads that hold the GIL for one sample in `cycle` each, at different times, and else sleep.
fn sleepers(threads: u64, cycle: u64) -> impl Fn(u64) -> States {
    move |t| (0..threads).map(|n| if t % cycle == n * (cycle / threads) { "P serve" } else { "I recv" }).collect()
}

fn convoy(t: u64) -> States {
    match t % 20 {
        0 => vec!["W crunch", "P reply"],
        1..10 => vec!["P crunch", "I recv"],
        _ => vec!["P crunch", "W reply"],
    }
}

fn event_loop(late: &'static str) -> impl Fn(u64) -> States {
    move |t| vec![if t % 100 < 30 { late } else { SELECT }, "P crunch"]
}

fn free_threaded(gil_enabled: bool) -> Scene {
    Scene::new(2.0).with(|target, _| (target.free_threaded, target.gil_enabled) = (true, gil_enabled))
}

/// A process that used 0.5 s of CPU time, with processes below it.
fn family(processes: &[(i32, ProcessKind, u64, bool)]) -> Scene {
    Scene::new(2.0).with(|_, window| window.descendants = Some(children(500, processes)))
}

fn limited(cpus: f64, quota: Option<f64>) -> Scene {
    Scene::new(cpus).with(|target, _| (target.quota, target.machine_cpus) = (quota, Some(8.0)))
}

/// Programs in which threads contend for the GIL or for something else.
fn contended() -> Vec<(&'static str, Profile)> {
    let two = || Scene::new(2.0);
    let three = |t: u64| -> States { (0..3).map(|n| if t / 5 % 3 == n { "P burn" } else { "W burn" }).collect() };
    let some_c = |t: u64| turns(if t % 5 < 3 { "C fold" } else { "P fold" }, "W fold")(t);
    let some_blocked = |t: u64| if (t / 5).is_multiple_of(3) { vec!["B query", "W serve"] } else { vec!["W serve", "P serve"] };
    let not_always_held = |t: u64| if t % 10 == 9 { vec!["W burn", "W burn", "W burn"] } else { three(t) };
    vec![
        ("three threads run Python code in turn", two().run(5000, three)),
        ("other programs use half a core", two().with(|_, window| window.idle_cpus = Some(0.5)).run(5000, three)),
        ("other programs use all other cores", two().with(|_, window| window.idle_cpus = Some(0.0)).run(5000, three)),
        ("the GIL is free while threads wait", two().run(5000, not_always_held)),
        ("C calls keep the GIL", two().run(2000, turns("C parse", "W parse"))),
        ("Python code and C calls keep the GIL", two().run(2000, some_c)),
        ("a call blocks with the GIL", two().run(2000, turns("B query", "W serve"))),
        ("one of three calls blocks with the GIL", two().run(3000, some_blocked)),
        ("a convoy", two().run(4000, convoy)),
        ("workers share a lock", two().run(2000, lock)),
        ("a lock whose owner sleeps", two().run(2000, owned("I update>save", "L update"))),
        ("a lock whose owner is not seen", two().run(2000, owned("I serve", "L take"))),
        (
            "a lock of an installed package",
            two().run(2000, owned("P checkout@/site-packages/pool.py>check@/site-packages/pool.py", "L checkout@/site-packages/pool.py")),
        ),
        (
            "the lock of a logging handler",
            two().run(
                2000,
                owned(
                    "I handle@logging/__init__.py>StreamHandler.flush@logging/__init__.py",
                    "L handle@logging/__init__.py>Handler.acquire@logging/__init__.py",
                ),
            ),
        ),
        ("a module is imported", two().run(2000, owned("P load>exec_module", "L load>_ModuleLock.acquire@importlib/_bootstrap.py"))),
        ("a lock inside C code", two().run(2000, owned("N multiply", "L multiply"))),
        ("a convoy behind a C call", two().run(4000, behind("C crunch"))),
        ("a convoy behind the garbage collector", two().collecting(|t| t % 20 > 3).run(4000, convoy)),
        (
            "a reader in page faults",
            two().run(4000, |t| match t % 100 {
                0 => vec!["W read_map", "P tick"],
                1..25 => vec!["F read_map", "I tick"],
                _ => vec!["F read_map", "W tick"],
            }),
        ),
        (
            "a library waits for its own threads",
            Scene::new(4.0).native(2).run(2000, |t| match t % 20 {
                0 => vec!["W query", "P tick", "N -"],
                _ => vec!["J query", "W tick", "N -"],
            }),
        ),
        ("a deadlock", two().switching(0).run(2000, |_| vec!["B join_pool>native", "W callback", "L join@threading.py"])),
        ("a deadlock without a holder", two().switching(0).run(2000, |_| vec!["W work", "W work"])),
        ("threads lack cores", Scene::new(1.0).run(2000, hashing)),
        ("the holder lacks a core", two().run(2000, hogged)),
        (
            "child processes take the cores",
            Scene::new(1.0).with(|_, w| w.descendants = Some(children(500, &[(7, Python, 1400, false)]))).run(2000, hashing),
        ),
        ("two threads contend on one core", Scene::new(1.0).run(2000, turns("P burn", "W burn"))),
        ("a CPU quota", limited(1.5, Some(1.5)).run(3000, |t| if t % 4 == 0 { hashing(0) } else { vec!["N hash", "N hash"] })),
        ("an event loop waits for the GIL", two().run(5000, event_loop(LOOP_WAITS))),
        ("json encodes while others wait", two().run(3000, |t| turns("C encode@json/encoder.py", "W answer")(t))),
        ("collections while others wait", two().collecting(|t| t % 5 == 0).run(3000, turns("P load", "W load"))),
        ("5000 switches per second", two().switching(5).run(2000, turns("P send", "W send"))),
    ]
}

/// Programs without much contention.
fn calm() -> Vec<(&'static str, Profile)> {
    let two = || Scene::new(2.0);
    let hash = |every: u64| move |t: u64| if t.is_multiple_of(every) { vec!["P hash", "N hash"] } else { vec!["N hash", "N hash"] };
    let asleep = |_| vec!["I accept", "L get@queue.py"];
    let busy = |t: u64| match t % 20 {
        0..9 => vec!["P serve", "I recv"],
        9 | 19 => vec!["I recv", "I recv"],
        _ => vec!["I recv", "P serve"],
    };
    let monitor = |t: u64| {
        if t.is_multiple_of(10) {
            vec!["I main", "P poll@/site-packages/tqdm/_monitor.py"]
        } else {
            vec!["P main", "I wait@/lib/python3.11/threading.py"]
        }
    };
    let called_back =
        |t: u64| vec![if t.is_multiple_of(4) { "W main" } else { "I main" }, ["P on_event", "W -", "N -", "N -"][(t % 4) as usize]];
    vec![
        ("released work on 2 cores", two().run(2000, hash(50))),
        (
            "released work with a lock in it",
            two().run(2000, |t| match t % 20 {
                0 => vec!["L count", "N count"],
                10 => vec!["N count", "L count"],
                _ => vec!["N count", "N count"],
            }),
        ),
        ("released work on 8 cores", Scene::new(8.0).run(2000, hash(50))),
        ("released work that saturates the GIL before 16 cores", Scene::new(16.0).run(2000, hash(5))),
        ("two threads that mostly sleep", two().run(2000, sleepers(2, 20))),
        ("sixty threads that nearly always sleep", two().run(3000, sleepers(60, 1500))),
        ("two threads that nearly saturate the GIL", two().run(2000, busy)),
        ("no thread holds the GIL", two().run(2000, |t| vec![if t.is_multiple_of(20) { "S burn" } else { "I recv" }])),
        ("one worker on 2 cores", two().run(2000, |_| vec!["L join@threading.py", "P burn"])),
        ("one worker on the one core of its affinity", limited(1.0, None).run(3000, |_| vec!["P burn", "I recv"])),
        ("the GIL is off", free_threaded(false).run(1000, |_| vec!["L join@threading.py", "N burn", "N burn"])),
        ("the GIL of a free-threaded Python is on", free_threaded(true).run(1000, turns("P burn", "W burn"))),
        ("idle while Python children work", family(&[(7, Python, 1900, false), (8, Python, 1500, true)]).run(2000, asleep)),
        ("idle while a compiler works", family(&[(7, Other, 1900, false)]).run(2000, asleep)),
        ("idle while short processes work", family(&[(7, Unknown, 1900, true)]).run(2000, asleep)),
        ("a worker beside a Python child that works", family(&[(7, Python, 150, true)]).run(2000, |_| vec!["P burn", "I recv"])),
        ("idle", two().run(2000, |_| vec!["I accept", "L get@queue.py"])),
        ("an event loop sleeps in a callback", two().run(5000, event_loop(LOOP_SLEEPS))),
        ("an event loop sleeps in a callback and nothing runs", two().run(4000, |t| vec![if t % 10 < 7 { LOOP_SLEEPS } else { SELECT }])),
        ("NumPy sorts", two().run(3000, |_| vec!["N sort@numpy/core/fromnumeric.py", "I recv"])),
        ("a native thread of a library", Scene::new(4.0).native(2).run(3000, |_| vec!["P main", "I recv", "N -"])),
        ("a native thread that calls back", Scene::new(4.0).without_main().run(3000, called_back)),
        ("a Python thread of a library", Scene::new(4.0).without_main().run(3000, monitor)),
    ]
}

/// Programs and measurements without a clear verdict.
fn unclear() -> Vec<(&'static str, Profile)> {
    let two = || Scene::new(2.0);
    let burn = || turns("P burn", "W burn");
    let rest = |_| vec!["I recv", "P burn"];
    let crunch = |states: States| move |_| states.clone();
    let stopped = |_| vec!["T burn", "T burn"];
    let gdb = StopCause::Tracer(Some(Tracer { pid: 7, name: "gdb".into() }));
    let frozen = StopCause::Cgroup { directory: "/cg/x".into(), thaw: "echo 0 > /cg/x/cgroup.freeze".into() };
    vec![
        ("a window that is too short", two().run(90, burn())),
        ("missed samples", two().with(|_, w| w.counts.missed = 5000).run(2000, burn())),
        ("failed samples", two().with(|_, w| w.counts.failed = 1500).run(2000, burn())),
        ("stopped throughout", two().stopped(StopCause::Signal, 2.0).run(2000, stopped)),
        ("stopped for most of the window by a tracer", two().stopped(gdb, 1.9).run(2000, phases(1900, stopped, burn()))),
        ("frozen throughout", two().stopped(frozen, 2.0).run(2000, stopped)),
        ("threads stopped now and then", two().stopped(StopCause::Tracer(None), 0.0).run(2000, burn())),
        ("waiting cannot be seen", two().run(2000, turns("P burn", "U burn"))),
        ("contention in a part of the window", two().run(1500, phases(375, |_| vec!["P burn", "W burn"], rest))),
        ("C calls in a part of the window", two().run(1500, phases(350, |_| vec!["C parse", "W parse"], |_| vec!["I read", "C parse"]))),
        (
            "a blocking call in a part of the window",
            two().run(1500, phases(150, |_| vec!["B query", "W serve"], |_| vec!["I read", "B query"])),
        ),
        ("cores are short in a part of the window", Scene::new(4.0).run(2000, phases(1150, |_| vec!["N hash", "N hash"], hashing))),
        ("released work in a part of the window", two().run(2000, phases(1000, |_| vec!["N hash"], |_| vec!["P sum"]))),
        (
            "victims in a part of the window",
            two().run(1400, phases(150, crunch(vec!["P crunch", "W reply"]), crunch(vec!["P crunch", "I recv"]))),
        ),
        (
            "a lock in a part of the window",
            two().run(2400, phases(700, lock, |_| vec!["L join@threading.py", "I recv", "I recv", "P update"])),
        ),
        ("the work moves to another thread", two().run(2100, phases(1900, |_| vec!["P burn", "I rest"], |_| vec!["I rest", "P burn"]))),
        ("names that cannot be read", two().run(2000, turns("P [unreadable]", "W [unreadable]"))),
        ("one burst in a long window", two().run(40_000, phases(600, |_| vec!["P start"], |_| vec!["I accept"]))),
    ]
}

/// Programs that differ in what started the code.
fn started() -> Vec<(&'static str, Profile)> {
    let word = |state: char, frames: &str| -> &'static str { Box::leak(format!("{state} {frames}").into_boxed_str()) };
    let of = |frames: &str| Scene::new(2.0).without_main().run(3000, turns(word('P', frames), word('W', frames)));
    let called = "get>encode@/lib/python3.11/json/encoder.py";
    let in_library = Scene::new(2.0).run(3000, turns(word('C', called), word('W', called)));
    let new = Scene::new(2.0).with(|target, _| target.python = "3.14.0".into()).run(3000, turns("P burn", "W burn"));
    let script = Scene::new(2.0).without_main().run(3000, turns("P <module»", "W <module»"));
    let others = [("C calls of a library keep the GIL", in_library), ("a new Python", new), ("code at the level of a module", script)];
    STARTS.into_iter().map(|(name, frames)| (name, of(frames))).chain(others).collect()
}

fn describe(name: &str, r: &Report, out: &mut String) {
    let v = &r.verdict;
    *out += &format!("{name}\n  {}: {}\n", v.code.name(), v.headline);
    v.because.iter().for_each(|fact| *out += &format!("    because: {fact}\n"));
    for (n, step) in v.next_steps.iter().enumerate() {
        *out += &format!("    next: {step}\n");
        v.sketch_of(n).iter().for_each(|line| *out += &format!("    code: {line}\n"));
    }
    r.warnings.iter().for_each(|warning| *out += &format!("    warning: {warning}\n"));
    for f in &r.findings {
        *out += &format!("  finding {}:\n    evidence: {}\n    advice: {}\n", f.code.name(), f.evidence, f.advice);
    }
    // The terminal shows code at column 7 of at least 80, and would cut the rest.
    let mut lines = r.verdict.sketches.iter().flat_map(|sketch| &sketch.lines);
    assert!(lines.all(|line| line.chars().count() <= 73), "{name}: {:?}", r.verdict.sketches);
    for answer in &r.what_if {
        *out += &format!("  what if {}: {}\n", answer.question, answer.note);
    }
    out.push('\n');
}

fn what_if(profile: &Profile, question: &str) -> Report {
    report_with(profile, &[Question::parse(question).unwrap()])
}

#[test]
fn every_code_applies_and_every_sentence_is_in_the_list() {
    let (mut out, mut verdicts, mut findings, mut reasons) = (String::new(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (name, profile) in contended().into_iter().chain(started()).chain(calm()).chain(unclear()) {
        let r = report(&profile);
        describe(name, &r, &mut out);
        reasons.extend(VERDICT_RULES.iter().filter_map(|rule| undetermined(*rule, &profile)));
        verdicts.insert(r.verdict.code);
        findings.extend(r.findings.iter().map(|f| f.code));
    }
    let burn = Scene::new(2.0).run(2000, turns("P burn", "W burn"));
    describe("what if there were 2 processes", &what_if(&burn, "processes=2"), &mut out);
    describe("what if a function that is not there released the GIL", &what_if(&burn, "release=nothing.there"), &mut out);
    describe("what if, while threads lack cores", &what_if(&Scene::new(1.0).run(2000, hashing), "processes=4"), &mut out);
    let mut full = burn;
    let l = &mut full.losses;
    (l.functions, l.stacks, l.threads, l.blame, l.invalid) = (1, 2, 3, 4, 5);
    describe("tables that were too small", &report(&full), &mut out);

    out += "reasons of rules that are undetermined\n";
    reasons.iter().for_each(|reason| out += &format!("    because: {reason}\n"));

    let silent: Vec<&str> = Code::ALL
        .into_iter()
        .filter(|code| if code.is_verdict() { !verdicts.contains(code) } else { !findings.contains(code) })
        .map(Code::name)
        .collect();
    assert!(silent.is_empty(), "codes that no scenario gives: {silent:?}");
    golden(&out);
}

/// Compares with the golden file, or rewrites it.
fn golden(text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps/golden/sentences.txt");
    if std::env::var_os("GILPROF_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(wanted == text, "sentences.txt has changed; it is now:\n{text}");
}
