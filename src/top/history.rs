//! What is kept of a measurement: the pieces of the last seconds, the figures since the start, and
//! a point a second for the charts. Memory is bounded however long it runs.
//!
//! A window's figures are those of a report of the same time: its records go through a
//! [`ProfileBuilder`], and nothing here computes a figure. A window ends [`LAG`] ago, because a
//! thread's time may be classified that much later than its sample; an end at the last sample would
//! miss the time of some threads.

use super::piece::{Piece, Record};
use super::stats::between;
use crate::ids::ThreadId;
use crate::profile::{LiveStats, Profile, ProfileBuilder};
use crate::sample::{CaptureStats, Sink, TargetInfo, ThreadInfo};
use crate::units::Nanos;
use clap::ValueEnum;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// By how much a slice may be later than its sample, in seconds: 250 ms, a coalesced slice, and the
/// length of a piece.
const LAG: f64 = 0.4;
/// The longest window that is computed from pieces, in seconds.
const LONGEST: f64 = 10.0;
/// The largest number of records in all pieces, about 60 MB. Beyond it the oldest pieces go.
const MAX_RECORDS: usize = 1 << 19;
/// Points of a chart, a second each.
pub const CHART_POINTS: usize = 60;

/// Which time the figures cover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Span {
    /// The last second.
    #[value(name = "1s")]
    Second,
    /// The last ten seconds.
    #[default]
    #[value(name = "10s")]
    TenSeconds,
    /// Since the start, or the last reset.
    Start,
}

impl Span {
    /// Its length in seconds; `None`: all that was measured.
    pub fn seconds(self) -> Option<f64> {
        match self {
            Span::Second => Some(1.0),
            Span::TenSeconds => Some(LONGEST),
            Span::Start => None,
        }
    }
}

/// The measurement so far.
#[derive(Debug, Default)]
pub struct History {
    pieces: VecDeque<Piece>,
    records: usize,
    /// The statistics at the beginning of the oldest piece.
    oldest: CaptureStats,
    /// The threads of the pieces.
    threads: FxHashMap<ThreadId, ThreadInfo>,
    since_reset: ProfileBuilder,
    /// The statistics at the last reset.
    reset_at: CaptureStats,
    second: ProfileBuilder,
    second_began: f64,
    chart: VecDeque<LiveStats>,
    latest: (TargetInfo, CaptureStats),
    /// The measurement has ended, so nothing comes late any more.
    finished: bool,
}

/// The part of the pieces that a window covers.
struct Range<'a> {
    from: &'a CaptureStats,
    to: &'a CaptureStats,
    whole: bool,
}

impl Range<'_> {
    fn includes(&self, record: &Record) -> bool {
        let at = |stats: &CaptureStats| stats.begin + Nanos::from_secs_f64(stats.seconds);
        let after_begin = |time: Nanos| self.from.seconds == 0.0 || time > at(self.from);
        record.time().is_none_or(|time| after_begin(time) && (self.whole || time <= at(self.to)))
    }
}

impl History {
    /// Adds what was measured since the last piece.
    pub fn add(&mut self, piece: Piece) {
        for record in &piece.records {
            if let Record::Thread(info) = record {
                self.threads.insert(info.id, info.clone());
                self.second.thread(info);
            }
            record.send(&mut self.since_reset);
            if record.time().is_some() {
                record.send(&mut self.second);
            }
        }
        let now = piece.stats.seconds;
        self.latest = (piece.target.clone(), piece.stats.clone());
        self.records += piece.records.len();
        self.pieces.push_back(piece);
        if now - self.second_began >= 1.0 {
            self.end_second(now);
        }
        while self.pieces.len() > 1 && (self.records > MAX_RECORDS || now - self.pieces[0].stats.seconds > LONGEST + 2.0 * LAG) {
            self.forget_oldest();
        }
    }

    /// Nothing follows.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The figures since the start begin anew.
    pub fn reset(&mut self) {
        self.reset_at = self.latest.1.clone();
        self.since_reset = self.with_threads();
    }

    /// What is measured, and how since the start.
    pub fn latest(&self) -> (&TargetInfo, &CaptureStats) {
        (&self.latest.0, &self.latest.1)
    }

    /// The busy and waiting shares of the last seconds, the oldest first.
    pub fn chart(&self) -> impl Iterator<Item = LiveStats> + '_ {
        self.chart.iter().copied()
    }

    /// The known threads, for a recording that begins now.
    pub fn threads(&self) -> impl Iterator<Item = &ThreadInfo> {
        self.threads.values()
    }

    /// The figures of a window that ends now.
    pub fn profile(&self, span: Span) -> Profile {
        let (target, latest) = &self.latest;
        if span.seconds().is_none() {
            let stats = if self.reset_at.seconds > 0.0 { between(&self.reset_at, latest) } else { latest.clone() };
            return self.since_reset.clone().finish(target.clone(), stats);
        }
        let mut builder = ProfileBuilder::new();
        let stats = self.replay(span, &mut builder);
        builder.finish(target.clone(), stats)
    }

    /// Sends the records of a window to `sink`, and returns its statistics. Of the time since the
    /// start, only what is kept.
    pub fn replay(&self, span: Span, sink: &mut dyn Sink) -> CaptureStats {
        let range = self.range(span.seconds().unwrap_or(LONGEST));
        let mut announced = rustc_hash::FxHashSet::default();
        for record in self.pieces.iter().flat_map(|piece| &piece.records).filter(|record| range.includes(record)) {
            if let Record::Slice(slice) = record {
                if let Some(info) = self.threads.get(&slice.thread).filter(|_| announced.insert(slice.thread)) {
                    sink.thread(info);
                }
            }
            match record {
                // Its totals count from the thread's start, which may be before the window's.
                Record::End(..) if range.from.seconds > 0.0 => {}
                Record::Thread(_) => {}
                record => record.send(sink),
            }
        }
        if range.from.seconds > 0.0 {
            between(range.from, range.to)
        } else {
            range.to.clone()
        }
    }

    fn range(&self, seconds: f64) -> Range<'_> {
        let latest = &self.latest.1;
        // Until there is more than the window, the window is all there is.
        let begun = self.oldest.seconds == 0.0 && latest.seconds < seconds + LAG;
        let lag = if self.finished || begun { 0.0 } else { LAG };
        let at_most = |limit: f64| self.pieces.iter().map(|piece| &piece.stats).rfind(|stats| stats.seconds <= limit);
        let to = at_most(latest.seconds - lag).unwrap_or(latest);
        let from = if begun && !self.finished { None } else { at_most(to.seconds - seconds) };
        Range { from: from.unwrap_or(&self.oldest), to, whole: lag == 0.0 }
    }

    fn end_second(&mut self, now: f64) {
        let next = self.with_threads();
        let ended = std::mem::replace(&mut self.second, next);
        self.chart.push_back(ended.live());
        if self.chart.len() > CHART_POINTS {
            self.chart.pop_front();
        }
        self.second_began = now;
    }

    fn with_threads(&self) -> ProfileBuilder {
        let mut builder = ProfileBuilder::new();
        // In the order in which they were found, as a capture announces them.
        let mut threads: Vec<&ThreadInfo> = self.threads.values().collect();
        threads.sort_by_key(|info| info.id);
        threads.into_iter().for_each(|info| builder.thread(info));
        builder
    }

    fn forget_oldest(&mut self) {
        let Some(piece) = self.pieces.pop_front() else { return };
        self.records -= piece.records.len();
        for record in &piece.records {
            if let Record::End(thread, _) = record {
                self.threads.remove(thread);
            }
        }
        self.oldest = piece.stats;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GilId, Tid};
    use crate::sample::{Evidence, GilSample, Holder, SampleCounts, Stack, State, StateSlice, StateTimes};
    use crate::top::piece::PieceSink;
    use std::sync::Arc;

    /// A thread that holds the GIL in even seconds and sleeps in odd ones, for `seconds`, in pieces
    /// of a tenth of a second.
    fn history(seconds: u64) -> History {
        let (mut history, mut sink) = (History::default(), PieceSink::default());
        let stack = Arc::new(Stack::empty());
        sink.thread(&ThreadInfo { id: ThreadId(0), tid: Tid(7), name: "t".into(), python: true, main: true, gil: Some(GilId(0)) });
        for ms in 1..=seconds * 1000 {
            let (at, span) = (Nanos::from_millis(5_000 + ms), Nanos::from_millis(1));
            let holds = (ms - 1) / 1000 % 2 == 0;
            let (state, holder) = if holds { (State::HoldingPython, Holder::Thread(ThreadId(0))) } else { (State::Io, Holder::Nobody) };
            sink.gil(&GilSample { gil: GilId(0), at, span, holder, switches: None, waiters: 0, collecting: None });
            let times = StateTimes::single(state, 1e6);
            sink.slice(&StateSlice { thread: ThreadId(0), end: at, times, evidence: Evidence::GilHolder, stack: &stack, holder: None });
            if ms % 100 == 0 {
                let stats = CaptureStats {
                    begin: Nanos::from_millis(5_000),
                    seconds: ms as f64 / 1e3,
                    counts: SampleCounts { samples: ms, ..SampleCounts::default() },
                    ..CaptureStats::default()
                };
                sink.publish(&TargetInfo::default(), &stats, |piece| {
                    history.add(*piece);
                    Ok(())
                });
            }
        }
        history
    }

    fn busy_and_seconds(history: &History, span: Span) -> (f64, f64) {
        let profile = history.profile(span);
        assert_eq!(profile.window.counts.samples as f64, (profile.seconds() * 1e3).round());
        assert!((profile.threads[0].times.total() / 1e9 - profile.seconds()).abs() < 0.002, "{:?}", profile.threads[0]);
        (profile.gils[0].busy / profile.gils[0].observed, (profile.seconds() * 10.0).round() / 10.0)
    }

    #[test]
    fn windows_cover_their_time_and_no_more() {
        let mut history = history(25);
        let (busy, seconds) = busy_and_seconds(&history, Span::Second);
        // From 23.6 s to 24.6 s.
        assert!((busy - 0.6).abs() < 0.002 && seconds == 1.0, "{busy}");
        assert_eq!(busy_and_seconds(&history, Span::TenSeconds), (0.5, 10.0));
        assert_eq!(busy_and_seconds(&history, Span::Start), (0.52, 25.0));
        history.finish();
        assert_eq!(busy_and_seconds(&history, Span::Second), (1.0, 1.0));
        history.reset();
        assert_eq!(history.profile(Span::Start).gils.len(), 0);
        assert_eq!(history.profile(Span::Start).threads[0].info.name, "t");
    }

    #[test]
    fn until_it_is_long_enough_a_window_is_all_there_is() {
        assert_eq!(busy_and_seconds(&history(3), Span::TenSeconds), (2.0 / 3.0, 3.0));
    }

    #[test]
    fn the_past_is_bounded() {
        let history = history(90);
        assert!(history.records < 25_000 && history.pieces.len() < 125, "{} {}", history.records, history.pieces.len());
        assert_eq!(history.chart().count(), CHART_POINTS);
        assert!(history.chart().all(|point| point.gil_busy == 0.0 || point.gil_busy == 1.0));
    }
}
