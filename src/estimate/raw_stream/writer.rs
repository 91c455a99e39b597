//! Writes a stream.

use super::{Base, HEAD};
use crate::ids::Addr;
use crate::sample::{RawEvent, RawSample, RunnableState, SchedStat, StackStatus, TaskState};
use crate::units::Nanos;
use std::fmt::Write as _;
use std::io::{self, Write};

fn number<T: PartialEq>(all: &[T], one: &T) -> i64 {
    all.iter().position(|other| other == one).map_or(-1, |at| at as i64)
}

fn flags(bits: &[bool]) -> i64 {
    bits.iter().enumerate().map(|(bit, set)| i64::from(*set) << bit).sum()
}

/// An optional bit as a number.
fn maybe(bit: Option<bool>) -> i64 {
    bit.map_or(-1, i64::from)
}

/// Writes a stream.
#[derive(Debug)]
pub struct RawWriter<W> {
    out: W,
    base: Base,
    threads: usize,
    line: String,
}

impl<W: Write> RawWriter<W> {
    /// A new stream.
    pub fn new(mut out: W) -> io::Result<RawWriter<W>> {
        writeln!(out, "{HEAD}")?;
        Ok(RawWriter { out, base: Base::default(), threads: 0, line: String::new() })
    }

    /// Writes one event.
    pub fn event(&mut self, event: &RawEvent<'_>) -> io::Result<()> {
        self.line.clear();
        match *event {
            RawEvent::Start { id, tid, at, stat, just_started } => {
                self.line.push('t');
                self.put(&[id.0.into(), tid.0.into()]);
                self.time(at);
                self.put(&[i64::from(just_started)]);
                self.stat(self.threads, stat);
                self.threads += 1;
            }
            RawEvent::Restart { index, at, stat } => {
                self.line.push('r');
                self.put(&[index as i64]);
                self.time(at);
                self.stat(index, stat);
            }
            RawEvent::Sample(raw) => self.sample(raw),
            RawEvent::Last { index, span, held, in_c_call } => {
                self.line.push('l');
                self.put(&[index as i64]);
                self.time(span.0);
                self.time(span.1);
                self.put(&[held.into(), in_c_call.into()]);
            }
            RawEvent::Finish { index, at, stat } => {
                self.line.push('f');
                self.put(&[index as i64]);
                self.time(at);
                self.stat(index, stat);
            }
            RawEvent::Remove(gone) => {
                self.line.push('d');
                self.put(&gone.iter().map(|index| *index as i64).collect::<Vec<_>>());
                self.threads -= gone.len().min(self.threads);
                self.base.remove(gone);
            }
        }
        self.line.push('\n');
        self.out.write_all(self.line.as_bytes())
    }

    /// Ends the stream, and gives back what it was written to.
    pub fn finish(self) -> W {
        self.out
    }

    fn put(&mut self, numbers: &[i64]) {
        for number in numbers {
            let _ = match number {
                -1 => write!(self.line, " -"),
                number => write!(self.line, " {number}"),
            };
        }
    }

    fn time(&mut self, at: Nanos) {
        let at = at.as_nanos() as i64;
        let since = at.wrapping_sub(self.base.time);
        self.base.time = at;
        let _ = write!(self.line, " {since}");
    }

    fn stat(&mut self, index: usize, stat: Option<SchedStat>) {
        let Some(stat) = stat else { return self.line.push_str(" -") };
        let now = [stat.cpu.as_nanos() as i64, stat.run_queue.as_nanos() as i64, stat.runs as i64];
        let Some(before) = self.base.stat(index) else { return self.line.push_str(" -") };
        for (now, before) in now.into_iter().zip(before) {
            let _ = write!(self.line, " {}", now.wrapping_sub(*before));
            *before = now;
        }
    }

    fn sample(&mut self, raw: &RawSample) {
        self.line.push('s');
        self.time(raw.span.0);
        self.time(raw.span.1);
        self.put(&[flags(&[raw.is_stopped]), raw.gils.len() as i64]);
        for gil in &raw.gils {
            let addr = |addr: Option<Addr>| addr.map_or(-1, |addr| addr.0 as i64);
            self.put(&[gil.id.0.into(), maybe(gil.collecting), addr(gil.holder_after)]);
            match &gil.holder {
                Some(holder) => self.put(&[holder.index as i64, holder.id.0.into()]),
                None => self.put(&[-1]),
            }
            match &gil.reading {
                Some(now) => self.put(&[
                    flags(&[now.enabled, now.holder.is_some()]),
                    now.last_holder.0 as i64,
                    now.switches as i64,
                    now.interval_us as i64,
                ]),
                None => self.put(&[-1]),
            }
        }
        for thread in &raw.threads {
            let task = &thread.task;
            let idle = thread.stack.frames.is_empty() && thread.stack.status == StackStatus::Complete;
            self.put(&[thread.index as i64, thread.gil.map_or(-1, |gil| gil as i64), thread.tstate.0 as i64]);
            self.put(&[number(&TaskState::ALL, &task.task_state), flags(&[false, thread.in_c_call, idle])]);
            self.put(&[maybe(thread.requested), maybe(thread.drop_request)]);
            let state = |state: Option<RunnableState>| state.map_or(-1, |state| number(&RunnableState::ALL, &state));
            self.put(&[state(task.runnable_state), state(task.by_counts)]);
            self.stat(thread.index, task.stat);
        }
    }
}
