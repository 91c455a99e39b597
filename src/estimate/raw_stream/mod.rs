//! What the estimator was given, as text: one line for each event, in numbers. A stream gives the
//! same slices again, on any machine: `scripts/eval replay`.
//!
//! ```text
//! t ID TID AT JUST STAT                              a thread starts
//! r INDEX AT STAT                                    its history begins anew
//! s SPAN FLAGS GILS [GIL]… [THREAD]…                 a sample
//! l INDEX SPAN HELD IN_C_CALL                        a thread that is gone now
//! f INDEX AT STAT                                    its time ends
//! d INDEX…                                           threads are removed
//! # TEXT                                             a remark
//! ```
//! SPAN is two times. A time is in nanoseconds since the time before it in the stream. STAT is CPU
//! time, run-queue time and runs, each beyond those that the thread's last line had. A missing
//! value, also a STAT, is `-`. GILS is a number of GILs; the threads follow them to the end of the
//! line.
//!
//! ```text
//! FLAGS   1 the program was stopped; 2 in older streams, of no meaning now
//! GIL     ID COLLECTING HOLDER_AFTER HOLDER READING
//!         HOLDER is INDEX ID
//!         READING is FLAGS LAST_HOLDER SWITCHES INTERVAL_US; FLAGS 1 on, 2 held by LAST_HOLDER
//! THREAD  INDEX GIL TSTATE TASK_STATE FLAGS REQUESTED DROP_REQUEST STATE STATE_BY_COUNTS STAT
//!         FLAGS 1 in older streams, of no meaning now; 2 in a C call, 4 runs no Python
//!         states are places in `TaskState::ALL` and `RunnableState::ALL`
//! ```

mod reader;
mod writer;

pub use reader::RawReader;
pub use writer::RawWriter;

/// The first line of a stream.
const HEAD: &str = "gilprof.samples/1";
/// Most threads and GILs that a line may name.
const MOST: usize = 1 << 16;

/// What later lines are relative to.
#[derive(Debug, Default)]
struct Base {
    pub time: i64,
    /// The last counts of each thread, by its index.
    stats: Vec<[i64; 3]>,
}

impl Base {
    pub fn stat(&mut self, index: usize) -> Option<&mut [i64; 3]> {
        if self.stats.len() <= index && index < MOST {
            self.stats.resize(index + 1, [0; 3]);
        }
        self.stats.get_mut(index)
    }

    pub fn remove(&mut self, gone: &[usize]) {
        let mut index = 0;
        self.stats.retain(|_| {
            index += 1;
            gone.binary_search(&(index - 1)).is_err()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::replay::replay;
    use crate::estimate::rules::Rules;
    use crate::estimate::Estimator;
    use crate::ids::{Addr, GilId, ThreadId, Tid};
    use crate::sample::*;
    use crate::units::Nanos;
    use proptest::prelude::*;
    use std::sync::Arc;

    struct Ignoring;

    impl Sink for Ignoring {
        fn thread(&mut self, _: &ThreadInfo) {}
        fn slice(&mut self, _: &StateSlice<'_>) {}
        fn gil(&mut self, _: &GilSample) {}
        fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
    }

    fn task(state: TaskState) -> RawTask {
        let stat = SchedStat { cpu: Nanos::from_millis(9), run_queue: Nanos::from_nanos(7), runs: 3 };
        RawTask { task_state: state, stat: Some(stat), runnable_state: None, by_counts: Some(RunnableState::Woken) }
    }

    fn sample() -> RawSample {
        let (running, empty) = (Arc::new(Stack { frames: Vec::new(), status: StackStatus::Truncated }), Arc::new(Stack::empty()));
        let now = GilReading { enabled: true, holder: Some(Addr(0x7000)), last_holder: Addr(0x7000), switches: 12, interval_us: 5000 };
        let holder = Some(RawHolder { index: 1, id: ThreadId(4), stack: running.clone() });
        let gil = RawGil { id: GilId(2), reading: Some(now), holder_after: Some(Addr(0x7000)), holder, collecting: Some(false) };
        let thread = |index, state, stack: &Arc<Stack>| RawThread {
            index,
            gil: (index == 1).then_some(0),
            tstate: Addr(0x7000),
            task: task(state),
            requested: None,
            in_c_call: index == 1,
            drop_request: Some(true),
            stack: stack.clone(),
        };
        let threads = vec![thread(0, TaskState::Syscall, &empty), thread(1, TaskState::Runnable, &running)];
        RawSample { span: (Nanos::from_millis(2), Nanos::from_millis(3)), is_stopped: false, gils: vec![gil], threads }
    }

    #[test]
    fn a_stream_gives_the_events_again() {
        let (raw, stat) = (sample(), task(TaskState::Unread).stat);
        let span = (Nanos::from_millis(3), Nanos::from_millis(4));
        let events = [
            RawEvent::Start { id: ThreadId(3), tid: Tid(77), at: Nanos::from_millis(1), stat: None, just_started: false },
            RawEvent::Start { id: ThreadId(4), tid: Tid(78), at: Nanos::from_millis(1), stat, just_started: true },
            RawEvent::Restart { index: 1, at: Nanos::from_millis(2), stat },
            RawEvent::Sample(&raw),
            RawEvent::Sample(&raw),
            RawEvent::Last { index: 0, span, held: true, in_c_call: false },
            RawEvent::Finish { index: 0, at: Nanos::from_millis(4), stat: None },
            RawEvent::Remove(&[0]),
            RawEvent::Finish { index: 0, at: Nanos::from_millis(5), stat },
        ];
        let mut writer = RawWriter::new(Vec::new()).unwrap();
        events.iter().for_each(|event| writer.event(event).unwrap());
        let bytes = writer.finish();
        let mut read = Vec::new();
        RawReader::new(bytes.as_slice()).unwrap().replay(&mut |event| read.push(format!("{event:?}"))).unwrap();
        assert_eq!(read, events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>());
        // Cut off in the middle of a line.
        let mut count = 0;
        RawReader::new(&bytes[..bytes.len() - 2]).unwrap().replay(&mut |_| count += 1).unwrap();
        assert_eq!(count, events.len() - 1);
    }

    #[test]
    fn another_file_is_refused() {
        assert!(RawReader::new(&b"gilprof.samples/2\n"[..]).is_err() && RawReader::new(&b""[..]).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(lines in proptest::collection::vec("[trsfld]( ([0-9]{1,2}|-)){0,40}", 0..20)) {
            let text = format!("{HEAD}\n{}\n", lines.join("\n"));
            let (mut estimator, mut sink) = (Estimator::default(), Ignoring);
            let stack = Arc::new(Stack::empty());
            let _ = RawReader::new(text.as_bytes()).unwrap().replay(&mut |event| {
                estimator.take(event, &stack, &mut sink);
            });
            for resolver in [Resolver::KernelStack, Resolver::SwitchCounts, Resolver::CpuTime] {
                let _ = replay(&mut RawReader::new(text.as_bytes()).unwrap(), resolver, Rules::default());
            }
        }

        #[test]
        fn a_sample_of_unknown_threads_is_replayed_without_panic(indices in proptest::collection::vec(0..9u8, 1..5), state in 0..9u8) {
            let threads: String = indices.iter().map(|index| format!(" {index} - 0 {state} 0 - - - - -")).collect();
            let text = format!("{HEAD}\nt 1 7 5 0 -\ns 1 1 0 0{threads}\n");
            let replayed = replay(&mut RawReader::new(text.as_bytes()).unwrap(), Resolver::SwitchCounts, Rules::default());
            prop_assert_eq!(replayed.unwrap().samples, 1);
        }
    }
}
