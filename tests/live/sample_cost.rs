//! What one look does: it allocates nothing once it has met what there is, and asks only after the threads that can have moved.
//!
//! Counted, not timed; the instructions of a look at a recorded process by valgrind.

#![allow(clippy::unwrap_used)] // clippy knows tests, not their helpers

mod live;
#[path = "replayed/looks.rs"]
mod looks;
mod support;

use gilprof::capture::clock::Clock;
use gilprof::capture::observe::Observer;
use gilprof::ids::Pid;
use gilprof::process::sys_linux;
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::Python;
use gilprof::units::Nanos;
use live::{on_each, Complaints};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use support::{alone, Interpreter, Target};

/// Looks that do the like now and then: stacks in places where they were never met, the threads counted again, tables that grow. Those
/// that allocate may be so many of all.
const MAY_ALLOCATE: f64 = 0.1;
/// Threads of 129 that may be asked after, on average, of which 120 sleep all the time.
const ASKED: f64 = 12.0;

/// Instructions of one look at a recorded process with three busy threads, as this build (`profile.dev`) makes it: what was counted, and a
/// fifth more. A change that needs more should know it, and say so here.
const INSTRUCTIONS: [(&str, u64); 2] = [("3.9-pyenv-cpu", 30_600), ("3.15-debian-sid-cpu", 31_500)];

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator as it came; the counter is a thread's own and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Looks at a program 1000 times a second; what `after` says of each look, once `first` of them are over.
fn look_at<T>(target: &Target, first: usize, count: usize, after: impl Fn(&Observer, u64) -> T) -> Vec<T> {
    let mut observer = Observer::new(Python::open(Pid(target.pid())).unwrap(), None);
    let (mut builder, mut said) = (ProfileBuilder::new(), Vec::with_capacity(count));
    let mut clock = Clock::new(sys_linux::monotonic(), 1000.0, 1);
    for n in 0..first + count {
        sys_linux::sleep_until(clock.next(sys_linux::monotonic()));
        let before = COUNT.with(Cell::get);
        let now = sys_linux::monotonic();
        observer.look(now, now, &mut builder).unwrap();
        let allocated = COUNT.with(Cell::get) - before;
        if n >= first {
            said.push(after(&observer, allocated));
        }
    }
    said
}

/// One interpreter of each way of keeping frames and of telling who asks for the GIL.
fn some() -> Vec<Interpreter> {
    support::interpreters().into_iter().filter(|i| [(3, 9), (3, 13), (3, 15)].contains(&i.minor())).collect()
}

#[test]
fn a_look_allocates_nothing_once_it_has_met_what_there_is() {
    let _alone = alone();
    on_each(some(), |interpreter: &Interpreter, complaints: &mut Complaints| {
        let target = Target::start(interpreter, "crowd", &["--busy", "8", "--depth", "20"]);
        let allocations = look_at(&target, 2000, 1000, |_, allocated| allocated);
        let looks = allocations.iter().filter(|&&n| n > 0).count() as f64 / 1000.0;
        row!(
            interpreter.label,
            "looks that allocate {looks:.3}, allocations per look {:.2}",
            allocations.iter().sum::<u64>() as f64 / 1000.0
        );
        complaints.expect(looks <= MAY_ALLOCATE, || format!("{looks} of the looks allocate"));
    });
}

#[test]
fn threads_that_idle_are_hardly_asked_after() {
    let _alone = alone();
    on_each(some(), |interpreter: &Interpreter, complaints: &mut Complaints| {
        let target = Target::start(interpreter, "crowd", &["--busy", "8", "--idle", "120"]);
        let asked = look_at(&target, 2000, 501, |observer, _| {
            assert!(observer.threads().len() >= 129);
            observer.asked
        });
        let mean = (asked[500] - asked[0]) as f64 / 500.0;
        row!(interpreter.label, "of 129 threads {mean:.1} asked after at each look");
        complaints.expect(mean <= ASKED, || format!("{mean} threads asked after at each look"));
    });
}

#[test]
fn a_look_takes_no_more_instructions_than_it_did() {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        support::skip("instructions of a look: valgrind is not installed");
        return;
    }
    for (name, most) in INSTRUCTIONS {
        let (few, many) = (instructions(name, 100), instructions(name, 1100));
        let each = (many - few) / 1000;
        row!(name, "{each} instructions a look");
        assert!(each > 500 && each <= most, "{name}: {each} instructions a look, of {most} at most");
    }
}

/// Of this very program making so many looks, its start included.
fn instructions(name: &str, looks: u64) -> u64 {
    let mut valgrind = std::process::Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    valgrind.args(["--ignored", "--exact", "replayed"]).env("GILPROF_LOOK", name).env("GILPROF_LOOKS", looks.to_string());
    let output = valgrind.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{said}")).1;
    count.trim().parse().unwrap()
}

#[test]
#[ignore = "for valgrind, which counts what it does"]
fn replayed() {
    let var = |name| std::env::var(name).unwrap();
    let (name, count): (String, u64) = (var("GILPROF_LOOK"), var("GILPROF_LOOKS").parse().unwrap());
    let recording = looks::recorded().into_iter().find(|look| look.name == name).unwrap().recording;
    let source = Box::new(gilprof::process::replay::ReplaySource::of(&recording));
    let mut builder = ProfileBuilder::new();
    let (_, mut observer) = gilprof::capture::record::replay(&recording, source, &mut builder).unwrap();
    for n in 0..count {
        observer.look(Nanos::from_millis(1000 + n), Nanos::from_millis(1000 + n), &mut builder).unwrap();
    }
}
