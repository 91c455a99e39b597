//! The timeline of the page: one track per thread, and how busy each GIL was. Its size is bounded,
//! whatever the recording's length.
//!
//! The tracks of a short recording have all spans, to the microsecond. A longer recording is
//! divided into columns (see [`downsample`](super::downsample)), as many as the budget allows. One
//! replay builds both, because the number of spans is only known at its end. The page computes
//! coarser levels from prefix sums.

use super::downsample::{Downsampler, UNITS};
use super::pack::Packed;
use super::span_types::SpanTypes;
use crate::error::Result;
use crate::ids::{GilId, ThreadId};
use crate::output::timeline::{Span, SpanBuilder, SpanSink};
use crate::output::{columns, sanitize, Source};
use crate::profile::ThreadProfile;
use crate::sample::{GilSample, Holder, State, ThreadInfo};
use rustc_hash::FxHashMap;
use serde_json::{json, Value};

/// Tracks of one process; threads beyond are counted.
pub const MAX_TRACKS: usize = 128;
/// Points of a GIL's chart.
const POINTS: u64 = 1500;
/// GILs that are drawn, at most.
const MAX_GILS: usize = 8;
/// Columns of a track, at least and at most.
const COLUMNS: (usize, usize) = (256, 4096);
/// Names longer than this are cut in their middle.
const LONGEST_NAME: usize = 80;

/// The share of the file that one process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Spans; a process with more of them has tracks in columns.
    pub spans: usize,
    /// Columns of all tracks together.
    pub cells: usize,
    /// Frames of one flame graph.
    pub frames: usize,
}

impl Budget {
    /// The budget of one of several processes. A span takes about five characters, a column up to
    /// thirteen, and a frame some more.
    pub fn shared(processes: usize) -> Budget {
        let processes = processes.max(1);
        Budget { spans: 500_000 / processes, cells: 196_608 / processes, frames: (8000 / processes).min(4000) }
    }
}

/// The timeline of one process.
pub fn value(source: &Source<'_>, budget: Budget) -> Result<Value> {
    let mut spans = SpanBuilder::new(TimelineBuilder::new(source, budget));
    source.timeline()?.replay(&mut spans)?;
    Ok(spans.finish().finish())
}

struct ThreadTrack {
    name: String,
    tid: i32,
    /// The length in microseconds and the type of each span, alternately.
    exact: Packed,
    /// The end of the last span, in microseconds.
    end: u64,
    cells: Downsampler,
}

/// The sums of one point of a GIL's chart.
#[derive(Clone, Copy, Default)]
struct Point {
    seen: f64,
    held: f64,
    waiting: f64,
}

struct TimelineBuilder {
    begin: u64,
    nanos: u64,
    columns: u64,
    span_types: SpanTypes,
    tracks: Vec<ThreadTrack>,
    index: FxHashMap<ThreadId, usize>,
    left_out: usize,
    /// Spans that may still be added; `None` when there were too many.
    exact_left: Option<usize>,
    gils: Vec<(GilId, Vec<Point>)>,
}

impl TimelineBuilder {
    fn new(source: &Source<'_>, budget: Budget) -> TimelineBuilder {
        let threads = ranked(&source.profile.threads);
        let (fewest, most) = COLUMNS;
        let drawn = &threads[..threads.len().min(MAX_TRACKS).min(budget.cells / fewest)];
        TimelineBuilder {
            begin: source.report.window.begin_ns,
            nanos: ((source.report.window.seconds * 1e9) as u64).max(1),
            columns: (budget.cells / drawn.len().max(1)).clamp(fewest, most) as u64,
            span_types: SpanTypes::new(),
            tracks: drawn.iter().map(|thread| ThreadTrack::new(thread)).collect(),
            index: drawn.iter().enumerate().map(|(n, thread)| (thread.info.id, n)).collect(),
            left_out: threads.len() - drawn.len(),
            exact_left: Some(budget.spans),
            gils: Vec::new(),
        }
    }

    /// Adds a span to its exact track, unless there were too many.
    fn exact(&mut self, track: usize, span: (u64, u64), span_type: u64) {
        let Some(left) = self.exact_left.as_mut() else { return };
        if *left == 0 {
            self.exact_left = None;
            self.tracks.iter_mut().for_each(|track| track.exact = Packed::default());
            return;
        }
        *left -= 1;
        // Ends are rounded, not lengths, so that errors do not add up.
        let (from, to) = ((span.0 + 500) / 1000, (span.1 + 500) / 1000);
        let track = &mut self.tracks[track];
        if from > track.end {
            track.exact.push(from - track.end);
            track.exact.push(0);
            track.end = from;
        }
        if to > track.end {
            track.exact.push(to - track.end);
            track.exact.push(span_type);
            track.end = to;
        }
    }

    /// Distributes a span over the columns that it overlaps.
    fn split_into_columns(&mut self, track: usize, (begin, end): (u64, u64), state: State, span_type: u64) {
        let (columns, nanos) = (u128::from(self.columns), u128::from(self.nanos));
        let edge = |column: u128| (nanos * column / columns) as u64;
        let mut column = (u128::from(begin) * columns / nanos).min(columns - 1);
        let mut at = begin;
        while at < end && column < columns {
            let (left, right) = (edge(column), edge(column + 1).max(edge(column) + 1));
            let until = end.min(right);
            if until > at {
                let units = (until - at) as f64 / (right - left) as f64 * UNITS;
                self.tracks[track].cells.add(column as u64, state, span_type, units);
                at = until;
            }
            column += 1;
        }
    }

    fn finish(self) -> Value {
        let exact = self.exact_left.is_some();
        let (texts, span_types) = self.span_types.finish();
        let tracks: Vec<Value> = self
            .tracks
            .into_iter()
            .map(|track| {
                let packed = if exact { track.exact.into_text() } else { track.cells.finish() };
                json!({"name": track.name, "tid": track.tid, "packed": packed})
            })
            .collect();
        json!({
            "exact": exact, "seconds": self.nanos as f64 / 1e9, "columns": self.columns, "units": UNITS,
            "texts": texts, "span_types": span_types, "tracks": tracks, "left_out": self.left_out,
            "gils": self.gils.iter().map(|(gil, points)| gil_series(*gil, points)).collect::<Vec<_>>(),
        })
    }
}

/// Threads by their time in states other than lock, io and unknown; then by id.
fn ranked(threads: &[ThreadProfile]) -> Vec<&ThreadProfile> {
    let mut ranked: Vec<&ThreadProfile> = threads.iter().collect();
    let busy =
        |t: &ThreadProfile| t.times.holding() + t.times.get(State::Waiting) + t.times.get(State::Native) + t.times.get(State::Starved);
    ranked.sort_by(|a, b| busy(b).total_cmp(&busy(a)).then(a.info.tid.cmp(&b.info.tid)));
    ranked
}

impl ThreadTrack {
    fn new(thread: &ThreadProfile) -> ThreadTrack {
        let name = columns::fit(&sanitize::clean(&thread.info.name), LONGEST_NAME);
        ThreadTrack { name, tid: thread.info.tid.0, exact: Packed::default(), end: 0, cells: Downsampler::default() }
    }
}

/// Busy in thousandths and waiting threads in hundredths; `null` where no sample covers the time.
fn gil_series(gil: GilId, points: &[Point]) -> Value {
    let of = |part: fn(&Point) -> f64, scale: f64| -> Vec<Option<u64>> {
        points.iter().map(|point| (point.seen > 0.0).then(|| (part(point) / point.seen * scale).round() as u64)).collect()
    };
    json!({"gil": gil.0, "busy": of(|p| p.held, 1000.0), "waiters": of(|p| p.waiting, 100.0)})
}

impl SpanSink for TimelineBuilder {
    fn thread(&mut self, info: &ThreadInfo) {
        self.span_types.name(info.id, sanitize::clean(&info.name));
    }

    fn span(&mut self, span: Span) {
        let Some(&track) = self.index.get(&span.thread) else { return };
        let inside = |at: u64| at.saturating_sub(self.begin).min(self.nanos);
        let range = (inside(span.begin), inside(span.end));
        if range.1 > range.0 {
            let span_type = self.span_types.number_of(&span);
            self.exact(track, range, span_type);
            self.split_into_columns(track, range, span.state, span_type);
        }
    }

    fn gil(&mut self, sample: &GilSample) {
        let found = self.gils.iter().position(|(gil, _)| *gil == sample.gil);
        let at = match found {
            Some(at) => at,
            None if self.gils.len() < MAX_GILS => {
                self.gils.push((sample.gil, vec![Point::default(); POINTS as usize]));
                self.gils.len() - 1
            }
            None => return,
        };
        let inside = |at: u64| at.saturating_sub(self.begin).min(self.nanos);
        let end = sample.at.as_nanos();
        let (begin, end) = (inside(end.saturating_sub(sample.span.as_nanos())), inside(end));
        let (held, waiting) = (f64::from(u8::from(sample.holder != Holder::Nobody)), f64::from(sample.waiters));
        let width = self.nanos as f64 / POINTS as f64;
        let first = ((begin as f64 / width) as u64).min(POINTS - 1);
        let last = ((end as f64 / width) as u64).min(POINTS - 1);
        for n in first..=last {
            let overlap = (end as f64).min((n + 1) as f64 * width) - (begin as f64).max(n as f64 * width);
            if overlap > 0.0 {
                let point = &mut self.gils[at].1[n as usize];
                point.seen += overlap;
                point.held += held * overlap;
                point.waiting += waiting * overlap;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pack::unpack;
    use super::*;
    use crate::output::testing::measured;

    const LITTLE: Budget = Budget { spans: 100, cells: 4 * 256, frames: 100 };

    #[test]
    fn spans_add_up_exactly_and_in_columns() {
        let written = measured();
        let (exact, cut) = (value(&written.source(), Budget::shared(1)).unwrap(), value(&written.source(), LITTLE).unwrap());
        assert_eq!([&exact["exact"], &cut["exact"]], [true, false]);
        let span_types = exact["span_types"].as_array().unwrap();
        for (track, coarse) in exact["tracks"].as_array().unwrap().iter().zip(cut["tracks"].as_array().unwrap()) {
            let thread = written.profile.threads.iter().find(|t| t.info.tid.0 == track["tid"]).unwrap();
            let mut sums = [0.0; State::COUNT];
            for pair in unpack(track["packed"].as_str().unwrap()).chunks(2) {
                if pair[1] > 0 {
                    sums[span_types[pair[1] as usize][0].as_u64().unwrap() as usize] += pair[0] as f64 * 1e3;
                }
            }
            let columns = units(coarse["packed"].as_str().unwrap());
            for state in State::ALL {
                let wanted = thread.times.get(state);
                assert!((sums[state as usize] - wanted).abs() < 1e6, "{}: {} {wanted}", state.label(), sums[state as usize]);
                let got = columns[state as usize] / UNITS / 256.0 * 1e9;
                assert!((got - wanted).abs() < 1e7, "{}: {got} {wanted} in columns", state.label());
            }
        }
        let gil = &exact["gils"][0];
        let mean = |key: &str| gil[key].as_array().unwrap().iter().filter_map(Value::as_f64).sum::<f64>() / POINTS as f64;
        assert!((mean("busy") - 1000.0).abs() < 1.0 && (mean("waiters") - 100.0).abs() < 1.0, "{gil}");
    }

    fn units(text: &str) -> [f64; State::COUNT] {
        let mut sums = [0.0; State::COUNT];
        let numbers = unpack(text);
        let mut at = numbers.iter().copied();
        while let Some(count) = at.next() {
            for _ in 0..at.next().unwrap() {
                let state = at.next().unwrap() as usize;
                sums[state] += (at.next().unwrap() * count) as f64;
            }
            at.next().unwrap();
        }
        sums
    }

    #[test]
    fn a_waiting_span_names_the_holder() {
        let written = measured();
        let drawn = value(&written.source(), Budget::shared(1)).unwrap();
        let texts = drawn["texts"].as_array().unwrap();
        let holders: Vec<&str> = drawn["span_types"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|span_type| span_type[2] != 0)
            .map(|span_type| texts[span_type[2].as_u64().unwrap() as usize].as_str().unwrap())
            .collect();
        assert!(holders.contains(&"worker-1: burn (app.py:1)") && holders.contains(&"worker-2: burn (app.py:1)"), "{holders:?}");
    }
}
