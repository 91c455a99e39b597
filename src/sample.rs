//! The vocabulary between the two halves of gilprof: what a thread can be doing, and what one slice of its time says.
//!
//! The capture side produces [`StateSlice`]s and [`GilSample`]s into a [`Sink`]; the report side consumes them. Neither imports the other.
//! A slice is a stretch of one thread's wall time whose state has been judged. Where one look could not tell (a runnable thread may
//! be running native code, starved of CPU, or just woken to take the GIL), the time is split by what the kernel says of the CPU time used.

use crate::ids::{GilId, ThreadId, Tid};
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A thread's state, in full detail. The first four are all `holding` in the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Owns the GIL and runs bytecode.
    HoldingPython,
    /// Owns the GIL and is inside a C call.
    HoldingNative,
    /// Owns the GIL and sleeps in the kernel.
    HoldingBlocked,
    /// Owns the GIL and has no CPU.
    HoldingStarved,
    /// Wants the GIL: in `take_gil`, or in `drop_gil` until a forced switch is taken.
    Waiting,
    /// On a CPU without the GIL.
    Native,
    /// Runnable without a CPU, neither holding nor wanting the GIL.
    Starved,
    /// Asleep on a futex that is not the GIL.
    Lock,
    /// Asleep in any other system call.
    Io,
    /// Could not be told.
    Unknown,
}

impl State {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// All of them, in the order in which pictures and tables show them.
    pub const ALL: [State; State::COUNT] = [
        State::HoldingPython,
        State::HoldingNative,
        State::HoldingBlocked,
        State::HoldingStarved,
        State::Waiting,
        State::Native,
        State::Starved,
        State::Lock,
        State::Io,
        State::Unknown,
    ];

    /// Whether the thread owns the GIL.
    pub fn is_holding(self) -> bool {
        (self as usize) < State::Waiting as usize
    }

    /// The word for it in reports and pictures.
    pub fn label(self) -> &'static str {
        match self {
            State::HoldingPython => "holding (python)",
            State::HoldingNative => "holding (native)",
            State::HoldingBlocked => "holding (blocked)",
            State::HoldingStarved => "holding (starved)",
            State::Waiting => "waiting",
            State::Native => "native",
            State::Starved => "starved",
            State::Lock => "lock",
            State::Io => "io",
            State::Unknown => "unknown",
        }
    }
}

/// How the state of a slice is known. Kept with every judgement, so that a doubtful one can be told from a plain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// The GIL's own memory names this thread as its holder, before and after the look.
    GilHolder,
    /// Asleep on a futex inside the GIL's structure.
    GilFutex,
    /// 3.15: the thread state's `gil_requested` flag.
    GilRequested,
    /// Woken from a wait for the GIL and not run since (the count of runs has not moved).
    WokenNotRun,
    /// In the run queue, as its kernel stack says: woken from a sleep.
    KernelStack,
    /// In the run queue, as its kernel stack says: it was told to let go of the GIL, did so, and was pushed off its CPU by the thread it woke.
    PushedOff,
    /// Asleep in a system call that is not the GIL's.
    Syscall,
    /// Asleep at the last look and not run since.
    NotRunSince,
    /// It waited for the GIL at the last look, and cannot have had it since: by CPython's own count of the changes of hands, only others did.
    SameHolder,
    /// Split by conservation of CPU time over a stretch.
    Conservation,
    /// The whole program stands still, stopped by a signal or a debugger.
    Stopped,
    /// Nothing could be read.
    Unread,
}

impl Evidence {
    /// Whether the thread was in the run queue, so that the kernel will have counted that time when it gets a CPU.
    pub fn in_run_queue(self) -> bool {
        matches!(self, Evidence::WokenNotRun | Evidence::KernelStack | Evidence::PushedOff)
    }
}

/// Time of one slice per state. The parts add up to the slice's duration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StateTimes([f64; State::COUNT]);

impl StateTimes {
    /// All of `nanos` in one state.
    pub fn whole(state: State, nanos: f64) -> StateTimes {
        let mut times = StateTimes::default();
        times.add(state, nanos);
        times
    }

    /// Adds `nanos` to one state.
    pub fn add(&mut self, state: State, nanos: f64) {
        self.0[state as usize] += nanos;
    }

    /// Adds another split to this one.
    pub fn merge(&mut self, other: &StateTimes) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Nanoseconds in one state.
    pub fn get(&self, state: State) -> f64 {
        self.0[state as usize]
    }

    /// Nanoseconds in which the thread owned the GIL.
    pub fn holding(&self) -> f64 {
        State::ALL.iter().filter(|s| s.is_holding()).map(|&s| self.get(s)).sum()
    }

    /// Nanoseconds in all states.
    pub fn total(&self) -> f64 {
        self.0.iter().sum()
    }
}

/// A Python function, as its code object names it. `Arc` identity is not equality: a code object met twice may make two.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Function {
    /// `co_qualname` where there is one (3.11+), else `co_name`.
    pub name: String,
    /// `co_filename`, as the target has it.
    pub file: String,
    /// `co_firstlineno`; 0 when the code object has none.
    pub first_line: u32,
}

/// One frame of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function.
    pub function: Arc<Function>,
    /// The current line; 0 when the line table gives none for this instruction.
    pub line: u32,
}

/// How much of a stack can be relied on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackStatus {
    /// Two reads agree from root to leaf.
    #[default]
    Whole,
    /// The frames given are agreed; what stood above them moved while it was read.
    Moving,
    /// The walk hit its bound or unreadable memory; the frames given are those that could be read, nearest the root missing.
    Cut,
}

/// A Python stack, root first. Empty for a thread that has not run Python yet, or has no thread state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Frames, root first, leaf last.
    pub frames: Vec<Frame>,
    /// How much of it can be relied on.
    pub status: StackStatus,
}

impl Stack {
    /// The stack of a thread that runs no Python.
    pub fn empty() -> Stack {
        Stack { frames: Vec::new(), status: StackStatus::Complete }
    }

    /// The innermost frame that is known.
    pub fn leaf(&self) -> Option<&Frame> {
        self.frames.last()
    }

    /// Whether the other stack has the very same functions, on whatever lines.
    pub fn same_functions(&self, other: &Stack) -> bool {
        let same = |(a, b): (&Frame, &Frame)| Arc::ptr_eq(&a.function, &b.function);
        std::ptr::eq(self, other)
            || self.status == other.status && self.frames.len() == other.frames.len() && self.frames.iter().zip(&other.frames).rev().all(same)
    }
}

/// What is fixed about a thread, or changes rarely. Sent before its first slice, and again when a name becomes known.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadInfo {
    /// Its number in this profile.
    pub id: ThreadId,
    /// The kernel's id.
    pub tid: Tid,
    /// `threading.Thread.name` where it could be read, else the kernel's `comm`.
    pub name: String,
    /// Whether it has a `PyThreadState`.
    pub python: bool,
    /// Whether it is the process's first thread.
    pub main: bool,
    /// The GIL that it uses, when it has a thread state.
    pub gil: Option<GilId>,
}

/// A stretch of one thread's time, judged.
#[derive(Clone, Debug)]
pub struct StateSlice<'a> {
    /// Whose time.
    pub thread: ThreadId,
    /// When the stretch ends, on the monotonic clock; it begins `split.total()` earlier.
    pub end: Nanos,
    /// What the time went to.
    pub times: StateTimes,
    /// How that is known.
    pub evidence: Evidence,
    /// The thread's stack at the look that ends the slice.
    pub stack: &'a Arc<Stack>,
    /// Who held this thread's GIL at that look, unless nobody or this thread itself.
    pub holder: Option<(ThreadId, &'a Arc<Stack>)>,
}

/// One reading of one GIL.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GilSample {
    /// Which GIL.
    pub gil: GilId,
    /// When, on the monotonic clock.
    pub at: Nanos,
    /// The wall time that this look stands for.
    pub span: Nanos,
    /// Who holds it.
    pub holder: Holder,
    /// CPython's exact count of changes of the holder; `None` where this version's place for it is not known.
    pub switches: Option<u64>,
    /// How many threads were seen to wait, those still undecided not among them.
    pub waiters: u32,
    /// Whether the cyclic garbage collector was at work under it; `None` where that is not known.
    pub collecting: Option<bool>,
}

/// Who holds a GIL at one look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// `locked` is 0, or the GIL is switched off.
    Nobody,
    /// This thread.
    Thread(ThreadId),
    /// It is held, but by a thread state that could not be matched with a thread.
    Unmatched,
}

/// Exact per-thread totals over the window, from the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ThreadTotals {
    /// CPU time used in the window.
    pub cpu: Nanos,
    /// Time runnable without a CPU in the window.
    pub run_queue: Nanos,
    /// Time between the first and the last look at it.
    pub seen: Nanos,
}

/// A stretch of a thread's time measured from kernel events, which no look is needed for. Only in exact mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredInterval {
    /// Whose time.
    pub thread: ThreadId,
    /// At which GIL.
    pub gil: GilId,
    /// What it did.
    pub kind: IntervalKind,
    /// From when, on the monotonic clock.
    pub begin: Nanos,
    /// To when.
    pub end: Nanos,
}

/// What an [`MeasuredInterval`] stretch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntervalKind {
    /// One `take_gil` that had to sleep, with the forced switch before it.
    Wait,
    /// A forced switch that no `take_gil` followed.
    HandOver,
    /// From a wait's end to the next release. Told only where both are seen: somebody was waiting at the release.
    Hold,
}

/// Where the capture side puts what it has judged. Called on the sampling thread: an implementation must not block.
pub trait Sink {
    /// A thread was met, or its name became known.
    fn thread(&mut self, facts: &ThreadInfo);
    /// A stretch of a thread's time. Slices of one thread come in order of time; they may come up to a block late.
    fn slice(&mut self, slice: &StateSlice<'_>);
    /// A GIL was read.
    fn gil(&mut self, look: &GilSample);
    /// Exact mode: a stretch has been measured. The slices already say how much waiting there was; this says in how many pieces.
    fn interval(&mut self, _measured: &MeasuredInterval) {}
    /// A thread is gone, or the window ends.
    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals);
}

/// What is known of the target as a whole. Filled by the capture side, printed by the report side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetInfo {
    /// The process id, as gilprof sees it.
    pub pid: i32,
    /// The interpreter's version, such as `3.11.7`; only `3.11` where the patch level could not be read.
    pub python: String,
    /// The executable's path, as the target's own mount namespace names it.
    pub executable: String,
    /// The command line.
    pub command: Vec<String>,
    /// Whether the interpreter is a free-threaded build.
    pub free_threaded: bool,
    /// Whether the GIL is on; false only on a free-threaded build.
    pub gil_enabled: bool,
    /// How many interpreters were seen at most.
    pub interpreters: u32,
    /// How many CPUs the target may use: affinity and cgroup quota taken together.
    pub cpus: f64,
    /// The least cgroup quota, in CPUs, where there is one.
    pub quota: Option<f64>,
    /// How many CPUs the machine has; `None` where it does not say.
    pub machine_cpus: Option<f64>,
    /// `sys.getswitchinterval()`, in microseconds, as last read; `None` where its place is not known.
    pub switch_interval_us: Option<u64>,
}

/// What is known of the measuring itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureStats {
    /// When the window began, on the monotonic clock.
    pub begin: Nanos,
    /// Length of the window.
    pub seconds: f64,
    /// Looks asked for per second.
    pub rate_hz: f64,
    /// Looks made.
    pub samples: u64,
    /// Looks whose time came while an earlier one still ran or gilprof had no CPU.
    pub missed: u64,
    /// Stacks whose top moved while it was read, so that only the agreed lower part was kept.
    pub torn: u64,
    /// Looks in which the GIL or the list of threads could not be read.
    pub failed: u64,
    /// gilprof's own CPU time as a share of one core over the window.
    pub profiler_cpu: f64,
    /// Whether waits come from kernel events instead of looks.
    pub exact: bool,
    /// Exact mode: kernel events taken.
    pub events: u64,
    /// Exact mode: kernel events that found no room and are missing; `None` when the kernel did not say how many.
    pub lost_events: Option<u64>,
    /// Exact mode: waits of threads that no look had met, too many to be kept, and so in no thread's figures.
    pub unmet_waits: u64,
    /// What the reader should know about how the figures came about, in words.
    pub warnings: Vec<String>,
}

/// One thread as a single look shows it, for `gilprof dump`.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadSnapshot {
    /// The kernel's id.
    pub tid: Tid,
    /// `threading.Thread.name` where it could be read, else the kernel's `comm`.
    pub name: String,
    /// Whether it has a `PyThreadState`.
    pub python: bool,
    /// What it was doing.
    pub state: State,
    /// How that is known.
    pub evidence: Evidence,
    /// Its Python stack.
    pub stack: Arc<Stack>,
}
