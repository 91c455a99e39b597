//! The vocabulary between the capture side and the report side: the states of a thread, and what a
//! sample says about it.
//!
//! The capture side writes [`StateSlice`]s and [`GilSample`]s into a [`Sink`]; the report side
//! reads them. Neither imports the other.

mod descendants;
mod info;
mod kernel_event;
mod raw;
mod sink;
mod slice;
mod stack;
mod state;
mod stop;

pub use descendants::{Descendant, DescendantCpu, ProcessKind, ProcessTree, RefusedProcess};
pub use info::{CaptureStats, EventCounts, SampleCounts, TargetInfo, ThreadInfo, ThreadSnapshot};
pub use kernel_event::{CpuRun, GilView, OffCpu, ThreadNow, Wakeup};
pub use raw::{GilReading, RawEvent, RawGil, RawHolder, RawSample, RawTask, RawThread, Resolver, RunnableState, SchedStat, TaskState};
pub use sink::Sink;
pub use slice::{GilSample, Holder, IntervalKind, MeasuredInterval, StateSlice, ThreadTotals};
pub use stack::{Frame, Function, Stack, StackStatus};
pub use state::{Evidence, State, StateTimes};
pub use stop::{Stop, StopCause, Tracer};
