//! What the sampling thread hands over: pieces of the measurement, about a tenth of a second each.
//!
//! A piece owns its records, so that the figures are computed on another thread and a slow terminal
//! never delays a sample. What waits to be handed over is bounded; what does not fit is counted.

use crate::ids::ThreadId;
use crate::sample::{
    CaptureStats, Evidence, GilSample, MeasuredInterval, Sink, Stack, StateSlice, StateTimes, TargetInfo, ThreadInfo, ThreadTotals,
};
use crate::units::Nanos;
use std::sync::Arc;

/// The largest number of records that wait to be handed over, about 60 MB.
const MAX_RECORDS: usize = 1 << 19;

/// One call of a [`Sink`], with what it refers to.
#[derive(Clone, Debug)]
pub enum Record {
    /// [`Sink::thread`].
    Thread(ThreadInfo),
    /// [`Sink::slice`].
    Slice(OwnedSlice),
    /// [`Sink::gil`].
    Gil(GilSample),
    /// [`Sink::interval`].
    Interval(MeasuredInterval),
    /// [`Sink::thread_end`].
    End(ThreadId, ThreadTotals),
}

/// A [`StateSlice`] that owns its stacks.
#[derive(Clone, Debug)]
pub struct OwnedSlice {
    /// As in [`StateSlice`].
    pub thread: ThreadId,
    end: Nanos,
    times: StateTimes,
    evidence: Evidence,
    stack: Arc<Stack>,
    holder: Option<(ThreadId, Arc<Stack>)>,
}

impl Record {
    /// The time at which it ends; `None` of what has no time.
    pub fn time(&self) -> Option<Nanos> {
        match self {
            Record::Slice(slice) => Some(slice.end),
            Record::Gil(sample) => Some(sample.at),
            Record::Interval(measured) => Some(measured.end),
            Record::Thread(_) | Record::End(..) => None,
        }
    }

    /// Makes the call again.
    pub fn send(&self, sink: &mut dyn Sink) {
        match self {
            Record::Thread(info) => sink.thread(info),
            Record::Slice(slice) => {
                let OwnedSlice { thread, end, times, evidence, stack, holder } = slice;
                let holder = holder.as_ref().map(|(id, stack)| (*id, stack));
                sink.slice(&StateSlice { thread: *thread, end: *end, times: *times, evidence: *evidence, stack, holder });
            }
            Record::Gil(sample) => sink.gil(sample),
            Record::Interval(measured) => sink.interval(measured),
            Record::End(thread, totals) => sink.thread_end(*thread, *totals),
        }
    }
}

/// The records since the last piece, and the state of the measurement at its end.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// In the order of the capture.
    pub records: Vec<Record>,
    /// What is measured.
    pub target: TargetInfo,
    /// How the measurement goes since its start.
    pub stats: CaptureStats,
}

/// Collects records on the sampling thread.
#[derive(Debug, Default)]
pub struct PieceSink {
    records: Vec<Record>,
    /// Records that found no room.
    lost: u64,
}

impl PieceSink {
    /// Ends a piece. `hand_over` returns it if it cannot be taken now; then its records are part of
    /// the next piece.
    pub fn publish(&mut self, target: &TargetInfo, stats: &CaptureStats, hand_over: impl FnOnce(Box<Piece>) -> Result<(), Box<Piece>>) {
        let mut stats = stats.clone();
        if self.lost > 0 {
            stats.warnings.push(format!("{} records were left out, because gilprof had no CPU to add them up", self.lost));
        }
        let piece = Piece { records: std::mem::take(&mut self.records), target: target.clone(), stats };
        if let Err(refused) = hand_over(Box::new(piece)) {
            self.records = refused.records;
        }
    }

    fn push(&mut self, record: Record) {
        // Threads are few, and without them no later record could be named.
        if self.records.len() < MAX_RECORDS || record.time().is_none() {
            self.records.push(record);
        } else {
            self.lost += 1;
        }
    }
}

impl Sink for PieceSink {
    fn thread(&mut self, info: &ThreadInfo) {
        self.push(Record::Thread(info.clone()));
    }

    fn slice(&mut self, slice: &StateSlice<'_>) {
        let StateSlice { thread, end, times, evidence, stack, holder } = slice.clone();
        let holder = holder.map(|(id, stack)| (id, Arc::clone(stack)));
        self.push(Record::Slice(OwnedSlice { thread, end, times, evidence, stack: Arc::clone(stack), holder }));
    }

    fn gil(&mut self, sample: &GilSample) {
        self.push(Record::Gil(*sample));
    }

    fn interval(&mut self, measured: &MeasuredInterval) {
        self.push(Record::Interval(*measured));
    }

    fn thread_end(&mut self, thread: ThreadId, totals: ThreadTotals) {
        self.push(Record::End(thread, totals));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::GilId;
    use crate::sample::Holder;

    #[test]
    fn a_refused_piece_is_part_of_the_next() {
        let (mut sink, at) = (PieceSink::default(), Nanos::from_millis(1));
        let sample = GilSample { gil: GilId(0), at, span: at, holder: Holder::Nobody, switches: None, waiters: 0, collecting: None };
        let (target, stats) = (TargetInfo::default(), CaptureStats::default());
        sink.gil(&sample);
        sink.publish(&target, &stats, Err);
        sink.gil(&sample);
        let mut taken = None;
        sink.publish(&target, &stats, |piece| {
            taken = Some(piece.records.len());
            Ok(())
        });
        assert_eq!(taken, Some(2));
        (0..MAX_RECORDS + 3).for_each(|_| sink.gil(&sample));
        sink.publish(&target, &stats, |piece| {
            assert_eq!(piece.records.len(), MAX_RECORDS);
            assert!(piece.stats.warnings[0].starts_with("3 records were left out"), "{:?}", piece.stats.warnings);
            Ok(())
        });
    }
}
