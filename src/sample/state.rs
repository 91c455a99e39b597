//! A thread's state, how it is known, and time by state.

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
    /// Wants the GIL: in `take_gil`, or in `drop_gil` until another thread has taken it (a forced
    /// switch).
    Waiting,
    /// On a CPU without the GIL.
    Native,
    /// Runnable without a CPU, neither holding nor wanting the GIL.
    Starved,
    /// Asleep on a futex that is not the GIL.
    Lock,
    /// Asleep in any other system call.
    Io,
    /// Not known.
    Unknown,
}

impl State {
    /// The number of states.
    pub const COUNT: usize = 10;

    /// All states, in the order in which flame graphs, timelines and tables show them.
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

    /// Its name in reports, flame graphs and timelines.
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

/// How the state of a slice is known. Every classification carries it, so that a doubtful one can
/// be distinguished from a certain one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Evidence {
    /// The GIL's own memory names this thread as its holder, before and after the sample.
    GilHolder,
    /// Asleep on a futex inside the GIL's structure.
    GilFutex,
    /// 3.15: the thread state's `gil_requested` flag.
    GilRequested,
    /// Woken from a wait for the GIL and not run since: the kernel's count of runs has not moved.
    WokenNotRun,
    /// In the run queue, by its kernel stack: woken from a sleep.
    KernelStack,
    /// In the run queue, by its kernel stack or counts of switches: it got a drop request, released
    /// the GIL, and was preempted by the thread that it woke.
    PushedOff,
    /// Asleep in a system call that is not the GIL's.
    Syscall,
    /// Asleep at the last sample and not run since.
    NotRunSince,
    /// It waited for the GIL at the last sample and cannot have had it since: CPython's
    /// `switch_number` accounts for other holders only.
    SameHolder,
    /// Divided by conservation of CPU time over several samples.
    Conservation,
    /// Stopped by a signal or a tracer, or frozen by the cgroup.
    Stopped,
    /// Nothing could be read.
    Unread,
    /// Owns the GIL and is off the CPU outside any system call: a page fault.
    HolderFault,
    /// Owns the GIL and sleeps on a futex that is not the GIL: a lock, or another thread.
    HolderLock,
    /// In the run queue, by its counts of switches: woken from a sleep.
    SwitchCounts,
}

impl Evidence {
    /// Whether the thread was in the run queue. The kernel adds that time to its count when the
    /// thread gets a CPU.
    pub fn in_run_queue(self) -> bool {
        matches!(self, Evidence::WokenNotRun | Evidence::KernelStack | Evidence::PushedOff | Evidence::SwitchCounts)
    }
}

/// Nanoseconds in each state. For a slice, the parts add up to its duration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StateTimes([f64; State::COUNT]);

impl StateTimes {
    /// All of `nanos` in one state.
    pub fn single(state: State, nanos: f64) -> StateTimes {
        let mut times = StateTimes::default();
        times.add(state, nanos);
        times
    }

    /// Adds `nanos` to one state.
    pub fn add(&mut self, state: State, nanos: f64) {
        self.0[state as usize] += nanos;
    }

    /// Adds the time of `other`, state by state.
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
