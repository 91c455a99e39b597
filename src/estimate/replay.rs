//! Judges a stream of samples again, by the evidence that another user would have had.

use super::raw_stream::RawReader;
use super::rules::Rules;
use super::Estimator;
use crate::ids::{ThreadId, Tid};
use crate::sample::{GilSample, RawEvent, RawSample, Resolver, Sink, Stack, StateSlice, StateTimes, ThreadInfo, ThreadTotals};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::Arc;

/// What a stream came to.
#[derive(Clone, Debug, Default)]
pub struct Replayed {
    /// The time of each thread in each state, in nanoseconds.
    pub threads: BTreeMap<Tid, StateTimes>,
    /// Samples.
    pub samples: u64,
}

/// The sums of the slices.
#[derive(Default)]
struct Sums {
    tids: FxHashMap<ThreadId, Tid>,
    threads: BTreeMap<Tid, StateTimes>,
}

impl Sink for Sums {
    fn thread(&mut self, _: &ThreadInfo) {}
    fn slice(&mut self, slice: &StateSlice<'_>) {
        if let Some(tid) = self.tids.get(&slice.thread) {
            self.threads.entry(*tid).or_default().merge(&slice.times);
        }
    }
    fn gil(&mut self, _: &GilSample) {}
    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

/// Gives every thread its states again by these rules, where `resolver` is the best evidence that
/// counts. An error where the stream is none.
pub fn replay<R: BufRead>(reader: &mut RawReader<R>, resolver: Resolver, rules: Rules) -> io::Result<Replayed> {
    let (mut estimator, mut sums, mut samples) = (Estimator::with_rules(rules), Sums::default(), 0);
    let (mut changed, stack) = (RawSample::default(), Arc::new(Stack::empty()));
    reader.replay(&mut |event| {
        match *event {
            RawEvent::Start { id, tid, .. } => {
                sums.tids.insert(id, tid);
            }
            RawEvent::Sample(raw) => {
                samples += 1;
                changed.clone_from(raw);
                changed.threads.iter_mut().for_each(|thread| keep_only(resolver, thread));
                estimator.take(&RawEvent::Sample(&changed), &stack, &mut sums);
                return;
            }
            _ => {}
        }
        estimator.take(event, &stack, &mut sums);
    })?;
    Ok(Replayed { threads: sums.threads, samples })
}

fn keep_only(resolver: Resolver, thread: &mut crate::sample::RawThread) {
    match resolver {
        Resolver::KernelStack => {}
        Resolver::SwitchCounts => thread.task.runnable_state = thread.task.by_counts,
        Resolver::CpuTime => thread.task.runnable_state = None,
    }
}
