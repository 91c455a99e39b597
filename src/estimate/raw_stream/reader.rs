//! Reads a stream.

use super::{Base, HEAD, MOST};
use crate::ids::{Addr, GilId, ThreadId, Tid};
use crate::sample::{
    GilReading, RawEvent, RawGil, RawHolder, RawSample, RawTask, RawThread, RunnableState, SchedStat, Stack, StackStatus, TaskState,
};
use crate::units::Nanos;
use std::io::{self, BufRead};
use std::sync::Arc;

/// Longest line.
const MAX_LINE: u64 = 16 << 20;

/// Reads a stream.
#[derive(Debug)]
pub struct RawReader<R> {
    lines: R,
    base: Base,
    threads: usize,
    text: Vec<u8>,
    sample: RawSample,
    gone: Vec<usize>,
    /// The stacks of threads that run Python, and of those that do not.
    stacks: [Arc<Stack>; 2],
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// The numbers of a line.
struct Numbers<'l>(std::str::SplitAsciiWhitespace<'l>);

impl Numbers<'_> {
    fn optional(&mut self) -> io::Result<Option<i64>> {
        match self.0.next() {
            Some("-") => Ok(None),
            Some(word) => word.parse().map(Some).map_err(|_| invalid("a word is no number")),
            None => Err(invalid("a line is too short")),
        }
    }

    fn next(&mut self) -> io::Result<i64> {
        self.optional()?.ok_or_else(|| invalid("a number is missing"))
    }

    fn index(&mut self) -> io::Result<usize> {
        usize::try_from(self.next()?).ok().filter(|index| *index < MOST).ok_or_else(|| invalid("an index is out of range"))
    }

    fn bit(&mut self) -> io::Result<Option<bool>> {
        Ok(self.optional()?.map(|bit| bit != 0))
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> io::Result<Option<T>> {
        let Some(at) = self.optional()? else { return Ok(None) };
        usize::try_from(at).ok().and_then(|at| all.get(at)).copied().map(Some).ok_or_else(|| invalid("a state is unknown"))
    }

    fn time(&mut self, base: &mut Base) -> io::Result<Nanos> {
        base.time = base.time.wrapping_add(self.next()?);
        Ok(Nanos::from_nanos(base.time.max(0) as u64))
    }

    fn stat(&mut self, base: &mut Base, index: usize) -> io::Result<Option<SchedStat>> {
        let Some(cpu) = self.optional()? else { return Ok(None) };
        let more = [cpu, self.next()?, self.next()?];
        let counts = base.stat(index).ok_or_else(|| invalid("an index is out of range"))?;
        for (count, more) in counts.iter_mut().zip(more) {
            *count = count.wrapping_add(more);
        }
        let nanos = |count: i64| Nanos::from_nanos(count.max(0) as u64);
        Ok(Some(SchedStat { cpu: nanos(counts[0]), run_queue: nanos(counts[1]), runs: counts[2] as u64 }))
    }
}

impl<R: BufRead> RawReader<R> {
    /// Opens a stream. An error if it is none.
    pub fn new(lines: R) -> io::Result<RawReader<R>> {
        let running = Stack { frames: Vec::new(), status: StackStatus::Truncated };
        let mut reader = RawReader {
            lines,
            base: Base::default(),
            threads: 0,
            text: Vec::new(),
            sample: RawSample::default(),
            gone: Vec::new(),
            stacks: [Arc::new(running), Arc::new(Stack::empty())],
        };
        if !reader.read_line()? || reader.text.trim_ascii_end() != HEAD.as_bytes() {
            return Err(invalid("this is no stream of samples"));
        }
        Ok(reader)
    }

    fn read_line(&mut self) -> io::Result<bool> {
        self.text.clear();
        let n = io::Read::take(&mut self.lines, MAX_LINE).read_until(b'\n', &mut self.text)?;
        if n as u64 == MAX_LINE {
            return Err(invalid("a line is too long"));
        }
        Ok(n > 0)
    }

    /// Gives each event to `each`, to the end of the stream. A last line that was cut off is left
    /// out.
    pub fn replay(&mut self, each: &mut dyn FnMut(&RawEvent<'_>)) -> io::Result<()> {
        while self.read_line()? && self.text.ends_with(b"\n") {
            let text = std::mem::take(&mut self.text);
            let line = std::str::from_utf8(&text).map_err(|_| invalid("a line is no text"))?;
            self.event(line, each)?;
            self.text = text;
        }
        Ok(())
    }

    fn event(&mut self, line: &str, each: &mut dyn FnMut(&RawEvent<'_>)) -> io::Result<()> {
        let mut numbers = Numbers(line.get(1..).unwrap_or_default().split_ascii_whitespace());
        let (of, base) = (&mut numbers, &mut self.base);
        match line.as_bytes().first() {
            Some(b't') => {
                let (id, tid) = (ThreadId(of.next()? as u32), Tid(of.next()? as i32));
                let (at, just_started) = (of.time(base)?, of.next()? != 0);
                let stat = of.stat(base, self.threads)?;
                if self.threads >= MOST {
                    return Err(invalid("there are too many threads"));
                }
                self.threads += 1;
                each(&RawEvent::Start { id, tid, at, stat, just_started });
            }
            Some(b'r') => {
                let (index, at) = (of.index()?, of.time(base)?);
                each(&RawEvent::Restart { index, at, stat: of.stat(base, index)? });
            }
            Some(b'f') => {
                let (index, at) = (of.index()?, of.time(base)?);
                each(&RawEvent::Finish { index, at, stat: of.stat(base, index)? });
            }
            Some(b'l') => {
                let (index, span) = (of.index()?, (of.time(base)?, of.time(base)?));
                each(&RawEvent::Last { index, span, held: of.next()? != 0, in_c_call: of.next()? != 0 });
            }
            Some(b'd') => {
                self.gone.clear();
                while of.0.clone().next().is_some() {
                    self.gone.push(of.index()?);
                }
                self.threads = self.threads.saturating_sub(self.gone.len());
                self.base.remove(&self.gone);
                each(&RawEvent::Remove(&self.gone));
            }
            Some(b's') => {
                self.sample(of)?;
                each(&RawEvent::Sample(&self.sample));
            }
            Some(b'#') => {}
            _ => return Err(invalid("a line is of no known kind")),
        }
        Ok(())
    }

    fn sample(&mut self, of: &mut Numbers<'_>) -> io::Result<()> {
        let (raw, base) = (&mut self.sample, &mut self.base);
        raw.span = (of.time(base)?, of.time(base)?);
        raw.is_stopped = of.next()? & 1 != 0;
        raw.gils.clear();
        raw.threads.clear();
        for _ in 0..of.index()? {
            let (id, collecting) = (GilId(of.next()? as u32), of.bit()?);
            let holder_after = of.optional()?.map(|at| Addr(at as u64));
            let index = of.optional()?;
            let holder = match index.and_then(|index| usize::try_from(index).ok()) {
                Some(index) => Some(RawHolder { index, id: ThreadId(of.next()? as u32), stack: self.stacks[0].clone() }),
                None => None,
            };
            let reading = match of.optional()? {
                None => None,
                Some(bits) => {
                    let (last_holder, switches, interval_us) = (Addr(of.next()? as u64), of.next()? as u64, of.next()? as u64);
                    let holder = (bits & 2 != 0).then_some(last_holder);
                    Some(GilReading { enabled: bits & 1 != 0, holder, last_holder, switches, interval_us })
                }
            };
            raw.gils.push(RawGil { id, reading, holder_after, holder, collecting });
        }
        while of.0.clone().next().is_some() {
            let (index, gil) = (of.index()?, of.optional()?.and_then(|gil| usize::try_from(gil).ok()));
            let (tstate, task_state) = (Addr(of.next()? as u64), of.one_of(&TaskState::ALL)?.unwrap_or_default());
            let bits = of.next()?;
            let (requested, drop_request) = (of.bit()?, of.bit()?);
            let (runnable_state, by_counts) = (of.one_of(&RunnableState::ALL)?, of.one_of(&RunnableState::ALL)?);
            let stat = of.stat(base, index)?;
            let task = RawTask { task_state, stat, runnable_state, by_counts };
            let stack = self.stacks[usize::from(bits & 4 != 0)].clone();
            raw.threads.push(RawThread { index, gil, tstate, task, requested, in_c_call: bits & 2 != 0, drop_request, stack });
        }
        Ok(())
    }
}
