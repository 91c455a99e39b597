//! Records made by hand, and any bytes at all.

use super::*;
use proptest::prelude::*;

fn record(kind: u8, off: u8, flags: u8, times: [u64; 3], gils: [u32; 2], frames: &[(u64, u64, i64)]) -> Vec<u8> {
    let mut bytes = vec![kind, off, flags, frames.len() as u8];
    [11u32, 10, 3].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    times.iter().chain(&[0x7000, 42]).for_each(|word| bytes.extend(word.to_le_bytes()));
    gils.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    for (at, code, position) in frames {
        [*at, *code, position.cast_unsigned()].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    }
    bytes
}

#[test]
fn a_run_and_its_stack() {
    let frames = [(0x100, 0x900, 4), (0x200, 0, ENTRY_FRAME), (0x300, 0x910, -1)];
    let bytes = record(0, 2, flag::LOCKED | flag::BY_PEER | flag::HAS_STACK, [500, 400, 300], [NO_GIL, 1], &frames);
    let mut memory = Vec::new();
    let (pid, tid, record) = parse(&bytes, &mut memory).unwrap();
    assert_eq!((pid, tid), (Pid(10), Tid(11)));
    let nanos = Nanos::from_nanos;
    let view = GilView { holds: None, gil: GilId(1), locked: true, last_holder: Addr(0x7000), switches: 42 };
    let wakeup = Some(Wakeup { at: nanos(300), by_peer: true });
    let run = CpuRun { number: 3, wakeup, begin: nanos(400), end: nanos(500), off: OffCpu::GilFutex, view };
    let python = |at, code, position| WalkedFrame { at: Addr(at), code: Addr(code), position };
    let frames = [python(0x100, 0x900, 4), python(0x300, 0x910, -1)];
    let stack = WalkedStack { frames: &frames, truncated: false, unreadable: false, leaving: false };
    assert_eq!(record, Record::Run(run, Some(stack)));
}

#[test]
fn frames_above_one_that_was_left_are_dropped() {
    let frames = [(0x100, 0x900, 4), (0x200, 0, 0), (0x300, 0x910, 8)];
    let bytes = record(1, 0, flag::HAS_STACK | flag::TRUNCATED, [500, 400, 0], [0, 0], &frames);
    let mut memory = Vec::new();
    let Some((_, _, Record::Tick { stack: Some(stack), view, .. })) = parse(&bytes, &mut memory) else { panic!("no tick") };
    assert_eq!(view.holds, Some(GilId(0)));
    assert_eq!(stack.frames.iter().map(|f| f.at.0).collect::<Vec<_>>(), [0x300]);
    assert!(stack.leaving && stack.truncated);
}

#[test]
fn a_frame_that_leads_to_itself_ends_the_stack() {
    let bytes = record(1, 0, flag::HAS_STACK | flag::TRUNCATED, [500, 400, 0], [0, 0], &[(0x100, 0x900, 4); 128]);
    let mut memory = Vec::new();
    let Some((_, _, Record::Tick { stack: Some(stack), .. })) = parse(&bytes, &mut memory) else { panic!("no tick") };
    assert_eq!((stack.frames.len(), stack.truncated, stack.unreadable), (1, false, true));
}

#[test]
fn what_cannot_be_is_no_record() {
    let whole = record(0, 10, 0, [1, 1, 0], [NO_GIL, NO_GIL], &[]);
    assert_eq!(parse(&whole, &mut Vec::new()), None, "an unknown reason");
    let whole = record(9, 0, 0, [1, 1, 0], [NO_GIL, NO_GIL], &[]);
    assert_eq!(parse(&whole, &mut Vec::new()), None, "an unknown kind");
    let whole = record(2, 0, 0, [1, 1, 0], [NO_GIL, NO_GIL], &[]);
    assert!(parse(&whole, &mut Vec::new()).is_some());
    assert_eq!(parse(&whole[..63], &mut Vec::new()), None, "too short");
}

#[test]
fn entries_of_threads() {
    let mut words = [0; THREAD_WORDS];
    (words[1], words[3], words[4], words[10], words[20], words[22]) = (301, 200, 5 | 2 << 32, 90, 6, 11 | 10 << 32);
    assert_eq!(ThreadEntry::parse(&words), None, "not complete");
    (words[5], words[6], words[14], words[17], words[19]) = (77, 1, 4, 50, 3);
    let off = ThreadEntry::parse(&words).unwrap();
    let wakeup = Some(Wakeup { at: Nanos::from_nanos(300), by_peer: true });
    assert_eq!((off.tid, off.tgid, off.now, off.lost), (Tid(11), Pid(10), ThreadNow::OffCpu { number: 5, wakeup }, 6));
    assert_eq!((off.left, off.sums.waiting), (Some((OffCpu::GilFutex, Nanos::from_nanos(200))), Nanos::from_nanos(90)));
    assert_eq!((off.of_gil.0, off.of_gil.1.waiting, off.of_gil.1.waits), (1, Nanos::from_nanos(40), 1));
    words[0] = 400;
    assert_eq!(ThreadEntry::parse(&words).unwrap().now, ThreadNow::OnCpu { number: 5, wakeup, begin: Nanos::from_nanos(400) });
}

proptest! {
    #[test]
    fn any_record_parses_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let mut memory = Vec::new();
        if let Some((_, _, record)) = parse(&bytes, &mut memory) {
            if let Record::Run(run, _) = record {
                prop_assert!(run.begin <= run.end);
            }
            if let Record::Run(_, Some(stack)) | Record::Tick { stack: Some(stack), .. } = record {
                prop_assert!(stack.frames.len() <= bytes.len() / FRAME && stack.frames.iter().all(|f| !f.code.is_null()));
            }
        }
    }

    #[test]
    fn any_entry_parses_without_panic(words in any::<[u64; THREAD_WORDS]>()) {
        let _ = ThreadEntry::parse(&words);
    }
}
