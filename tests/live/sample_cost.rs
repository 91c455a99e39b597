//! The work of one sample: it allocates nothing after its first meeting with each object, and polls
//! only the threads that can have changed.
//!
//! Counted, not timed. `hermetic/sample_cost.rs` has the instructions of a sample.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::{measure, number, Complaints};
use gilprof::capture::sampler::Sampler;
use gilprof::capture::schedule::SampleSchedule;
use gilprof::ids::Pid;
use gilprof::process::sys_linux;
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::PythonProcess;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use support::{oldest_and_newest, window, Interpreter, Target};

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, some(), [samples_of_known_objects_allocate_nothing, idle_threads_are_seldom_polled]);
    let two = || oldest_and_newest(some());
    complaining!(suite, two(), [a_herd_of_sleepers_costs_no_more_than_a_few, a_herd_of_sleepers_leaves_the_report_right]);
}

/// The share of samples that may allocate: stacks at new places, a new count of the threads, tables
/// that grow.
const MAY_ALLOCATE: f64 = 0.1;
/// Threads of 129 that may be polled, on average. 120 of them sleep all the time.
const POLLED: f64 = 12.0;

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes unchanged to the system's allocator; the counter belongs to the thread
// and allocates nothing.
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

/// Samples a program 1000 times a second. Returns the results of `after` for each sample, except
/// the first ones.
fn sample_program<T>(target: &Target, first: usize, count: usize, after: impl Fn(&Sampler, u64) -> T) -> Vec<T> {
    let mut sampler = Sampler::new(PythonProcess::open(Pid(target.pid())).unwrap(), None);
    let (mut builder, mut results) = (ProfileBuilder::new(), Vec::with_capacity(count));
    let mut schedule = SampleSchedule::new(sys_linux::monotonic(), 1000.0, 1);
    for n in 0..first + count {
        sys_linux::sleep_until(schedule.next(sys_linux::monotonic()));
        let before = COUNT.with(Cell::get);
        let now = sys_linux::monotonic();
        sampler.sample(now, now, &mut builder).unwrap();
        let allocated = COUNT.with(Cell::get) - before;
        if n >= first {
            results.push(after(&sampler, allocated));
        }
    }
    results
}

/// One interpreter of each representation of frames and of GIL requests.
fn some() -> Vec<Interpreter> {
    let all = support::interpreters();
    [(3, 9), (3, 13), (3, 15)].iter().filter_map(|minor| all.iter().find(|i| i.minor() == *minor).cloned()).collect()
}

fn samples_of_known_objects_allocate_nothing(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "crowd", &["--busy", "8", "--depth", "20"]);
    let allocations = sample_program(&target, 2000, 1000, |_, allocated| allocated);
    let share = allocations.iter().filter(|&&n| n > 0).count() as f64 / 1000.0;
    row!(
        interpreter.label,
        "samples that allocate {share:.3}, allocations per sample {:.2}",
        allocations.iter().sum::<u64>() as f64 / 1000.0
    );
    complaints.expect(share <= MAY_ALLOCATE, || format!("{share} of the samples allocate"));
}

fn idle_threads_are_seldom_polled(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "crowd", &["--busy", "8", "--idle", "120"]);
    let polled = sample_program(&target, 2000, 501, |sampler, _| {
        assert!(sampler.threads().count() >= 129);
        sampler.stats.tasks_polled
    });
    let mean = (polled[500] - polled[0]) as f64 / 500.0;
    row!(interpreter.label, "of 129 threads {mean:.1} polled at each sample");
    complaints.expect(mean <= POLLED, || format!("{mean} threads polled at each sample"));
}

fn a_herd_of_sleepers_costs_no_more_than_a_few(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "crowd", &["--busy", "2", "--idle", "3000"]);
    let polled = sample_program(&target, 1000, 501, |sampler, _| sampler.stats.tasks_polled);
    let mean = (polled[500] - polled[0]) as f64 / 500.0;
    row!(interpreter.label, "of 3003 threads {mean:.1} polled at each sample");
    complaints.expect(mean <= POLLED, || format!("{mean} threads polled at each sample"));
}

fn a_herd_of_sleepers_leaves_the_report_right(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "crowd", &["--busy", "2", "--idle", "3000"]);
    measure(interpreter, &target, window(4.0, 2.0), complaints, |measured, found| {
        let report = &measured.report;
        let [taken, missed] = ["/window/samples", "/window/missed"].map(|n| number(report, n));
        row!(interpreter.label, "{missed} of {taken} samples missed, {}", report["verdict"]["code"]);
        // With too many missed samples it is `inconclusive`.
        if !measured.starving(interpreter, "the verdict") {
            found.expect(report["verdict"]["code"] == "switch-to-processes", || format!("{}", report["verdict"]));
        }
    });
}
