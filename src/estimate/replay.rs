//! Judges a stream of samples again, by the evidence that another user would have had.

use super::raw_stream::RawReader;
use super::rules::Rules;
use super::Estimator;
use crate::ids::{ThreadId, Tid};
use crate::sample::{
    GilSample, RawEvent, RawSample, RawThread, Resolver, RunnableState, Sink, Stack, StateSlice, StateTimes, TaskState, ThreadInfo,
    ThreadTotals,
};
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
    let mut last: FxHashMap<usize, Option<RunnableState>> = FxHashMap::default();
    reader.replay(&mut |event| {
        match *event {
            RawEvent::Start { id, tid, .. } => {
                sums.tids.insert(id, tid);
            }
            RawEvent::Sample(raw) => {
                samples += 1;
                changed.clone_from(raw);
                for thread in changed.threads.iter_mut().filter(|_| resolver != Resolver::KernelStack) {
                    keep_only(resolver, thread, &estimator, last.entry(thread.index).or_default());
                }
                estimator.take(&RawEvent::Sample(&changed), &stack, &mut sums);
                return;
            }
            // Later threads have other indices now.
            RawEvent::Remove(_) => last.clear(),
            _ => {}
        }
        estimator.take(event, &stack, &mut sums);
    })?;
    Ok(Replayed { threads: sums.threads, samples })
}

/// Leaves of a sample what a user without kernel stacks would have had. `last` is the thread's
/// state at its last sample, by counts.
fn keep_only(resolver: Resolver, thread: &mut RawThread, estimator: &Estimator, last: &mut Option<RunnableState>) {
    let task = &mut thread.task;
    let known = estimator.threads().get(thread.index).is_some_and(|known| known.history().not_run_since_wakeup(task.stat));
    if task.task_state == TaskState::NotRunSince && !known {
        // Only the kernel stack said that the thread was in the run queue. It is there still, and
        // its counts have not moved.
        (task.task_state, task.by_counts) = (TaskState::Runnable, *last);
    }
    *last = task.by_counts.filter(|_| task.task_state == TaskState::Runnable);
    task.runnable_state = task.by_counts.filter(|_| resolver == Resolver::SwitchCounts);
}
