//! Records, as what the capture side told. The inverse of [`encode`](super::encode); whatever the bytes are, memory and time stay bounded.

use super::bytes::{Broken, Reader};
use super::encode::{self, gil_sample, slice, CaptureInfo, INVALID_TIME};
use crate::ids::{GilId, ThreadId, Tid};
use crate::sample::*;
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// How many threads may be without an end, GILs met, and frames be in all stacks that are kept ready.
pub(super) const MAX_THREADS: usize = 1 << 20;
const MAX_GILS: usize = 1 << 16;
const MAX_READY: usize = 1 << 19;

/// Reads chunk after chunk.
#[derive(Debug)]
pub struct Decoder {
    tables: DecoderTables,
    threads: FxHashMap<ThreadId, (u64, u64)>,
    gils: FxHashMap<GilId, u64>,
    holder: (u32, u64),
    last_thread: u64,
    last_end: u64,
    last_sample: u64,
    last_span: u64,
    capture_info: CaptureInfo,
    /// The last record was met.
    pub last: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder {
            tables: DecoderTables::default(),
            threads: FxHashMap::default(),
            gils: FxHashMap::default(),
            holder: (u32::MAX, u64::MAX),
            last_thread: 0,
            last_end: 0,
            last_sample: 0,
            last_span: 0,
            capture_info: CaptureInfo::default(),
            last: false,
        }
    }
}

impl Decoder {
    /// The target and the window as they were told of last, and the time of the last look.
    pub fn capture_info(self) -> (TargetInfo, CaptureStats, Nanos) {
        (self.capture_info.target, self.capture_info.window, Nanos::from_nanos(self.last_sample))
    }

    /// Tells `sink` what a chunk holds.
    pub fn chunk(&mut self, records: &[u8], sink: &mut dyn Sink) -> Result<(), Broken> {
        let mut reader = Reader::new(records);
        while !reader.is_done() {
            self.record(&mut reader, sink)?;
        }
        Ok(())
    }

    fn record(&mut self, from: &mut Reader<'_>, sink: &mut dyn Sink) -> Result<(), Broken> {
        match from.byte()? {
            tag if tag & slice::SLICE != 0 => self.slice(tag, from, sink)?,
            encode::GIL => self.gil(from, sink)?,
            encode::THREAD => {
                let info = thread(from)?;
                self.register(info.id)?;
                sink.thread(&info);
            }
            encode::EXACT => self.exact(from, sink)?,
            encode::THREAD_END => {
                let id = ThreadId(from.small()?);
                let [cpu, run_queue, seen] = [from.number()?, from.number()?, from.number()?].map(Nanos::from_nanos);
                self.threads.remove(&id);
                sink.thread_end(id, ThreadTotals { cpu, run_queue, seen });
            }
            encode::STRING => self.tables.string(from.text()?)?,
            encode::FUNCTION => self.tables.function(from)?,
            encode::FRAME => self.tables.frame(from)?,
            encode::RESET => {
                self.tables = DecoderTables::default();
                self.threads.values_mut().for_each(|(_, stack)| *stack = u64::MAX);
                self.holder = (u32::MAX, u64::MAX);
            }
            encode::CAPTURE_INFO => {
                self.capture_info = serde_json::from_slice(from.bytes()?).map_err(|_| Broken("the facts make no sense"))?
            }
            encode::LAST => self.last = true,
            _ => return Err(Broken("a record is of no known kind")),
        }
        Ok(())
    }

    /// A thread is told of, for the first time or again.
    fn register(&mut self, thread: ThreadId) -> Result<(), Broken> {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&thread) {
            return Err(Broken("there are more threads than can be"));
        }
        self.threads.entry(thread).or_insert((0, u64::MAX));
        Ok(())
    }

    fn slice(&mut self, tag: u8, from: &mut Reader<'_>, sink: &mut dyn Sink) -> Result<(), Broken> {
        let has = |bit: u8| tag & bit != 0;
        let how = from.byte()?;
        let evidence = *encode::EVIDENCE.get(usize::from(how & 0x0f)).ok_or(Broken("no such evidence"))?;
        self.last_thread = from.step(self.last_thread)?;
        let thread = ThreadId(u32::try_from(self.last_thread).map_err(|_| Broken("no such thread"))?);
        let end = if has(slice::AT_SAMPLE) { self.last_sample } else { from.step(self.last_end)? };
        let known = self.threads.get(&thread).copied();
        let (last_end, last_stack) = known.unwrap_or((0, u64::MAX));
        let times = match how >> 4 {
            slice::MIXED => mixed(from)?,
            state => {
                let state = *State::ALL.get(usize::from(state)).ok_or(Broken("no such state"))?;
                let length = if has(slice::CONTIGUOUS) { end.saturating_sub(last_end) } else { from.number()? };
                StateTimes::single(state, length as f64)
            }
        };
        let stack = if has(slice::SAME_STACK) { last_stack } else { from.number()? };
        if has(slice::WAITED_ON) && !has(slice::SAME_HOLDER) {
            self.holder = (from.small()?, from.number()?);
        }
        self.register(thread)?;
        self.threads.insert(thread, (end, stack));
        self.last_end = end;
        let holder_stack = if has(slice::WAITED_ON) { Some(self.tables.stack(self.holder.1)?) } else { None };
        let stack = self.tables.stack(stack)?;
        let holder = holder_stack.as_ref().map(|holder_stack| (ThreadId(self.holder.0), holder_stack));
        sink.slice(&StateSlice { thread, end: Nanos::from_nanos(end), times, evidence, stack: &stack, holder });
        Ok(())
    }

    fn gil(&mut self, from: &mut Reader<'_>, sink: &mut dyn Sink) -> Result<(), Broken> {
        let gil = GilId(from.small()?);
        let bits = from.byte()?;
        let has = |bit: u8| bits & bit != 0;
        let at = from.step(self.last_sample)?;
        let span = from.step(self.last_span)?;
        let holder = if has(gil_sample::HELD) {
            Holder::Thread(ThreadId(from.small()?))
        } else if has(gil_sample::UNMATCHED) {
            Holder::Unmatched
        } else {
            Holder::Nobody
        };
        let switches = if has(gil_sample::SWITCHES) {
            let known = self.gils.get(&gil).copied();
            if known.is_none() && self.gils.len() >= MAX_GILS {
                return Err(Broken("there are more GILs than can be"));
            }
            let now = from.step(known.unwrap_or(0))?;
            self.gils.insert(gil, now);
            Some(now)
        } else {
            None
        };
        let waiters = from.small()?;
        (self.last_sample, self.last_span) = (at, span);
        let collecting = has(gil_sample::KNOWN).then_some(has(gil_sample::COLLECTING));
        sink.gil(&GilSample { gil, at: Nanos::from_nanos(at), span: Nanos::from_nanos(span), holder, switches, waiters, collecting });
        Ok(())
    }

    fn exact(&mut self, from: &mut Reader<'_>, sink: &mut dyn Sink) -> Result<(), Broken> {
        let (thread, gil) = (ThreadId(from.small()?), GilId(from.small()?));
        let stretches = [IntervalKind::Wait, IntervalKind::ForcedSwitch, IntervalKind::Hold];
        let kind = *stretches.get(usize::from(from.byte()?)).ok_or(Broken("no such stretch"))?;
        let begin = from.step(self.last_sample)?;
        let end = from.step(begin)?;
        sink.interval(&MeasuredInterval { thread, gil, kind, begin: Nanos::from_nanos(begin), end: Nanos::from_nanos(end) });
        Ok(())
    }
}

fn thread(from: &mut Reader<'_>) -> Result<ThreadInfo, Broken> {
    let id = ThreadId(from.small()?);
    let tid = Tid(from.step(0)? as i32);
    let name = from.text()?.to_string();
    let bits = from.byte()?;
    let gil = from.small()?.checked_sub(1).map(GilId);
    Ok(ThreadInfo { id, tid, name, python: bits & 1 != 0, main: bits & 2 != 0, gil })
}

fn mixed(from: &mut Reader<'_>) -> Result<StateTimes, Broken> {
    let bits = from.number()?;
    let mut times = StateTimes::default();
    for (n, &state) in State::ALL.iter().enumerate() {
        if bits >> n & 1 != 0 {
            times.add(state, from.number()? as f64);
        }
    }
    if bits >> INVALID_TIME & 1 != 0 {
        times.add(State::Unknown, f64::NAN);
    }
    Ok(times)
}

/// What has a number.
#[derive(Debug, Default)]
struct DecoderTables {
    strings: Vec<String>,
    text: usize,
    functions: Vec<Arc<Function>>,
    /// Outer frame, function, line, depth.
    frames: Vec<(u32, u32, u32, u32)>,
    ready: FxHashMap<u64, Arc<Stack>>,
    ready_frames: usize,
}

impl DecoderTables {
    fn string(&mut self, text: &str) -> Result<(), Broken> {
        // What is written may pass the bounds by one stack's worth.
        if self.text > 2 * encode::MAX_TEXT {
            return Err(Broken("there is more text than can be"));
        }
        self.text += text.len() + 64;
        self.strings.push(text.into());
        Ok(())
    }

    fn function(&mut self, from: &mut Reader<'_>) -> Result<(), Broken> {
        let string = |number: u32| self.strings.get(number as usize).cloned().ok_or(Broken("no such string"));
        let function = Function { name: string(from.small()?)?, file: string(from.small()?)?, first_line: from.small()? };
        // A function holds its strings once more: a short record may stand for long ones.
        self.text += function.name.len() + function.file.len();
        if self.functions.len() > 2 * encode::MAX_FUNCTIONS || self.text > 4 * encode::MAX_TEXT {
            return Err(Broken("there are more functions than can be"));
        }
        self.functions.push(Arc::new(function));
        Ok(())
    }

    fn frame(&mut self, from: &mut Reader<'_>) -> Result<(), Broken> {
        let (outer, function, line) = (from.small()?, from.small()?, from.small()?);
        let depth = match outer {
            0 => 0,
            n => self.frames.get(n as usize - 1).ok_or(Broken("no such frame"))?.3,
        };
        let full = self.frames.len() > 2 * encode::MAX_FRAMES || depth as usize >= encode::MAX_DEPTH;
        if full || function as usize >= self.functions.len() {
            return Err(Broken("a frame cannot be"));
        }
        self.frames.push((outer, function, line, depth + 1));
        Ok(())
    }

    /// The stack of a number with its trust.
    fn stack(&mut self, number: u64) -> Result<Arc<Stack>, Broken> {
        if let Some(stack) = self.ready.get(&number) {
            return Ok(Arc::clone(stack));
        }
        let status = match number & 3 {
            0 => StackStatus::Complete,
            1 => StackStatus::Torn,
            2 => StackStatus::Truncated,
            _ => return Err(Broken("no such trust")),
        };
        let mut frames = Vec::new();
        let mut next = u32::try_from(number >> 2).map_err(|_| Broken("no such stack"))?;
        while next != 0 {
            // An outer frame's number is always the lesser one, so this ends.
            let &(outer, function, line, _) = self.frames.get(next as usize - 1).ok_or(Broken("no such stack"))?;
            let function = self.functions.get(function as usize).ok_or(Broken("no such function"))?;
            frames.push(Frame { function: Arc::clone(function), line });
            next = outer;
        }
        frames.reverse();
        self.ready_frames += frames.len() + 8;
        if self.ready_frames > MAX_READY {
            self.ready.clear();
            self.ready_frames = frames.len() + 8;
        }
        let stack = Arc::new(Stack { frames, status });
        self.ready.insert(number, Arc::clone(&stack));
        Ok(stack)
    }
}
