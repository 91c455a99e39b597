//! What one look does: it allocates nothing once it has met what there is, and asks only after the threads that can have moved.
//!
//! Counted, not timed; the instructions of a look at a recorded process by valgrind.

use crate::harness::Suite;
use crate::support::{self, checks};
use crate::{complaining, row};
use checks::Complaints;
use gilprof::capture::sampler::Sampler;
use gilprof::capture::schedule::SampleSchedule;
use gilprof::ids::Pid;
use gilprof::process::sys_linux;
use gilprof::profile::ProfileBuilder;
use gilprof::python::attach::PythonProcess;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use support::{Interpreter, Target};

/// What this file checks, and on which interpreters.
pub fn cases(suite: &mut Suite) {
    complaining!(suite, some(), [a_look_allocates_nothing_once_it_has_met_what_there_is, threads_that_idle_are_hardly_asked_after]);
}

/// Looks that do the like now and then: stacks in places where they were never met, the threads counted again, tables that grow. Those
/// that allocate may be so many of all.
const MAY_ALLOCATE: f64 = 0.1;
/// Threads of 129 that may be asked after, on average, of which 120 sleep all the time.
const ASKED: f64 = 12.0;

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
fn look_at<T>(target: &Target, first: usize, count: usize, after: impl Fn(&Sampler, u64) -> T) -> Vec<T> {
    let mut sampler = Sampler::new(PythonProcess::open(Pid(target.pid())).unwrap(), None);
    let (mut builder, mut said) = (ProfileBuilder::new(), Vec::with_capacity(count));
    let mut schedule = SampleSchedule::new(sys_linux::monotonic(), 1000.0, 1);
    for n in 0..first + count {
        sys_linux::sleep_until(schedule.next(sys_linux::monotonic()));
        let before = COUNT.with(Cell::get);
        let now = sys_linux::monotonic();
        sampler.sample(now, now, &mut builder).unwrap();
        let allocated = COUNT.with(Cell::get) - before;
        if n >= first {
            said.push(after(&sampler, allocated));
        }
    }
    said
}

/// One interpreter of each way of keeping frames and of telling who asks for the GIL.
fn some() -> Vec<Interpreter> {
    support::interpreters().into_iter().filter(|i| [(3, 9), (3, 13), (3, 15)].contains(&i.minor())).collect()
}

fn a_look_allocates_nothing_once_it_has_met_what_there_is(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "crowd", &["--busy", "8", "--depth", "20"]);
    let allocations = look_at(&target, 2000, 1000, |_, allocated| allocated);
    let looks = allocations.iter().filter(|&&n| n > 0).count() as f64 / 1000.0;
    row!(interpreter.label, "looks that allocate {looks:.3}, allocations per look {:.2}", allocations.iter().sum::<u64>() as f64 / 1000.0);
    complaints.expect(looks <= MAY_ALLOCATE, || format!("{looks} of the looks allocate"));
}

fn threads_that_idle_are_hardly_asked_after(interpreter: &Interpreter, complaints: &mut Complaints) {
    let target = Target::start(interpreter, "crowd", &["--busy", "8", "--idle", "120"]);
    let asked = look_at(&target, 2000, 501, |sampler, _| {
        assert!(sampler.threads().len() >= 129);
        sampler.tasks_polled
    });
    let mean = (asked[500] - asked[0]) as f64 / 500.0;
    row!(interpreter.label, "of 129 threads {mean:.1} asked after at each look");
    complaints.expect(mean <= ASKED, || format!("{mean} threads asked after at each look"));
}
