//! Samples of real interpreters, recorded with every byte they read, are taken again without the
//! interpreters: unchanged, with reads that fail, and with bytes that changed. Unreadable memory
//! may make a state unknown and a stack short. It must not lead to another state or another stack.
//!
//! `cargo test --test hermetic -- --ignored --exact replayed::make` records the samples,
//! except those of aarch64: `replayed::make_emulated` records those.

use crate::support::{self, recorded};
mod faulty;
mod make;

use faulty::{growing, Fault, Faulty};
use gilprof::capture::recorded_sample;
use gilprof::capture::sampler::SampleOutcome;
use gilprof::ids::{Addr, Pid};
use gilprof::process::elf::Machine;
use gilprof::process::memory::Memory;
use gilprof::process::memory_dump::MemoryDump;
use gilprof::process::replay::ReplayTarget;
use gilprof::process::sys_linux::SYS_FUTEX;
use gilprof::process::target::ProcessAccess;
use gilprof::python::attach::PythonProcess;
use gilprof::python::frames::MAX_DEPTH;
use gilprof::python::interpreters::RuntimeState;
use gilprof::python::thread_names;
use gilprof::python::version::Version;
use gilprof::sample::{Evidence, Holder, StackStatus, State, ThreadSnapshot};
use gilprof::units::Nanos;
use proptest::prelude::*;
use recorded::{recorded, Emitted, Replay};
use std::sync::OnceLock;

/// More reads of one sample than any bytes may cause. The parts of a batch count singly.
const MOST_READS: usize = 200_000;

#[test]
#[ignore = "writes tests/dumps/samples"]
fn make() {
    let _alone = support::serial_guard();
    make::all();
}

#[test]
#[ignore = "writes tests/dumps/samples of an emulated interpreter: AARCH64=ROOT:13"]
fn make_emulated() {
    let _alone = support::serial_guard();
    let (root, minor) =
        std::env::var("AARCH64").unwrap().rsplit_once(':').map(|(root, minor)| (root.to_owned(), minor.to_owned())).unwrap();
    make::emulated(root.as_ref(), minor.parse().unwrap());
}

#[test]
fn every_recorded_sample_replays_to_the_same_text() {
    for sample in recorded() {
        let replay = Replay::new(&sample.recording);
        assert_eq!(replay.text(), sample.expected, "{}", sample.name);
        let holding = replay.count(State::is_holding);
        assert_eq!((replay.outcome, replay.gils.len()), (SampleOutcome::Complete, 1), "{}", sample.name);
        assert_eq!(holding, usize::from(sample.name.ends_with("-cpu")), "{}", sample.name);
    }
}

/// The recordings must not depend on the number of bytes that gilprof reads at a time today.
#[test]
fn recordings_have_the_bytes_of_longer_reads() {
    for sample in recorded() {
        let faulty = Faulty::new(&sample.recording, Fault::Longer(16));
        let replay = Replay::by(&sample.recording, Box::new(faulty.source(&sample.recording))).unwrap();
        assert_eq!(replay.text(), sample.expected, "{}", sample.name);
    }
}

#[test]
fn any_one_read_may_fail() {
    // The offset differs between recordings, which read much the same fields in the same order.
    let step = if support::all() { 1 } else { 5 };
    for (number, sample) in recorded().iter().enumerate() {
        let clean = Replay::new(&sample.recording);
        let counting = Faulty::new(&sample.recording, Fault::None);
        Replay::by(&sample.recording, Box::new(counting.source(&sample.recording))).unwrap();
        let reads = counting.reads();
        eprintln!("{}: {} reads, each {step}th fails", sample.name, reads.len());
        for (n, at) in reads.iter().enumerate().filter(|(n, _)| (n + number) % step == 0) {
            // Once, as when the target unmapped a page for a moment; then every read of that place.
            for fault in [Fault::Nth(n), Fault::At(*at)] {
                let faulty = Faulty::new(&sample.recording, fault);
                if let Ok(replay) = Replay::by(&sample.recording, Box::new(faulty.source(&sample.recording))) {
                    let wrong = wrong(&clean, &replay);
                    assert!(wrong.is_none(), "{}, {fault:?} at {at}: {}\n{}", sample.name, wrong.unwrap(), replay.text());
                }
                assert!(faulty.reads().len() < reads.len() * 4 + 200, "{}, {fault:?}: {} reads", sample.name, faulty.reads().len());
            }
        }
    }
}

/// A state or a stack that differs from the complete sample's.
fn wrong(clean: &Replay, replay: &Replay) -> Option<String> {
    replay.views.iter().find_map(|view| {
        let before = clean.views.iter().find(|before| before.tid == view.tid)?;
        let same = view.state == before.state || (view.state.is_holding() && before.state.is_holding());
        if !same && view.state != State::Unknown {
            return Some(format!("{} was {:?}, now {:?}", view.tid, before.state, view.state));
        }
        wrong_stack(before, view)
    })
}

fn wrong_stack(before: &ThreadSnapshot, now: &ThreadSnapshot) -> Option<String> {
    if !now.python {
        // The thread may resemble one without Python, but then it has no stack.
        return (!now.stack.frames.is_empty()).then(|| format!("{} has no thread state, but a stack", now.tid));
    }
    let (old, new) = (&before.stack.frames, &now.stack.frames);
    let alike = |(a, b): (&_, &gilprof::sample::Frame)| *a == *b || b.function.name == "[unreadable]";
    let prefix = new.len() <= old.len() && old.iter().zip(new).all(alike);
    let suffix = new.len() <= old.len() && old.iter().rev().zip(new.iter().rev()).all(alike);
    let right = match now.stack.status {
        StackStatus::Complete => prefix && new.len() == old.len(),
        StackStatus::Torn => prefix,
        StackStatus::Truncated => suffix,
    };
    (!right).then(|| format!("{} has another stack, {:?}", now.tid, now.stack.status))
}

/// The kernel counts the threads when a sample begins, and lists them later.
#[test]
fn a_thread_that_began_after_the_sample_is_in_the_next_one() {
    for counts in [[1, 1, 2], [1, 1, 1]] {
        let (source, now) = growing(&recorded()[0].recording, [1, 2, 2], counts);
        let mut emitted = Emitted::default();
        let (_, mut sampler) = recorded_sample::replay(&recorded()[0].recording, source, &mut emitted).unwrap();
        let mut threads = vec![sampler.snapshots().len()];
        for turn in 1..3 {
            now.set(turn);
            let at = recorded_sample::SAMPLE_TIME + Nanos::from_millis(200 * turn as u64);
            sampler.sample(at, at, &mut emitted).unwrap();
            threads.push(sampler.snapshots().len());
        }
        // A count that stays too low hides no thread for long.
        assert_eq!(threads, [1, 1, 2], "{counts:?}");
    }
}

/// glibc's mutexes are 8 bytes longer on aarch64. The last 16 bytes of a GIL there do not belong to
/// a GIL on x86-64.
#[test]
fn the_size_of_a_gil_is_that_of_its_machine() {
    for sample in recorded().into_iter().filter(|sample| sample.name.ends_with("-cpu")) {
        let waiter = Replay::new(&sample.recording).views.iter().find(|view| view.state == State::Waiting).unwrap().tid;
        let gil = gil(&sample.recording);
        for (offset, machine, expected) in [
            (200, Machine::X86_64, State::Waiting),
            (200, Machine::Aarch64, State::Waiting),
            (216, Machine::X86_64, State::Lock),
            (216, Machine::Aarch64, State::Waiting),
            (224, Machine::Aarch64, State::Lock),
        ] {
            let mut recording = sample.recording.clone();
            recording.head.abi.machine = machine;
            let thread = recording.head.threads.iter_mut().find(|thread| thread.tid == waiter.0).unwrap();
            thread.syscall = Some(format!("{SYS_FUTEX} {:#x} 0x80 0x2 0x0 0x0 0x0 0x7ffd00000000 0x7f0000000000\n", gil.offset(offset).0));
            let replay = Replay::new(&recording);
            let state = replay.views.iter().find(|view| view.tid == waiter).unwrap().state;
            assert_eq!(state, expected, "{} on {machine:?}, at +{offset}", sample.name);
            assert_eq!(replay.count(State::is_holding), 1, "{} on {machine:?}", sample.name);
        }
    }
}

/// The only GIL of a recorded sample.
fn gil(recording: &MemoryDump) -> Addr {
    interpreters(recording).1.gils[0].0
}

/// The interpreters and thread states of a recorded sample.
fn interpreters(recording: &MemoryDump) -> (PythonProcess, RuntimeState) {
    let (head, source) = (&recording.head, ReplayTarget::from_dump(recording));
    let minor = Version::from_text(&head.python).unwrap().minor;
    let python =
        PythonProcess::from_runtime(Pid(head.pid), source.memory(), head.abi, minor, head.python.clone(), Addr(head.runtime)).unwrap();
    let mut runtime_state = RuntimeState::default();
    runtime_state.walk(source.memory(), &python.layout, python.runtime).unwrap();
    (python, runtime_state)
}

#[test]
fn of_a_thread_whose_name_is_known_only_the_key_is_read() {
    for sample in recorded() {
        let (python, runtime_state) = interpreters(&sample.recording);
        let interpreter = runtime_state.interpreters[0].at;
        let read = |interpreters: &[Addr], wanted: fn(u64) -> bool| {
            let memory = Faulty::new(&sample.recording, Fault::None);
            let names = thread_names::read_missing(&memory, &python.layout, interpreters.iter().copied(), wanted);
            (names, memory.reads().len())
        };
        let (names, all) = read(&[interpreter], |_| true);
        let (nothing, none) = read(&[interpreter], |_| false);
        assert_eq!((names.len(), nothing.len()), (runtime_state.threads.len(), 0), "{}", sample.name);
        assert!(none + 4 * names.len() <= all, "{}: {all} reads for {} names, {none} for none", sample.name, names.len());
        // The same threads in a second interpreter.
        assert_eq!(read(&[interpreter; 2], |_| true), (names, all + none), "{}", sample.name);
    }
}

/// All recordings, read from disk once.
fn all() -> &'static [MemoryDump] {
    static ALL: OnceLock<Vec<MemoryDump>> = OnceLock::new();
    ALL.get_or_init(|| recorded().into_iter().map(|sample| sample.recording).collect())
}

/// A change of the recorded bytes: its place (as a share of all bytes), the value and its width.
fn change() -> impl Strategy<Value = (f64, u64, usize)> {
    let value = prop_oneof![Just(0), Just(u64::MAX), 0u64..64, any::<u64>(), (0usize..1 << 16).prop_map(somewhere)];
    (0.0..1.0f64, value, prop::sample::select(vec![1usize, 4, 8]))
}

/// An address that one of the recordings contains.
fn somewhere(n: usize) -> u64 {
    let ranges: Vec<u64> = all().iter().flat_map(|sample| sample.ranges.iter().map(|(at, _)| at.0)).collect();
    ranges[n % ranges.len()].wrapping_add(n as u64 & 0xf8)
}

fn changed(recording: &MemoryDump, changes: &[(f64, u64, usize)]) -> MemoryDump {
    let mut recording = recording.clone();
    let total: usize = recording.ranges.iter().map(|(_, bytes)| bytes.len()).sum();
    for &(share, value, width) in changes {
        let mut at = (total as f64 * share) as usize & !(width - 1);
        for (_, bytes) in &mut recording.ranges {
            if let Some(place) = bytes.get_mut(at..at + width) {
                place.copy_from_slice(&value.to_le_bytes()[..width]);
                break;
            }
            at = at.saturating_sub(bytes.len());
        }
    }
    recording
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_may_change(which in any::<prop::sample::Index>(), changes in prop::collection::vec(change(), 1..12)) {
        let recording = changed(which.get(all()), &changes);
        let faulty = Faulty::new(&recording, Fault::None);
        if let Ok(replay) = Replay::by(&recording, Box::new(faulty.source(&recording))) {
            states_have_evidence(&recording, &replay);
        }
        prop_assert!(faulty.reads().len() < MOST_READS, "{} reads", faulty.reads().len());
    }
}

/// A thread that holds is the one that the GIL names. A thread that waits sleeps on a futex, or has
/// requested the GIL.
fn states_have_evidence(recording: &MemoryDump, replay: &Replay) {
    let holders: Vec<_> = replay.gils.iter().filter_map(|gil| if let Holder::Thread(id) = gil.holder { Some(id) } else { None }).collect();
    let holding = replay.count(State::is_holding);
    assert!(holding <= holders.len(), "{holding} hold {} GILs\n{}", holders.len(), replay.text());
    for view in &replay.views {
        assert!(view.stack.frames.len() <= MAX_DEPTH);
        let task = recording.head.threads.iter().find(|task| task.tid == view.tid.0).unwrap();
        let asleep = !task.syscall.as_deref().unwrap_or_default().starts_with("running");
        match (view.state, view.evidence) {
            (State::Waiting, Evidence::GilFutex) | (State::Lock, _) => assert!(asleep, "{}", replay.text()),
            (State::Waiting, evidence) => assert_eq!(evidence, Evidence::GilRequested, "{}", replay.text()),
            (state, evidence) if state.is_holding() => assert_eq!(evidence, Evidence::GilHolder, "{}", replay.text()),
            _ => {}
        }
    }
}

#[test]
fn a_recording_of_nothing_is_not_an_interpreter() {
    let mut recording = recorded().into_iter().find(|sample| sample.name == "3.11-pyenv-cpu").unwrap().recording;
    recording.ranges.clear();
    assert!(ReplayTarget::from_dump(&recording).memory.read(Addr(recording.head.runtime), &mut [0]).is_err());
    let replay = Replay::by(&recording, Box::new(ReplayTarget::from_dump(&recording))).unwrap();
    // The kernel's data alone, such as a sleep in read(2), are no evidence of Python threads.
    assert_eq!((replay.outcome, replay.gils.len()), (SampleOutcome::NoInterpreter, 0));
    assert_eq!(replay.count(|state| state == State::Unknown), replay.views.len(), "{}", replay.text());
}
