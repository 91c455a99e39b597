//! Facts about threads, the target and the measurement that change rarely or never.

use super::{DescendantCpu, Evidence, ProcessTree, Stack, State, Stop};
use crate::ids::{GilId, ThreadId, Tid};
use crate::units::Nanos;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A thread's identity. Sent before its first slice, and again when its name becomes known.
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

/// The target as a whole. Filled by the capture side, printed by the report side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetInfo {
    /// The process id, as gilprof sees it.
    pub pid: i32,
    /// The process that started it, or that adopted it since; `None` where the kernel did not say,
    /// and in recordings made before this was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<i32>,
    /// The interpreter's version, such as `3.11.7`; only `3.11` where the patch level could not be
    /// read.
    pub python: String,
    /// The executable's path, as the target's own mount namespace names it.
    pub executable: String,
    /// The command line.
    pub command: Vec<String>,
    /// Whether the interpreter is a free-threaded build.
    pub free_threaded: bool,
    /// Whether the GIL is on; false only on a free-threaded build.
    pub gil_enabled: bool,
    /// The largest number of interpreters seen at once.
    pub interpreters: u32,
    /// How many CPUs the target's work can use: the affinity of the threads that work and the
    /// cgroup quota taken together.
    pub cpus: f64,
    /// The smallest cgroup quota, in CPUs, where there is one.
    pub quota: Option<f64>,
    /// How many CPUs the machine has; `None` where it does not say.
    pub machine_cpus: Option<f64>,
    /// `sys.getswitchinterval()`, in microseconds, as last read; `None` where its place is not
    /// known.
    pub switch_interval_us: Option<u64>,
}

impl TargetInfo {
    /// Whether gilprof can see which threads of this Python wait for the GIL: from 3.7 on. Older
    /// versions show its holder only, and their other threads are `unknown`.
    pub fn shows_waits(&self) -> bool {
        let mut numbers = self.python.split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (3, 7),
            // Not read: no old version, because those are read from a text `3.6.9`.
            _ => true,
        }
    }
}

/// How many samples of a window there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleCounts {
    /// Samples taken. Recordings made before this name call it `looks`.
    #[serde(alias = "looks")]
    pub samples: u64,
    /// Samples whose time came while an earlier one was still taken, or while gilprof had no CPU.
    pub missed: u64,
    /// Stacks whose top changed while it was read, so that only the agreed lower part was kept.
    pub torn: u64,
    /// Samples in which the GIL or the list of threads could not be read.
    pub failed: u64,
}

/// The events of the kernel engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventCounts {
    /// Events taken.
    pub events: u64,
    /// Events that found no room and are missing; `None` when the kernel did not say how many.
    pub lost_events: Option<u64>,
}

/// How the measurement went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureStats {
    /// When the window began, on the monotonic clock.
    pub begin: Nanos,
    /// Length of the window.
    pub seconds: f64,
    /// The requested sampling rate.
    pub rate_hz: f64,
    /// How many samples there were.
    #[serde(flatten)]
    pub counts: SampleCounts,
    /// gilprof's own CPU time as a share of one core over the window.
    pub profiler_cpu: f64,
    /// Of the CPUs that the target's main thread may use, how many nothing used but gilprof, on
    /// average; `None` where the kernel did not say, and in recordings made before this was
    /// recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_cpus: Option<f64>,
    /// Whether the kernel shows gilprof the kernel stacks of runnable threads; without them
    /// counts of switches or CPU time decide. `None` in recordings made before this was recorded.
    pub kernel_stacks: Option<bool>,
    /// Whether counts of switches decide in their place, before CPU time.
    pub switch_counts: bool,
    /// Whether waits come from kernel events instead of samples.
    pub exact: bool,
    /// Whether kernel events and a clock in the kernel replace all samples.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kernel_engine: bool,
    /// Why the program is sampled, where the kernel engine was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_reason: Option<String>,
    /// The kernel events.
    #[serde(flatten)]
    pub events: EventCounts,
    /// What stopped the program, and for how long.
    pub stops: Vec<Stop>,
    /// The CPU time of the processes below the target; `None` where the kernel did not say, and in
    /// recordings made before this was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub descendants: Option<DescendantCpu>,
    /// Of one of several processes that were measured together: what is known of all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<ProcessTree>,
    /// What the reader should know about how the figures were measured, as sentences.
    pub warnings: Vec<String>,
    /// Why the window is shorter than it was meant to be; `None` if it is complete, and in
    /// recordings made before this was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cut_short: Option<String>,
}

/// One thread in a single sample, for `gilprof dump`.
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
    /// How the state is known.
    pub evidence: Evidence,
    /// Its Python stack.
    pub stack: Arc<Stack>,
}
