//! Round trips: everything sent to an encoder comes out of the decoder, from whole files and from
//! truncated ones.

use super::decode::Decoder;
use super::encode::Encoder;
use super::{chunk, Recorder, Recording, RecordingWriter};
use crate::ids::{GilId, ThreadId, Tid};
use crate::sample::*;
use crate::units::Nanos;
use proptest::prelude::*;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Everything a sink received, in its `Debug` form.
#[derive(Default, PartialEq, Debug)]
struct Log(Vec<String>);

impl Sink for Log {
    fn thread(&mut self, info: &ThreadInfo) {
        self.0.push(format!("{info:?}"));
    }
    fn slice(&mut self, slice: &StateSlice<'_>) {
        self.0.push(format!("{slice:?}"));
    }
    fn gil(&mut self, sample: &GilSample) {
        self.0.push(format!("{sample:?}"));
    }
    fn interval(&mut self, measured: &MeasuredInterval) {
        self.0.push(format!("{measured:?}"));
    }
    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.0.push(format!("{thread:?} {totals:?}"));
    }
}

/// A call of a [`Sink`] with one of a few threads, stacks and times.
#[derive(Clone, Debug)]
enum Event {
    Thread(ThreadInfo),
    Slice { thread: u32, end: u64, parts: Vec<(usize, u32)>, evidence: usize, stack: Stack, holder: Option<(u32, Stack)> },
    Gil(GilSample),
    Interval(MeasuredInterval),
    End(u32, u64),
}

impl Event {
    fn send_to(&self, sink: &mut dyn Sink) {
        match self {
            Event::Thread(info) => sink.thread(info),
            Event::Slice { thread, end, parts, evidence, stack, holder } => {
                let mut times = StateTimes::default();
                parts.iter().for_each(|&(state, nanos)| times.add(State::ALL[state], nanos.into()));
                let holder_stack = holder.as_ref().map(|(id, stack)| (ThreadId(*id), Arc::new(stack.clone())));
                let (evidence, stack) = (super::encode::EVIDENCE[*evidence], &Arc::new(stack.clone()));
                let holder = holder_stack.as_ref().map(|(id, stack)| (*id, stack));
                sink.slice(&StateSlice { thread: ThreadId(*thread), end: Nanos::from_nanos(*end), times, evidence, stack, holder });
            }
            Event::Gil(sample) => sink.gil(sample),
            Event::Interval(measured) => sink.interval(measured),
            Event::End(thread, nanos) => {
                let time = Nanos::from_nanos(*nanos);
                sink.thread_end(ThreadId(*thread), ThreadTotals { cpu: time, run_queue: Nanos::ZERO, seen: time });
            }
        }
    }
}

fn stack() -> impl Strategy<Value = Stack> {
    let function = (0..4u32, "[a-zé;]{0,3}").prop_map(|(first_line, name)| Arc::new(Function { name, file: "a.py".into(), first_line }));
    let frame = (function, 0..4u32).prop_map(|(function, line)| Frame { function, line });
    let status = prop_oneof![Just(StackStatus::Complete), Just(StackStatus::Torn), Just(StackStatus::Truncated)];
    (proptest::collection::vec(frame, 0..4), status).prop_map(|(frames, status)| Stack { frames, status })
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..50_000_000u64, 1 => any::<u64>()]
}

fn event() -> impl Strategy<Value = Event> {
    let thread = ((0..3u32, any::<i32>(), ".{0,5}"), (any::<bool>(), any::<bool>(), proptest::option::of(0..3u32))).prop_map(
        |((id, tid, name), (python, main, gil))| {
            Event::Thread(ThreadInfo { id: ThreadId(id), tid: Tid(tid), name, python, main, gil: gil.map(GilId) })
        },
    );
    let parts = proptest::collection::vec((0..State::COUNT, any::<u32>()), 1..4);
    let slice = (0..3u32, time(), parts, 0..14usize, stack(), proptest::option::of((0..3u32, stack())))
        .prop_map(|(thread, end, parts, evidence, stack, holder)| Event::Slice { thread, end, parts, evidence, stack, holder });
    let holder = prop_oneof![Just(Holder::Nobody), Just(Holder::Unmatched), (0..3u32).prop_map(|id| Holder::Thread(ThreadId(id)))];
    let options = (proptest::option::of(any::<u64>()), proptest::option::of(any::<bool>()));
    let gil =
        (0..2u32, time(), time(), holder, options, any::<u32>()).prop_map(|(gil, at, span, holder, (switches, collecting), waiters)| {
            Event::Gil(GilSample {
                gil: GilId(gil),
                at: Nanos::from_nanos(at),
                span: Nanos::from_nanos(span),
                holder,
                switches,
                waiters,
                collecting,
            })
        });
    let kind = prop_oneof![Just(IntervalKind::Wait), Just(IntervalKind::ForcedSwitch), Just(IntervalKind::Hold)];
    let exact = (0..3u32, 0..2u32, kind, time(), time()).prop_map(|(thread, gil, kind, begin, end)| {
        let [begin, end] = [begin, end].map(Nanos::from_nanos);
        Event::Interval(MeasuredInterval { thread: ThreadId(thread), gil: GilId(gil), kind, begin, end })
    });
    let end = (0..3u32, time()).prop_map(|(thread, nanos)| Event::End(thread, nanos));
    prop_oneof![1 => thread, 6 => slice, 4 => gil, 1 => exact, 1 => end]
}

proptest! {
    #[test]
    fn events_round_trip(chunks in proptest::collection::vec(proptest::collection::vec(event(), 0..30), 1..4)) {
        let (mut encoder, mut decoder, mut sent, mut received) = (Encoder::default(), Decoder::default(), Log::default(), Log::default());
        for events in &chunks {
            for event in events {
                event.send_to(&mut sent);
                event.send_to(&mut encoder);
            }
            let packed = chunk::pack(1, &encoder.take()).unwrap();
            let mut from = &packed[..];
            let head = chunk::read_head(&mut from, super::VERSION).unwrap().unwrap().unwrap();
            let records = head.unpack(&head.read_payload(&mut from).unwrap().unwrap()).unwrap();
            prop_assert_eq!(decoder.chunk(&records, &mut received), Ok(()));
        }
        prop_assert_eq!(sent, received);
    }

    #[test]
    fn any_bytes_never_panic(mut events in proptest::collection::vec(event(), 1..20), at: prop::sample::Index, to: u8) {
        let mut encoder = Encoder::default();
        events.drain(..).for_each(|event| event.send_to(&mut encoder));
        let mut records = encoder.take();
        let at = at.index(records.len());
        records[at] = to;
        let _ = Decoder::default().chunk(&records, &mut Log::default());
    }
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("gilprof-{}-{name}.gilprof", std::process::id()))
}

/// A recording of `seconds` with a sample every millisecond.
fn record(path: &PathBuf, seconds: u64) -> (TargetInfo, CaptureStats) {
    let mut recorder = Recorder::new(File::create(path).unwrap());
    let target = TargetInfo { pid: 7, python: "3.11.7".into(), cpus: 0.1 + 0.2, ..TargetInfo::default() };
    let mut window = CaptureStats { rate_hz: 1000.0, ..CaptureStats::default() };
    let stack = Arc::new(Stack::empty());
    for ms in 1..=seconds * 1000 {
        let (at, thread) = (Nanos::from_millis(ms), ThreadId((ms / 5 % 3) as u32));
        let (gil, span, holder) = (GilId(0), Nanos::from_millis(1), Holder::Thread(thread));
        recorder.gil(&GilSample { gil, at, span, holder, switches: Some(ms / 5), waiters: 2, collecting: None });
        let times = StateTimes::single(State::HoldingPython, 1e6);
        recorder.slice(&StateSlice { thread, end: at, times, evidence: Evidence::GilHolder, stack: &stack, holder: None });
        if ms % 100 == 0 {
            (window.seconds, window.counts.samples) = (ms as f64 / 1e3, ms);
            recorder.checkpoint(&target, &window);
        }
    }
    recorder.finish(&target, &window).unwrap();
    (target, window)
}

#[test]
fn every_prefix_of_a_file_can_be_read() {
    let path = scratch("parts");
    let (target, window) = record(&path, 3);
    let whole = std::fs::read(&path).unwrap();
    let mut log = Log::default();
    let replayed = Recording::open(&path).unwrap().replay(&mut log).unwrap();
    assert_eq!((replayed.target, replayed.window, log.0.len()), (target, window, 6000));
    for cut in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut part = Log::default();
        let Ok(replayed) = Recording::open(&path).and_then(|recording| recording.replay(&mut part)) else {
            assert!(cut < 1500, "nothing could be read of {cut} bytes");
            continue;
        };
        assert!(log.0.starts_with(&part.0));
        assert!(replayed.window.warnings[0].contains("breaks off"), "{:?}", replayed.window.warnings);
        assert!((replayed.window.seconds - part.0.len() as f64 / 2000.0).abs() < 0.2, "{} s, {}", replayed.window.seconds, part.0.len());
    }
    std::fs::remove_file(path).unwrap();
}

/// Three processes, of which the second ends first and the third is cut off.
#[test]
fn processes_in_one_file_are_read_apart() {
    let path = scratch("processes");
    let mut writer = RecordingWriter::new(File::create(&path).unwrap());
    let mut recorders = [writer.recorder(), writer.recorder(), writer.recorder()];
    let (mut sent, window) = ([Log::default(), Log::default(), Log::default()], CaptureStats { seconds: 0.5, ..CaptureStats::default() });
    let target = |n: usize| TargetInfo { pid: 100 + n as i32, ..TargetInfo::default() };
    for round in 0..4u64 {
        for (n, (recorder, sent)) in recorders.iter_mut().zip(&mut sent).enumerate() {
            let thread = ThreadId(n as u32 * round as u32);
            let totals = ThreadTotals { cpu: Nanos::from_millis(round), ..ThreadTotals::default() };
            recorder.thread_end(thread, totals);
            sent.thread_end(thread, totals);
            recorder.checkpoint(&target(n), &CaptureStats { seconds: round as f64 + 0.1, ..window.clone() });
        }
    }
    let [first, second, third] = recorders;
    second.finish(&target(1), &window).unwrap();
    first.finish(&target(0), &window).unwrap();
    drop(third);
    writer.finish().unwrap();
    let all = Recording::open_all(&path).unwrap();
    assert_eq!(all.len(), 3);
    for (n, (recording, sent)) in all.iter().zip(&sent).enumerate() {
        let mut received = Log::default();
        let replayed = recording.replay(&mut received).unwrap();
        assert_eq!((&received, replayed.target.pid), (sent, 100 + n as i32));
        assert_eq!(replayed.window.cut_short.is_some(), n == 2);
    }
    let message = Recording::open(&path).unwrap_err().to_string();
    assert!(message.contains("3 processes"), "{message}");
    // Cut anywhere, what is whole of each process can be read, and the others are counted.
    let whole = std::fs::read(&path).unwrap();
    let mut left_out = 0;
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let Ok(parts) = Recording::open_all(&path) else { continue };
        for part in &parts {
            let mut received = Log::default();
            let Ok(replayed) = part.replay(&mut received) else {
                assert_eq!(parts.len(), 1, "{cut}");
                continue;
            };
            assert!(sent[part.process() as usize].0.starts_with(&received.0), "{cut}");
            left_out += usize::from(replayed.window.warnings.iter().any(|warning| warning.contains("left out")));
        }
    }
    assert!(left_out > 100, "{left_out}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_reset_loses_nothing() {
    let (mut encoder, mut decoder, mut sent, mut received) = (Encoder::default(), Decoder::default(), Log::default(), Log::default());
    let function = Arc::new(Function { name: "f".into(), file: "a.py".into(), first_line: 1 });
    for line in 0..super::encode::MAX_FRAMES as u32 + 1000 {
        let stack = Arc::new(Stack { frames: vec![Frame { function: function.clone(), line }], status: StackStatus::Complete });
        let event = Event::Slice {
            thread: line % 2,
            end: u64::from(line),
            parts: vec![(0, 1)],
            evidence: 0,
            stack: stack.as_ref().clone(),
            holder: Some((1, stack.as_ref().clone())),
        };
        event.send_to(&mut encoder);
        if line % 50_000 == 0 || line > super::encode::MAX_FRAMES as u32 - 10 {
            event.send_to(&mut sent);
        }
    }
    let records = encoder.take();
    decoder.chunk(&records, &mut received).unwrap();
    // In the order in which they were sent.
    let mut rest = received.0.iter();
    assert!(sent.0.iter().all(|event| rest.any(|received| received == event)));
    assert_eq!(received.0.len(), super::encode::MAX_FRAMES + 1000);
}

#[test]
fn stack_depth_and_thread_count_are_bounded() {
    struct Deep(Vec<u32>);
    impl Sink for Deep {
        fn thread(&mut self, _: &ThreadInfo) {}
        fn slice(&mut self, slice: &StateSlice<'_>) {
            self.0 = slice.stack.frames.iter().map(|frame| frame.line).collect();
        }
        fn gil(&mut self, _: &GilSample) {}
        fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
    }
    let most = super::encode::MAX_DEPTH as u32;
    let function = Arc::new(Function { name: "f".into(), file: "a.py".into(), first_line: 1 });
    let frames = (0..most + 900).map(|line| Frame { function: function.clone(), line }).collect();
    let (mut encoder, mut decoder, mut received) = (Encoder::default(), Decoder::default(), Deep(Vec::new()));
    let (stack, times) = (Arc::new(Stack { frames, status: StackStatus::Complete }), StateTimes::single(State::Io, 1.0));
    let (end, evidence) = (Nanos::from_nanos(9), Evidence::Syscall);
    encoder.slice(&StateSlice { thread: ThreadId(0), end, times, evidence, stack: &stack, holder: None });
    decoder.chunk(&encoder.take(), &mut received).unwrap();
    assert_eq!(received.0, (900..most + 900).collect::<Vec<_>>());
    for id in 0..super::decode::MAX_THREADS as u32 + 1 {
        encoder.thread(&ThreadInfo { id: ThreadId(id), tid: Tid(1), name: String::new(), python: true, main: false, gil: None });
    }
    assert!(decoder.chunk(&encoder.take(), &mut received).is_err());
}

#[test]
fn other_files_are_refused() {
    let path = scratch("foreign");
    for (bytes, expected) in
        [(&b"{}"[..], "no recording"), (b"gilprof\0\x09\0\0\0", "newer gilprof"), (&chunk::header(), "nothing was recorded")]
    {
        std::fs::write(&path, bytes).unwrap();
        let message = Recording::open(&path).and_then(|r| r.replay(&mut Log::default())).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(Recording::open(&path).is_err() && Recording::open(&std::env::temp_dir()).is_err());
}
