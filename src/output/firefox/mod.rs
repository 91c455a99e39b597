//! The Firefox Profiler's processed profile: a track for each thread, its state as category, waits
//! and holds as markers.
//!
//! A sample is a span of one state on one stack. Its weight is the span's length in milliseconds,
//! so sums are thread time. Every frame of a sample has the state's category, because the profiler
//! colours and groups by the leaf's. Markers are uninterrupted waits, with the function that held
//! longest meanwhile, and uninterrupted holds. If a recording has too many spans for a browser,
//! they are summed in bins: within a bin, samples of the same stack are one, so sums stay right,
//! and markers shorter than a bin are left out. The profile's title says so.
//!
//! The format is docs-developer/processed-format of github.com/firefox-devtools/profiler. The
//! profiler upgrades old versions, so this writes an older one that is simpler.

mod tables;

use super::timeline::{leaf, Span, SpanBuilder, SpanSink};
use super::{sanitize, text, Source};
use crate::error::{Error, Result};
use crate::ids::ThreadId;
use crate::sample::{GilSample, State, ThreadInfo};
use rustc_hash::FxHashMap;
use serde_json::{json, Value};
use std::io::Write;
use tables::Track;

/// The version of the format.
const VERSION: u32 = 49;
/// The samples of all threads that a browser shows without delay.
const MAX_SAMPLES: f64 = 1e6;
/// Threads with a track. Later threads are left out, and the title says so.
const MAX_TRACKS: usize = 8192;
/// The shortest usual mean length of spans, in nanoseconds, from which their number is estimated.
const USUAL_SPAN: f64 = 2e6;

/// Writes the profile of all processes.
pub fn write(sources: &[Source<'_>], out: &mut dyn Write) -> Result<()> {
    let mut tracks = Vec::new();
    let (mut bins, mut left_out) = (0, false);
    let begin = sources.iter().map(|source| source.report.window.begin_ns).min().unwrap_or(0);
    for source in sources {
        let bin = bin(source);
        bins = bins.max(bin);
        let mut spans = SpanBuilder::new(FirefoxProcess::new(begin, bin, source.report.target.pid));
        source.timeline()?.replay(&mut spans)?;
        let name = sanitize::clean(&text::program(&source.report.target));
        let process = spans.finish();
        left_out |= process.left_out;
        tracks.extend(process.tracks.into_iter().map(|track| track.finish(&name, source.report.target.pid)));
    }
    let profile = json!({
        "meta": meta(sources, bins, left_out),
        "libs": [], "pages": [], "counters": [], "profilerOverhead": [],
        "threads": tracks,
    });
    serde_json::to_writer(&mut *out, &profile).map_err(|e| match e.is_io() {
        true => Error::Write(e.into()),
        false => Error::System { what: "write JSON".into(), source: e.into() },
    })
}

/// The length of bins, in nanoseconds; 0 if none are needed.
fn bin(source: &Source<'_>) -> u64 {
    let spans = source.profile.seconds() * 1e9 * source.profile.threads.len() as f64 / USUAL_SPAN;
    if spans > MAX_SAMPLES {
        (USUAL_SPAN * spans / MAX_SAMPLES) as u64
    } else {
        0
    }
}

fn meta(sources: &[Source<'_>], bin: u64, left_out: bool) -> Value {
    let named =
        |source: &Source<'_>| format!("{}, pid {}", sanitize::clean(&text::program(&source.report.target)), source.report.target.pid);
    let mut title = sources.iter().map(named).collect::<Vec<_>>().join("; ");
    if bin > 0 {
        title += &format!(" (in bins of {} ms)", bin / 1_000_000);
    }
    if left_out {
        title += &format!(" (only its first {MAX_TRACKS} threads)");
    }
    let rate = sources.first().map_or(1000.0, |source| source.report.window.rate_hz);
    let categories: Vec<Value> =
        State::ALL.iter().map(|&state| json!({"name": state.label(), "color": colour(state), "subcategories": ["Other"]})).collect();
    json!({
        "version": 24, "preprocessedProfileVersion": VERSION,
        "product": title, "importedFrom": format!("gilprof {}", env!("CARGO_PKG_VERSION")),
        "interval": if rate > 0.0 { 1000.0 / rate } else { 1.0 },
        "startTime": 0, "processType": 0, "stackwalk": 1, "debug": false, "symbolicated": true,
        "extensions": {"baseURL": [], "id": [], "length": 0, "name": []},
        "usesOnlyOneStackType": true, "doesNotUseFrameImplementation": true, "sourceCodeIsNotOnSearchfox": true,
        "sampleUnits": {"time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs"},
        "categories": categories,
        "markerSchema": [schema("GilWait", "Waited for the GIL, held by {marker.data.holder}"), schema("GilHold", "Held the GIL in {marker.data.function}")],
    })
}

fn schema(name: &str, label: &str) -> Value {
    let field = |key: &str, label: &str| json!({"key": key, "label": label, "format": "string", "searchable": true});
    let mut data = vec![field("function", "Function")];
    if name == "GilWait" {
        data.push(field("holder", "Held by"));
    }
    json!({
        "name": name, "display": ["marker-chart", "marker-table", "timeline-overview"],
        "tooltipLabel": label, "tableLabel": label, "chartLabel": "{marker.data.function}", "data": data,
    })
}

/// The profiler has named colours; these are nearest to the palette's.
fn colour(state: State) -> &'static str {
    match state {
        State::HoldingPython => "orange",
        State::HoldingNative => "yellow",
        State::HoldingBlocked => "red",
        State::HoldingStarved => "brown",
        State::Waiting => "purple",
        State::Native => "green",
        State::Starved => "blue",
        State::Lock => "lightblue",
        State::Io => "transparent",
        State::Unknown => "grey",
    }
}

/// One process whose recording is being replayed.
struct FirefoxProcess {
    begin: u64,
    bin: u64,
    main: i32,
    tracks: Vec<Track>,
    index: FxHashMap<ThreadId, usize>,
    left_out: bool,
}

impl FirefoxProcess {
    fn new(begin: u64, bin: u64, main: i32) -> FirefoxProcess {
        FirefoxProcess { begin, bin, main, tracks: Vec::new(), index: FxHashMap::default(), left_out: false }
    }

    /// A thread's track; `None` when there are too many.
    fn track(&mut self, thread: ThreadId) -> Option<&mut Track> {
        let index = match self.index.get(&thread) {
            Some(&index) => index,
            None if self.tracks.len() >= MAX_TRACKS => return None,
            None => {
                self.tracks.push(Track::new(self.begin, self.bin));
                self.index.insert(thread, self.tracks.len() - 1);
                self.tracks.len() - 1
            }
        };
        self.tracks.get_mut(index)
    }
}

impl SpanSink for FirefoxProcess {
    fn thread(&mut self, info: &ThreadInfo) {
        let main = info.main || info.tid.0 == self.main;
        match self.track(info.id) {
            Some(track) => track.describe(sanitize::clean(&info.name), info.tid.0, main),
            None => self.left_out = true,
        }
    }

    fn span(&mut self, span: Span) {
        let holder = span.holder.as_ref().filter(|_| span.state == State::Waiting).map(|(thread, stack)| {
            let name = self.index.get(thread).map_or("?", |&index| self.tracks[index].name());
            format!("{name}: {}", leaf(stack))
        });
        if let Some(track) = self.track(span.thread) {
            track.span(&span, holder);
        }
    }

    fn gil(&mut self, _: &GilSample) {}
}

/// A category's number.
fn category(state: State) -> usize {
    state as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::measured;

    fn profile(sources: &[Source<'_>]) -> Value {
        let mut bytes = Vec::new();
        write(sources, &mut bytes).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Milliseconds per thread and category.
    fn sums(profile: &Value) -> Vec<[f64; State::COUNT]> {
        let column = |table: &Value, name: &str| table[name].as_array().unwrap().clone();
        let sum = |thread: &Value| {
            let (frames, stacks, samples) = (&thread["frameTable"], &thread["stackTable"], &thread["samples"]);
            let mut sums = [0.0; State::COUNT];
            for (stack, weight) in column(samples, "stack").iter().zip(column(samples, "weight")) {
                let frame = stacks["frame"][stack.as_u64().unwrap() as usize].as_u64().unwrap() as usize;
                sums[frames["category"][frame].as_u64().unwrap() as usize] += weight.as_f64().unwrap();
            }
            sums
        };
        profile["threads"].as_array().unwrap().iter().map(sum).collect()
    }

    #[test]
    fn sums_are_those_of_the_profile_and_markers_are_complete() {
        let written = measured();
        let profile = profile(&[written.source(), written.source()]);
        let got = sums(&profile);
        assert_eq!(got.len(), 8);
        for (thread, sums) in written.profile.threads.iter().zip(&got) {
            for state in State::ALL {
                let wanted = thread.times.get(state) / 1e6;
                assert!((sums[category(state)] - wanted).abs() < 0.1, "{}: {} {wanted}", thread.info.name, sums[category(state)]);
            }
        }
        let markers = &profile["threads"][1]["markers"];
        let waits = markers["data"].as_array().unwrap().iter().filter(|data| data["type"] == "GilWait");
        assert!(waits.clone().all(|data| data["holder"].as_str().unwrap().starts_with("worker-2: burn (app.py:")));
        assert_eq!(waits.count(), 100);
        let text = profile.to_string();
        assert!(!text.chars().any(sanitize::is_hostile), "{text}");
    }

    #[test]
    fn bins_keep_the_sums() {
        let written = measured();
        let source = written.source();
        let begin = source.report.window.begin_ns;
        let mut spans = SpanBuilder::new(FirefoxProcess::new(begin, 100_000_000, 0));
        source.timeline().unwrap().replay(&mut spans).unwrap();
        let threads: Vec<Value> = spans.finish().tracks.into_iter().map(|track| track.finish("app", 1)).collect();
        let samples = threads[1]["samples"]["length"].as_u64().unwrap();
        assert!(samples < 80, "{samples}");
        for (thread, sums) in written.profile.threads.iter().zip(sums(&json!({ "threads": threads }))) {
            assert!((sums.iter().sum::<f64>() - thread.times.total() / 1e6).abs() < 0.1);
        }
    }
}
