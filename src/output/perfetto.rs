//! A Perfetto trace: a track for each thread with its states as slices, counters for each GIL, and
//! arrows from the thread that released the GIL to the next holder.
//!
//! Packets are written while the recording is replayed, so memory does not grow with the recording.
//! The messages are hand-written and have only the fields that are needed (perfetto.dev,
//! protos/perfetto/trace). A slice's name is its state; its arguments are the function, the holder
//! and the evidence. Every span of holding begins a flow, which the next holder of the same GIL
//! ends.

use super::dump::evidence_name;
use super::timeline::{leaf, Span, SpanBuilder, SpanSink};
use super::{sanitize, text, Source};
use crate::error::{Error, Result};
use crate::ids::{GilId, ThreadId};
use crate::sample::{GilSample, Holder, State, ThreadInfo};
use prost::Message;
use rustc_hash::FxHashMap;
use std::io::{self, Write};

#[derive(Clone, PartialEq, Message)]
struct Packet {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, tag = "10")]
    trusted_packet_sequence_id: u32,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    debug_annotations: Vec<Annotation>,
    #[prost(int32, tag = "9")]
    r#type: i32,
    #[prost(uint64, tag = "11")]
    track_uuid: u64,
    #[prost(string, repeated, tag = "22")]
    categories: Vec<String>,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(int64, optional, tag = "30")]
    counter_value: Option<i64>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    flow_ids: Vec<u64>,
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    terminating_flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Annotation {
    #[prost(string, tag = "6")]
    string_value: String,
    #[prost(string, tag = "10")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct TrackDescriptor {
    #[prost(uint64, tag = "1")]
    uuid: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, optional, tag = "3")]
    process: Option<PerfettoProcess>,
    #[prost(message, optional, tag = "4")]
    thread: Option<PerfettoThread>,
    #[prost(uint64, tag = "5")]
    parent_uuid: u64,
    #[prost(message, optional, tag = "8")]
    counter: Option<Counter>,
}

#[derive(Clone, PartialEq, Message)]
struct PerfettoProcess {
    #[prost(int32, tag = "1")]
    pid: i32,
    #[prost(string, repeated, tag = "2")]
    cmdline: Vec<String>,
    #[prost(string, tag = "6")]
    process_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct PerfettoThread {
    #[prost(int32, tag = "1")]
    pid: i32,
    #[prost(int32, tag = "2")]
    tid: i32,
    #[prost(string, tag = "5")]
    thread_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Counter {
    #[prost(string, tag = "6")]
    unit_name: String,
}

/// `TrackEvent.Type`.
const BEGIN: i32 = 1;
const END: i32 = 2;
const COUNTER: i32 = 4;
/// All packets come from one writer.
const SEQUENCE: u32 = 1;
/// A hold that begins within this many nanoseconds of another's end is a GIL switch.
const MAX_SWITCH_GAP: u64 = 3_000_000;

/// Threads whose names and GILs are kept for arguments and arrows; later threads have neither.
const MAX_THREADS: usize = 1 << 18;

/// Writes the trace of all processes.
pub fn write(sources: &[Source<'_>], out: &mut dyn Write) -> Result<()> {
    for (n, source) in sources.iter().enumerate() {
        let mut trace = SpanBuilder::new(Trace::new(n as u64, source, out));
        source.timeline()?.replay(&mut trace)?;
        trace.finish().written.map_err(Error::Write)?;
    }
    Ok(())
}

/// A slice's name. Perfetto derives the colour from it and would give "waiting" and "holding
/// (python)" the same one.
fn name(state: State) -> &'static str {
    match state {
        State::Waiting => "GIL wait",
        other => other.label(),
    }
}

/// One process being written.
struct Trace<'a> {
    out: &'a mut dyn Write,
    /// The first error; nothing is written after it.
    written: io::Result<()>,
    pid: i32,
    base: u64,
    threads: FxHashMap<ThreadId, (String, Option<GilId>)>,
    gils: FxHashMap<GilId, [Option<i64>; 2]>,
    holds: FxHashMap<GilId, (ThreadId, u64, u64)>,
    flows: u64,
}

impl<'a> Trace<'a> {
    fn new(number: u64, source: &Source<'_>, out: &'a mut dyn Write) -> Trace<'a> {
        let target = &source.report.target;
        let base = (number + 1) << 40;
        let (threads, gils, holds) = Default::default();
        let mut trace = Trace { out, written: Ok(()), pid: target.pid, base, threads, gils, holds, flows: base };
        let cmdline = target.command.iter().map(|argument| sanitize::clean(argument)).collect();
        let process = PerfettoProcess { pid: target.pid, cmdline, process_name: sanitize::clean(&text::program(target)) };
        trace.describe(TrackDescriptor { uuid: base, process: Some(process), ..TrackDescriptor::default() });
        trace
    }

    fn packet(&mut self, packet: &Packet) {
        if self.written.is_ok() {
            // Field 1 of `Trace`, length-delimited.
            let mut bytes = vec![0x0a];
            let body = packet.encode_length_delimited_to_vec();
            bytes.extend_from_slice(&body);
            self.written = self.out.write_all(&bytes);
        }
    }

    fn describe(&mut self, track_descriptor: TrackDescriptor) {
        self.packet(&Packet { trusted_packet_sequence_id: SEQUENCE, track_descriptor: Some(track_descriptor), ..Packet::default() });
    }

    fn event(&mut self, timestamp: u64, event: TrackEvent) {
        self.packet(&Packet {
            timestamp: Some(timestamp),
            trusted_packet_sequence_id: SEQUENCE,
            track_event: Some(event),
            track_descriptor: None,
        });
    }

    fn track(&self, thread: ThreadId) -> u64 {
        self.base + (1 << 34) + u64::from(thread.0)
    }

    fn gil_track(&self, gil: GilId, which: usize) -> u64 {
        self.base + (1 << 33) + u64::from(gil.0) * 2 + which as u64
    }

    fn name(&self, thread: ThreadId) -> &str {
        self.threads.get(&thread).map_or("?", |(name, _)| name)
    }

    /// The flow that this hold begins, and the flow that it ends.
    fn flow(&mut self, span: &Span) -> (Vec<u64>, Vec<u64>) {
        let Some(gil) = self.threads.get(&span.thread).and_then(|(_, gil)| *gil).filter(|_| span.state.is_holding()) else {
            return Default::default();
        };
        let before = self.holds.get(&gil).copied();
        // A hold has parts: Python code, a C call, a sleep. The arrow leaves the last part, which
        // is known only when the next thread holds. So each part begins a flow, and Perfetto does
        // not draw flows without an end.
        self.flows += 1;
        self.holds.insert(gil, (span.thread, span.end, self.flows));
        let taken = before.filter(|&(thread, end, _)| thread != span.thread && span.begin.abs_diff(end) <= MAX_SWITCH_GAP);
        (vec![self.flows], taken.into_iter().map(|(_, _, flow)| flow).collect())
    }

    /// Writes a counter's value if it has changed.
    fn count(&mut self, sample: &GilSample, which: usize, value: i64) {
        let last = self.gils.entry(sample.gil).or_default();
        if last[which].replace(value) == Some(value) {
            return;
        }
        let track_uuid = self.gil_track(sample.gil, which);
        let begin = sample.at.as_nanos().saturating_sub(sample.span.as_nanos());
        self.event(begin, TrackEvent { r#type: COUNTER, track_uuid, counter_value: Some(value), ..TrackEvent::default() });
    }
}

impl SpanSink for Trace<'_> {
    fn thread(&mut self, info: &ThreadInfo) {
        let name = sanitize::clean(&info.name);
        if self.threads.len() < MAX_THREADS {
            self.threads.insert(info.id, (name.clone(), info.gil));
        }
        let thread = PerfettoThread { pid: self.pid, tid: info.tid.0, thread_name: name };
        let uuid = self.track(info.id);
        self.describe(TrackDescriptor { uuid, thread: Some(thread), parent_uuid: self.base, ..TrackDescriptor::default() });
    }

    fn span(&mut self, span: Span) {
        let (flow_ids, terminating_flow_ids) = self.flow(&span);
        let annotation = |name: &str, string_value: String| Annotation { name: name.into(), string_value };
        let mut debug_annotations =
            vec![annotation("function", leaf(&span.stack)), annotation("evidence", evidence_name(span.evidence).into())];
        if let Some((thread, stack)) = span.holder.as_ref().filter(|_| span.state == State::Waiting) {
            debug_annotations.push(annotation("holder", format!("{}: {}", self.name(*thread), leaf(stack))));
        }
        let category = if span.state.is_holding() { "holding" } else { span.state.label() };
        let track_uuid = self.track(span.thread);
        let event = TrackEvent {
            debug_annotations,
            r#type: BEGIN,
            track_uuid,
            categories: vec![category.into()],
            name: Some(name(span.state).into()),
            flow_ids,
            terminating_flow_ids,
            counter_value: None,
        };
        self.event(span.begin, event);
        self.event(span.end, TrackEvent { r#type: END, track_uuid, ..TrackEvent::default() });
    }

    fn gil(&mut self, sample: &GilSample) {
        if !self.gils.contains_key(&sample.gil) {
            for (which, what) in ["busy", "waiters"].into_iter().enumerate() {
                let (uuid, name) = (self.gil_track(sample.gil, which), format!("GIL {} {what}", sample.gil.0));
                let counter = Some(Counter { unit_name: if which == 0 { "held".into() } else { "threads".into() } });
                self.describe(TrackDescriptor { uuid, name, counter, parent_uuid: self.base, ..TrackDescriptor::default() });
            }
        }
        self.count(sample, 0, i64::from(sample.holder != Holder::Nobody));
        self.count(sample, 1, i64::from(sample.waiters));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::measured;

    #[derive(Clone, PartialEq, Message)]
    struct Whole {
        #[prost(message, repeated, tag = "1")]
        packet: Vec<Packet>,
    }

    #[test]
    fn slices_add_up_follow_one_another_and_have_arrows() {
        let written = measured();
        let mut bytes = Vec::new();
        write(&[written.source()], &mut bytes).unwrap();
        let packets = Whole::decode(&bytes[..]).unwrap().packet;
        let (mut open, mut sums) = (FxHashMap::default(), FxHashMap::<String, u64>::default());
        let (mut begun, mut ended) = (Vec::<u64>::new(), Vec::<u64>::new());
        for packet in &packets {
            let (Some(event), at) = (&packet.track_event, packet.timestamp.unwrap_or(0)) else { continue };
            begun.extend(&event.flow_ids);
            ended.extend(&event.terminating_flow_ids);
            match event.r#type {
                BEGIN => assert!(open.insert(event.track_uuid, (at, event.name.clone().unwrap())).is_none()),
                END => {
                    let (from, name) = open.remove(&event.track_uuid).unwrap();
                    *sums.entry(name).or_default() += at - from;
                }
                _ => assert_eq!(event.counter_value.map(|n| n == 0 || n == 1), Some(true)),
            }
        }
        assert!(open.is_empty() && ended.iter().all(|flow| begun.contains(flow)) && ended.len() > 150, "{}", ended.len());
        for state in State::ALL {
            let wanted: f64 = written.profile.threads.iter().map(|t| t.times.get(state)).sum();
            let got = sums.get(name(state)).copied().unwrap_or(0) as f64;
            assert!((got - wanted).abs() < 1e4, "{}: {got} {wanted}", state.label());
        }
        let names = packets.iter().filter_map(|p| p.track_descriptor.as_ref()?.thread.as_ref());
        assert!(names.clone().all(|t| !t.thread_name.chars().any(sanitize::is_hostile)) && names.count() == 4);
    }

    #[test]
    fn an_arrow_leaves_the_last_part_of_a_hold() {
        let (written, mut out) = (measured(), Vec::new());
        let source = written.source();
        let mut trace = Trace::new(0, &source, &mut out);
        for id in [0, 1] {
            let (tid, gil) = (crate::ids::Tid(id as i32 + 1), Some(GilId(0)));
            trace.thread(&ThreadInfo { id: ThreadId(id), tid, name: "x".into(), python: true, main: false, gil });
        }
        let stack = std::sync::Arc::new(crate::sample::Stack::empty());
        let spans = [
            (1, 0, 5, State::HoldingPython),
            (1, 5, 8, State::HoldingNative),
            (0, 8, 9, State::HoldingPython),
            (0, 9, 10, State::Waiting),
            (1, 9 + MAX_SWITCH_GAP + 1, 9 + MAX_SWITCH_GAP + 2, State::HoldingPython),
        ];
        let flows = spans.map(|(thread, begin, end, state)| {
            let (evidence, stack) = (crate::sample::Evidence::GilHolder, stack.clone());
            trace.flow(&Span { thread: ThreadId(thread), begin, end, state, evidence, stack, holder: None })
        });
        assert!(flows[1].1.is_empty(), "the hold is the same");
        assert_eq!(flows[2].1, flows[1].0);
        assert_eq!((flows[3].0.len(), flows[3].1.len(), flows[4].1.len()), (0, 0, 0), "no hold, and too late");
    }
}
