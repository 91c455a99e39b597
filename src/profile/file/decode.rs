//! Decodes records into calls of a [`Sink`]: the inverse of [`encode`]. Memory and time stay
//! bounded whatever the bytes are.

use super::bytes::{Broken, Reader};
use super::encode::{self, gil_sample, slice, CaptureInfo, INVALID_TIME};
use crate::ids::{GilId, ThreadId, Tid};
use crate::sample::*;
use crate::units::Nanos;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// Bounds on the threads that have not ended, on the GILs, and on the frames of all cached stacks
/// together.
pub(super) const MAX_THREADS: usize = 1 << 20;
const MAX_GILS: usize = 1 << 16;
const MAX_CACHED_FRAMES: usize = 1 << 19;

/// Decodes one chunk after another.
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
    /// Whether the last record was read: the recording is complete.
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
    /// The last target and capture statistics read, and the time of the last GIL sample.
    pub fn capture_info(self) -> (TargetInfo, CaptureStats, Nanos) {
        (self.capture_info.target, self.capture_info.window, Nanos::from_nanos(self.last_sample))
    }

    /// The last target and capture statistics read so far.
    pub fn latest_info(&self) -> (&TargetInfo, &CaptureStats) {
        (&self.capture_info.target, &self.capture_info.window)
    }

    /// Sends a chunk's records to `sink`.
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
            encode::INTERVAL => self.interval(from, sink)?,
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
                self.capture_info = serde_json::from_slice(from.bytes()?).map_err(|_| Broken("the capture info is malformed"))?
            }
            encode::LAST => self.last = true,
            _ => return Err(Broken("the kind of a record is unknown")),
        }
        Ok(())
    }

    /// A thread record may come several times for one thread.
    fn register(&mut self, thread: ThreadId) -> Result<(), Broken> {
        if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&thread) {
            return Err(Broken("there are too many threads"));
        }
        self.threads.entry(thread).or_insert((0, u64::MAX));
        Ok(())
    }

    fn slice(&mut self, tag: u8, from: &mut Reader<'_>, sink: &mut dyn Sink) -> Result<(), Broken> {
        let has = |bit: u8| tag & bit != 0;
        let how = from.byte()?;
        let evidence = *encode::EVIDENCE.get(usize::from(how & 0x0f)).ok_or(Broken("an evidence number is unknown"))?;
        self.last_thread = from.step(self.last_thread)?;
        let thread = ThreadId(u32::try_from(self.last_thread).map_err(|_| Broken("a thread number is too large"))?);
        let end = if has(slice::AT_SAMPLE) { self.last_sample } else { from.step(self.last_end)? };
        let known = self.threads.get(&thread).copied();
        let (last_end, last_stack) = known.unwrap_or((0, u64::MAX));
        let times = match how >> 4 {
            slice::MIXED => mixed(from)?,
            state => {
                let state = *State::ALL.get(usize::from(state)).ok_or(Broken("a state number is unknown"))?;
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
                return Err(Broken("there are too many GILs"));
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

    fn interval(&mut self, from: &mut Reader<'_>, sink: &mut dyn Sink) -> Result<(), Broken> {
        let (thread, gil) = (ThreadId(from.small()?), GilId(from.small()?));
        let kinds = [IntervalKind::Wait, IntervalKind::ForcedSwitch, IntervalKind::Hold];
        let kind = *kinds.get(usize::from(from.byte()?)).ok_or(Broken("an interval kind is unknown"))?;
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

/// The numbered strings, functions, frames and stacks.
#[derive(Debug, Default)]
struct DecoderTables {
    strings: Vec<String>,
    text: usize,
    functions: Vec<Arc<Function>>,
    /// Outer frame, function, line, depth.
    frames: Vec<(u32, u32, u32, u32)>,
    cached: FxHashMap<u64, Arc<Stack>>,
    cached_frames: usize,
}

impl DecoderTables {
    fn string(&mut self, text: &str) -> Result<(), Broken> {
        // The encoder checks its bounds between stacks, so it may pass them by one stack.
        if self.text > 2 * encode::MAX_TEXT {
            return Err(Broken("there is too much text"));
        }
        self.text += text.len() + 64;
        self.strings.push(text.into());
        Ok(())
    }

    fn function(&mut self, from: &mut Reader<'_>) -> Result<(), Broken> {
        let string = |number: u32| self.strings.get(number as usize).cloned().ok_or(Broken("a string number is unknown"));
        let function = Function { name: string(from.small()?)?, file: string(from.small()?)?, first_line: from.small()? };
        // A function copies its strings, so a short record may need much memory.
        self.text += function.name.len() + function.file.len();
        if self.functions.len() > 2 * encode::MAX_FUNCTIONS || self.text > 4 * encode::MAX_TEXT {
            return Err(Broken("there are too many functions"));
        }
        self.functions.push(Arc::new(function));
        Ok(())
    }

    fn frame(&mut self, from: &mut Reader<'_>) -> Result<(), Broken> {
        let (outer, function, line) = (from.small()?, from.small()?, from.small()?);
        let depth = match outer {
            0 => 0,
            n => self.frames.get(n as usize - 1).ok_or(Broken("a frame number is unknown"))?.3,
        };
        let full = self.frames.len() > 2 * encode::MAX_FRAMES || depth as usize >= encode::MAX_DEPTH;
        if full || function as usize >= self.functions.len() {
            return Err(Broken("a frame is invalid"));
        }
        self.frames.push((outer, function, line, depth + 1));
        Ok(())
    }

    /// The stack with this number, which includes its status.
    fn stack(&mut self, number: u64) -> Result<Arc<Stack>, Broken> {
        if let Some(stack) = self.cached.get(&number) {
            return Ok(Arc::clone(stack));
        }
        let status = match number & 3 {
            0 => StackStatus::Complete,
            1 => StackStatus::Torn,
            2 => StackStatus::Truncated,
            _ => return Err(Broken("a stack status is unknown")),
        };
        let mut frames = Vec::new();
        let mut next = u32::try_from(number >> 2).map_err(|_| Broken("a stack number is unknown"))?;
        while next != 0 {
            // An outer frame's number is always the smaller one, so this loop ends.
            let &(outer, function, line, _) = self.frames.get(next as usize - 1).ok_or(Broken("a stack number is unknown"))?;
            let function = self.functions.get(function as usize).ok_or(Broken("a function number is unknown"))?;
            frames.push(Frame { function: Arc::clone(function), line });
            next = outer;
        }
        frames.reverse();
        self.cached_frames += frames.len() + 8;
        if self.cached_frames > MAX_CACHED_FRAMES {
            self.cached.clear();
            self.cached_frames = frames.len() + 8;
        }
        let stack = Arc::new(Stack { frames, status });
        self.cached.insert(number, Arc::clone(&stack));
        Ok(stack)
    }
}
