//! A whole simulated process: the memory of an interpreter and the kernel's files of its threads,
//! as the test sets them. The sampler must report what the threads did, and read no more than it
//! needs.

use gilprof::capture::sampler::{SampleOutcome, Sampler};
use gilprof::ids::{Addr, Pid, ThreadId, Tid};
use gilprof::process::c_library::{Abi, CLibrary};
use gilprof::process::memory::{Memory, Part, ReadError};
use gilprof::process::proc_info::TaskStatus;
use gilprof::process::replay::ReplayMemory;
use gilprof::process::sys_linux::SYS_FUTEX;
use gilprof::process::target::ProcessAccess;
use gilprof::process::threads::{TaskFile, TaskFiles, TaskFilesBackend};
use gilprof::python::attach::PythonProcess;
use gilprof::python::layout::{for_version, Anchor, Layout, LayoutTable, Minor};
use gilprof::sample::{GilSample, Sink, State, StateSlice, StateTimes, Stop, StopCause, ThreadInfo, ThreadTotals};
use gilprof::units::Nanos;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

const RUNTIME: Addr = Addr(0x10_000);
const INTERPRETER: Addr = Addr(0x20_000);
const STATES: u64 = 0x100_000;
const PID: i32 = 100;
/// How much lower ids are in the process's own PID namespace, where it has one.
const INNER: i32 = 50;

fn layout() -> &'static Layout {
    match for_version(Minor(3, 11)) {
        Some(LayoutTable::Complete(layout)) => layout,
        _ => panic!("3.11 has a whole table"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Do {
    Hold,
    Run,
    Wait,
    Sleep,
    /// Stopped by this letter: `T` a signal, `t` a tracer.
    Stopped(char),
    Exited,
}

impl Do {
    fn is_on_cpu(self) -> bool {
        matches!(self, Do::Hold | Do::Run)
    }
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    does: Do,
    cpu: u64,
    runs: u64,
}

/// The process. Clones share it.
#[derive(Clone)]
struct Process(Rc<Inner>);

struct Inner {
    memory: RefCell<ReplayMemory>,
    threads: RefCell<Vec<Thread>>,
    /// What the `status` file of any thread says.
    status: Cell<Option<TaskStatus>>,
    inner_namespace: bool,
    /// Reads of memory, of the list of threads, of ids in the process's own namespace.
    counts: [Cell<usize>; 3],
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("simulated process")
    }
}

impl Process {
    /// A process whose threads all sleep, each with a thread state, oldest first; `stale` further
    /// thread states name threads that do not exist.
    fn new(threads: usize, stale: usize, inner_namespace: bool) -> Process {
        let (layout, mut memory) = (layout(), ReplayMemory::new());
        let Anchor::CFrame(cframe, _) = layout.thread.anchor else { panic!("3.11 has a cframe") };
        memory.map(RUNTIME, vec![0; 0x1000]).map(INTERPRETER, vec![0; 0x2000]);
        let count = (threads + stale) as u64;
        // The whole list in one mapping; a `cframe` at its end has no frames.
        let frames = STATES + count * 0x200;
        memory.map(Addr(STATES), vec![0; (count as usize + 1) * 0x200]);
        let gil = RUNTIME.offset(layout.runtime.gil.unwrap().into());
        let mut link = |at: Addr, offset: usize, to: u64| assert!(memory.poke_u64(at.offset(offset as u64), to));
        link(RUNTIME, layout.runtime.interpreters_head.offset(), INTERPRETER.0);
        link(RUNTIME, layout.runtime.interpreters_main.offset(), INTERPRETER.0);
        link(gil, layout.gil.interval.offset(), 5000);
        link(gil, layout.gil.switch_number.offset(), 1);
        // Newest first.
        link(INTERPRETER, layout.interpreter.threads_head.offset(), state(count as usize - 1).0);
        for n in 0..count as usize {
            let native = if n < threads { PID + n as i32 - if inner_namespace { INNER } else { 0 } } else { 1_000_000 + n as i32 };
            link(state(n), layout.thread.next.offset(), n.checked_sub(1).map_or(0, |older| state(older).0));
            link(state(n), layout.thread.interp.offset(), INTERPRETER.0);
            link(state(n), layout.thread.native_thread_id.unwrap().offset(), native as u64);
            link(state(n), cframe.offset(), frames);
        }
        let threads = vec![Thread { does: Do::Sleep, cpu: 0, runs: 1 }; threads];
        Process(Rc::new(Inner {
            memory: RefCell::new(memory),
            threads: RefCell::new(threads),
            status: Cell::new(None),
            inner_namespace,
            counts: Default::default(),
        }))
    }

    fn sampler(&self) -> Sampler {
        let abi = Abi { c_library: CLibrary::Glibc, ..Abi::default() };
        let python = PythonProcess::from_runtime(Pid(PID), self.memory(), abi, Minor(3, 11), "3.11.7".into(), RUNTIME).unwrap();
        Sampler::from_target(Box::new(self.clone()), python)
    }

    /// Lets a thread do something else, after `micros` in which it did what it does now.
    fn set(&self, n: usize, micros: u64, does: Do) {
        let mut threads = self.0.threads.borrow_mut();
        let thread = &mut threads[n];
        thread.cpu += if thread.does.is_on_cpu() { micros } else { 0 };
        let woken = !thread.does.is_on_cpu() && does.is_on_cpu();
        // A stop wakes a sleeping thread, which notices it.
        let stops = !matches!(thread.does, Do::Stopped(_)) && matches!(does, Do::Stopped(_));
        thread.runs += u64::from(woken || stops);
        let (had, has) = (thread.does == Do::Hold, does == Do::Hold);
        thread.does = does;
        // A holder that is stopped keeps the GIL.
        if has || (had && !matches!(does, Do::Stopped(_))) {
            self.set_gil(has.then_some(n));
        }
    }

    fn set_gil(&self, holder: Option<usize>) {
        let (layout, mut memory) = (&layout().gil, self.0.memory.borrow_mut());
        let gil = gil();
        if let Some(n) = holder {
            let (holder, switches) = (gil.offset(layout.last_holder.offset() as u64), gil.offset(layout.switch_number.offset() as u64));
            if memory.read_ptr(holder) != Ok(state(n)) {
                let count = memory.read_u64(switches).unwrap();
                assert!(memory.poke_u64(holder, state(n).0) && memory.poke_u64(switches, count + 1));
            }
        }
        assert!(memory.poke(gil.offset(layout.locked.offset() as u64), &i32::from(holder.is_some()).to_le_bytes()));
    }

    fn count(&self, which: usize) -> usize {
        self.0.counts[which].get()
    }

    fn counted(&self, which: usize) {
        self.0.counts[which].set(self.count(which) + 1);
    }
}

/// The thread state of a thread.
fn state(n: usize) -> Addr {
    Addr(STATES + n as u64 * 0x200)
}

fn gil() -> Addr {
    RUNTIME.offset(layout().runtime.gil.unwrap().into())
}

impl Memory for Process {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.counted(0);
        self.0.memory.borrow().read(at, into)
    }
    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.counted(0);
        self.0.memory.borrow().read_batch(parts, into)
    }
}

impl ProcessAccess for Process {
    fn pid(&self) -> Pid {
        Pid(PID)
    }
    fn memory(&self) -> &dyn Memory {
        self
    }
    fn tids(&self, into: &mut Vec<Tid>, _: bool) -> io::Result<()> {
        self.counted(1);
        into.clear();
        let threads = self.0.threads.borrow();
        into.extend((0..threads.len()).filter(|&n| threads[n].does != Do::Exited).map(|n| Tid(PID + n as i32)));
        Ok(())
    }
    fn task_count(&self) -> Option<u64> {
        Some(self.0.threads.borrow().iter().filter(|thread| thread.does != Do::Exited).count() as u64)
    }
    fn open(&self, tid: Tid) -> io::Result<TaskFiles> {
        Ok(TaskFiles::from_backend(Files(self.clone(), (tid.0 - PID) as usize)))
    }
    fn comm(&self, _: Tid) -> Option<String> {
        Some("simulated".into())
    }
    fn status(&self, thread: Option<Tid>) -> Option<TaskStatus> {
        let status = self.0.status.get()?;
        let stop = |tid: Tid| if let Do::Stopped(letter) = self.0.threads.borrow()[(tid.0 - PID) as usize].does { letter } else { 'S' };
        Some(thread.map_or(status, |tid| TaskStatus { letter: stop(tid), ..status }))
    }
    fn is_in_inner_namespace(&self) -> bool {
        self.0.inner_namespace
    }
    fn inner_tid(&self, tid: Tid) -> Option<i32> {
        self.counted(2);
        Some(tid.0 - INNER)
    }
}

/// The files of one thread.
#[derive(Debug)]
struct Files(Process, usize);

impl TaskFilesBackend for Files {
    fn read(&self, file: TaskFile, into: &mut [u8]) -> io::Result<usize> {
        let thread = self.0 .0.threads.borrow()[self.1];
        let text = match (file, thread.does) {
            (_, Do::Exited) => return Err(io::ErrorKind::NotFound.into()),
            (TaskFile::SchedStat, _) => format!("{} 0 {}\n", thread.cpu * 1000, thread.runs),
            (TaskFile::Syscall, Do::Hold | Do::Run) => "running\n".into(),
            (TaskFile::Syscall, Do::Wait) => {
                format!("{SYS_FUTEX} {:#x} 0x80 0x0 0x7ffd 0x0 0x0 0x7ffd 0x7f00\n", gil().offset(layout().gil.cond.offset.into()).0)
            }
            (TaskFile::Syscall, Do::Sleep) => "0 0x3 0x7ffd 0x1 0x0 0x0 0x0 0x7ffd 0x7f00\n".into(),
            (TaskFile::Syscall, Do::Stopped(_)) => "-1 0x7ffd 0x7f00\n".into(),
            (TaskFile::Stat, Do::Stopped(letter)) => format!("7 (x) {letter} 1\n"),
            (TaskFile::Stat, _) => "7 (x) S 1\n".into(),
            (TaskFile::Stack | TaskFile::Status, _) => return Err(io::ErrorKind::Unsupported.into()),
        };
        into[..text.len()].copy_from_slice(text.as_bytes());
        Ok(text.len())
    }
}

/// The times of each thread.
#[derive(Default)]
struct Times {
    tids: HashMap<ThreadId, Tid>,
    times: HashMap<Tid, StateTimes>,
    ended: Vec<Tid>,
}

impl Sink for Times {
    fn thread(&mut self, info: &ThreadInfo) {
        self.tids.insert(info.id, info.tid);
    }
    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.times.entry(self.tids[&slice.thread]).or_default().merge(&slice.times);
    }
    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, thread: ThreadId, _: ThreadTotals) {
        self.ended.push(self.tids[&thread]);
    }
}

impl Times {
    /// Milliseconds of a thread in these states.
    fn millis(&self, n: usize, states: &[State]) -> f64 {
        self.times.get(&Tid(PID + n as i32)).map_or(0.0, |times| states.iter().map(|state| times.get(*state)).sum::<f64>() / 1e6)
    }
}

const HOLDING: [State; 4] = [State::HoldingPython, State::HoldingNative, State::HoldingBlocked, State::HoldingStarved];

fn sample(sampler: &mut Sampler, micros: u64, times: &mut Times) {
    let at = Nanos::from_micros(1_000_000 + micros);
    assert_eq!(sampler.sample(at, at, times), Ok(SampleOutcome::Complete));
}

/// Samples a thread that repeats `cycle`, beside `sleepers` and one thread that holds the GIL
/// whenever the other does not, if `hog`. Returns the times of the thread, in shares of the window.
fn beside_sleepers(sleepers: usize, hog: bool, cycle: &[(Do, u64)], period: u64, samples: u64) -> (f64, f64) {
    let process = Process::new(sleepers + 2, 0, false);
    let (worker, hogging) = (sleepers / 2, sleepers);
    let (mut sampler, mut times) = (process.sampler(), Times::default());
    let (mut at, mut step, mut left) = (0, 0, cycle[0].1);
    process.set(worker, 0, cycle[0].0);
    for n in 0..=samples {
        while at < n * period {
            let micros = left.min(n * period - at);
            (at, left) = (at + micros, left - micros);
            let mut next = cycle[step].0;
            if left == 0 {
                step = (step + 1) % cycle.len();
                (next, left) = cycle[step];
            }
            if hog && next == Do::Hold {
                process.set(hogging, micros, Do::Wait);
            }
            process.set(worker, micros, next);
            if hog && next != Do::Hold {
                process.set(hogging, micros, Do::Hold);
            }
        }
        sample(&mut sampler, n * period, &mut times);
    }
    sampler.finish(Nanos::from_micros(1_000_000 + at), &mut times);
    let window = (samples * period) as f64 / 1000.0;
    let total = times.millis(worker, &State::ALL) / window;
    assert!((total - 1.0).abs() < 0.01, "{total} of the window is attributed");
    (times.millis(worker, &HOLDING) / window, times.millis(worker, &[State::Waiting]) / window)
}

#[test]
fn an_io_worker_beside_many_sleepers_is_charged_its_own_time() {
    // The cycles' lengths are no multiples of the samples' period.
    let holds = [(Do::Hold, 500), (Do::Sleep, 4537)];
    let waits = [(Do::Run, 10), (Do::Wait, 500), (Do::Hold, 100), (Do::Sleep, 4427)];
    for (sleepers, period, samples) in [(3000, 1000, 3000), (30, 100_000, 400), (3, 1000, 3000)] {
        let (holding, waiting) = beside_sleepers(sleepers, false, &holds, period, samples);
        assert!((holding - 0.099).abs() < 0.03 && waiting < 0.01, "{sleepers} sleepers: holding {holding}, waiting {waiting}");
        let (holding, waiting) = beside_sleepers(sleepers, true, &waits, period, samples);
        assert!((holding - 0.02).abs() < 0.015, "{sleepers} sleepers: holding {holding}");
        assert!((waiting - 0.099).abs() < 0.04, "{sleepers} sleepers: waiting {waiting}");
    }
}

#[test]
fn many_threads_that_exit_at_once_leave_the_others_right() {
    let process = Process::new(1000, 0, false);
    let (mut sampler, mut times) = (process.sampler(), Times::default());
    process.set(999, 0, Do::Hold);
    process.set(500, 0, Do::Run);
    (0..10).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    // Every other thread, among them those that each sample polls.
    (0..1000).filter(|n| n % 2 == 0 && *n > 0).for_each(|n| process.set(n, 1000, Do::Exited));
    (10..20).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    assert_eq!((sampler.threads().count(), times.ended.len()), (501, 499));
    assert!(sampler.threads().all(|(info, _)| info.main || info.tid.0 % 2 == 1));
    sampler.finish(Nanos::from_micros(1_019_000), &mut times);
    assert!((times.millis(999, &HOLDING) - 19.0).abs() < 0.01, "{}", times.millis(999, &HOLDING));
    assert!((times.millis(1, &[State::Io]) - 19.0).abs() < 0.01, "{}", times.millis(1, &[State::Io]));
    assert_eq!(times.ended.len(), 1000);
}

#[test]
fn a_tracer_that_stops_the_holder_stops_all_though_an_older_thread_exits() {
    let process = Process::new(21, 0, false);
    let tracer = TaskStatus { letter: 'S', tracer: Some(Tid(i32::MAX)) };
    process.0.status.set(Some(tracer));
    let (mut sampler, mut times) = (process.sampler(), Times::default());
    process.set(20, 0, Do::Hold);
    process.set(5, 0, Do::Run);
    (0..10).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    assert!(sampler.stop_detector.is_traced() && !sampler.stop_detector.is_stopped());
    process.set(20, 1000, Do::Stopped('t'));
    process.set(5, 1000, Do::Exited);
    // The kernel's count of the threads is as old as the sample's beginning: the exit is found when
    // the thread is polled.
    process.0.threads.borrow_mut().push(Thread { does: Do::Sleep, cpu: 0, runs: 1 });
    sample(&mut sampler, 10_000, &mut times);
    assert!(sampler.stop_detector.is_stopped());
}

#[test]
fn a_lasting_stop_of_many_threads_costs_little_and_is_unknown_time() {
    const THREADS: usize = 3000;
    let process = Process::new(THREADS, 0, false);
    process.0.status.set(Some(TaskStatus { letter: 'S', tracer: None }));
    let (mut sampler, mut times) = (process.sampler(), Times::default());
    process.set(7, 0, Do::Hold);
    (0..200).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    (0..THREADS).for_each(|n| process.set(n, 200_000, Do::Stopped('T')));
    process.0.status.set(Some(TaskStatus { letter: 'T', tracer: None }));
    let mut polled = vec![sampler.stats.tasks_polled];
    (200..400).for_each(|n| {
        sample(&mut sampler, n * 1000, &mut times);
        polled.push(sampler.stats.tasks_polled);
    });
    let most = polled[10..].windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(most <= 20, "{most} threads polled in one sample of a stopped program");
    assert!(polled[10] - polled[0] < 6 * THREADS as u64, "{} polls at the beginning of the stop", polled[10] - polled[0]);
    (0..THREADS).for_each(|n| process.set(n, 200_000, if n == 7 { Do::Hold } else { Do::Sleep }));
    process.0.status.set(Some(TaskStatus { letter: 'S', tracer: None }));
    let before = sampler.stats.tasks_polled;
    (400..500).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    let after = sampler.stats.tasks_polled - before;
    assert!(after < 3 * THREADS as u64, "{after} polls in the 100 samples after the stop");
    sampler.finish(Nanos::from_micros(1_499_000), &mut times);
    for n in [0, 7, 8, 1500, 2999] {
        let (unknown, total) = (times.millis(n, &[State::Unknown]), times.millis(n, &State::ALL));
        assert!((unknown - 201.0).abs() <= 3.0 && (total - 499.0).abs() < 0.01, "{n}: {unknown} ms unknown of {total}");
    }
    assert!((times.millis(7, &HOLDING) - 298.0).abs() <= 3.0, "{}", times.millis(7, &HOLDING));
    let stops: Vec<Stop> = sampler.stop_detector.stops().collect();
    assert!(matches!(stops[..], [Stop { cause: StopCause::Signal, seconds }] if (seconds - 0.2).abs() < 0.003), "{stops:?}");
}

#[test]
fn a_stop_that_lasts_to_the_end_of_the_window_is_unknown_time() {
    let process = Process::new(100, 0, false);
    process.0.status.set(Some(TaskStatus { letter: 'S', tracer: None }));
    let (mut sampler, mut times) = (process.sampler(), Times::default());
    (0..100).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    (0..100).for_each(|n| process.set(n, 100_000, Do::Stopped('T')));
    process.0.status.set(Some(TaskStatus { letter: 'T', tracer: None }));
    (100..200).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
    sampler.finish(Nanos::from_micros(1_199_000), &mut times);
    for n in [0, 50, 99] {
        let (unknown, total) = (times.millis(n, &[State::Unknown]), times.millis(n, &State::ALL));
        assert!((unknown - 100.0).abs() <= 2.0 && (total - 199.0).abs() < 0.01, "{n}: {unknown} ms unknown of {total}");
    }
}

#[test]
fn thread_states_of_no_thread_do_not_cause_reads_for_ever() {
    for inner_namespace in [false, true] {
        let process = Process::new(20, 3, inner_namespace);
        let (mut sampler, mut times) = (process.sampler(), Times::default());
        (0..300).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
        let before = process.count(1);
        (300..1300).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
        let lists = process.count(1) - before;
        assert!(lists <= 12, "the list of threads was read {lists} times in a second, inner namespace: {inner_namespace}");
        assert_eq!(sampler.threads().filter(|(info, _)| info.python).count(), 20);
        assert_eq!(process.count(2), if inner_namespace { 20 } else { 0 }, "ids of the inner namespace");
        process.set(5, 0, Do::Exited);
        process.0.threads.borrow_mut().push(Thread { does: Do::Sleep, cpu: 0, runs: 1 });
        (1300..1500).for_each(|n| sample(&mut sampler, n * 1000, &mut times));
        assert_eq!((sampler.threads().count(), process.count(2)), (20, if inner_namespace { 21 } else { 0 }));
    }
}
