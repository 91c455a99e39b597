//! pprof: `profile.proto`, compressed by gzip, for `go tool pprof` and the tools that read its
//! format.
//!
//! A pprof sample is a thread's stack in one state. Its values are the time in each of the sample
//! types, in nanoseconds, and the number of gilprof's samples that the time stands for.
//! `inflicted_wait` has separate samples, on the holders' stacks: the waiting of other threads
//! meanwhile. Labels are `thread`, `state`, and `process` if there are several; `waiter` on
//! `inflicted_wait`. The messages are hand-written and have only the fields that are needed
//! (github.com/google/pprof, proto/profile.proto).

use super::{sanitize, Source};
use crate::error::{Error, Result};
use crate::sample::{Frame, Function, Stack, State};
use flate2::write::GzEncoder;
use flate2::Compression;
use prost::Message;
use std::collections::HashMap;
use std::io::Write;

#[derive(Clone, PartialEq, Message)]
struct PprofProfile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<PprofFunction>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    str: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct PprofFunction {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
    #[prost(int64, tag = "5")]
    start_line: i64,
}

/// The sample types, in the order of a sample's values.
const TYPES: [(&str, &str); 6] = [
    ("samples", "count"),
    ("holding", "nanoseconds"),
    ("waiting", "nanoseconds"),
    ("inflicted_wait", "nanoseconds"),
    ("native", "nanoseconds"),
    ("wall", "nanoseconds"),
];
/// The type that pprof shows first.
const DEFAULT: &str = "waiting";

/// Writes the profile of all processes.
pub fn write(sources: &[Source<'_>], out: &mut dyn Write) -> Result<()> {
    let mut tables = Tables::default();
    tables.string("");
    let several = sources.len() > 1;
    let mut profile = PprofProfile {
        sample_type: TYPES.iter().map(|(name, unit)| tables.value_type(name, unit)).collect(),
        default_sample_type: tables.string(DEFAULT),
        period_type: Some(tables.value_type("wall", "nanoseconds")),
        ..PprofProfile::default()
    };
    for source in sources {
        let window = &source.profile.window;
        let rate = window.rate_hz;
        profile.period = if rate > 0.0 { (1e9 / rate) as i64 } else { 0 };
        profile.duration_nanos = profile.duration_nanos.max((source.profile.seconds() * 1e9) as i64);
        let process = super::text::program(&source.report.target);
        let process = format!("{}, pid {}", sanitize::clean(&process), source.report.target.pid);
        let labels = |tables: &mut Tables, pairs: &[(&str, &str)]| -> Vec<Label> {
            let own = several.then_some(("process", process.as_str()));
            own.iter().chain(pairs).map(|(key, text)| Label { key: tables.string(key), str: tables.string(text) }).collect()
        };
        // The rounding error of the number of samples so far: without it many short stacks would
        // add up to too few.
        let mut remainder = 0.0;
        for (thread, stack, times) in source.profile.stacks() {
            let name = sanitize::clean(&thread.info.name);
            for state in State::ALL.into_iter().filter(|&state| times.get(state) > 0.0) {
                let nanos = times.get(state);
                let label = labels(&mut tables, &[("thread", &name), ("state", state.label())]);
                profile.sample.push(Sample { location_id: tables.stack(stack), value: values(state, nanos, rate, &mut remainder), label });
            }
        }
        for (waiter, _, holder, nanos) in source.profile.waited_on() {
            if let Some(holder) = holder {
                let label = labels(&mut tables, &[("waiter", &sanitize::clean(&waiter.info.name))]);
                let value = vec![0, 0, 0, nanos as i64, 0, 0];
                profile.sample.push(Sample { location_id: tables.stack(holder), value, label });
            }
        }
        let comment = format!("gilprof {}: {process}: {}", source.report.gilprof, sanitize::clean(&source.report.verdict.headline));
        profile.comment.push(tables.string(&comment));
    }
    (profile.location, profile.function, profile.string_table) = (tables.locations, tables.functions, tables.strings);
    let mut packed = GzEncoder::new(out, Compression::default());
    packed.write_all(&profile.encode_to_vec()).and_then(|()| packed.finish().map(drop)).map_err(Error::Write)
}

fn values(state: State, nanos: f64, rate: f64, remainder: &mut f64) -> Vec<i64> {
    let only = |is: bool| if is { nanos as i64 } else { 0 };
    let exactly = nanos / 1e9 * rate + *remainder;
    let samples = exactly.round();
    *remainder = exactly - samples;
    vec![samples as i64, only(state.is_holding()), only(state == State::Waiting), 0, only(state == State::Native), only(true)]
}

/// The tables of strings, functions and locations, which samples refer to by number.
#[derive(Default)]
struct Tables {
    strings: Vec<String>,
    by_text: HashMap<String, i64>,
    functions: Vec<PprofFunction>,
    by_function: HashMap<Function, u64>,
    locations: Vec<Location>,
    by_line: HashMap<(u64, u32), u64>,
}

impl Tables {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.by_text.get(text) {
            return number;
        }
        let number = self.strings.len() as i64;
        self.strings.push(text.into());
        self.by_text.insert(text.into(), number);
        number
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.string(name), unit: self.string(unit) }
    }

    fn function(&mut self, function: &Function) -> u64 {
        if let Some(&id) = self.by_function.get(function) {
            return id;
        }
        let id = self.functions.len() as u64 + 1;
        let (name, filename) = (self.string(&sanitize::clean(&function.name)), self.string(&sanitize::clean(&function.file)));
        // No system name: pprof takes one that equals the name for a mangled name, and text in
        // angle brackets (`<module>`) for C++.
        self.functions.push(PprofFunction { id, name, system_name: 0, filename, start_line: function.first_line.into() });
        self.by_function.insert(function.clone(), id);
        id
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let function_id = self.function(&frame.function);
        let next = self.locations.len() as u64 + 1;
        let id = *self.by_line.entry((function_id, frame.line)).or_insert(next);
        if id == next {
            self.locations.push(Location { id, line: vec![Line { function_id, line: frame.line.into() }] });
        }
        id
    }

    /// Leaf first, as pprof requires. A thread without Python frames gets a remark as its frame,
    /// because pprof drops empty stacks.
    fn stack(&mut self, stack: &Stack) -> Vec<u64> {
        if stack.frames.is_empty() {
            let function = Function { name: super::collapsed::NO_PYTHON.into(), file: String::new(), first_line: 0 };
            return vec![self.location(&Frame { function: function.into(), line: 0 })];
        }
        stack.frames.iter().rev().map(|frame| self.location(frame)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{measured, MeasuredProgram};
    use std::io::Read;

    fn decoded(sources: &[Source<'_>]) -> PprofProfile {
        let mut packed = Vec::new();
        write(sources, &mut packed).unwrap();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        PprofProfile::decode(&bytes[..]).unwrap()
    }

    #[test]
    fn every_type_adds_up_and_text_is_harmless() {
        let written = measured();
        let MeasuredProgram { profile: numbers, .. } = &written;
        let profile = decoded(&[written.source()]);
        let sum = |n: usize| profile.sample.iter().map(|s| s.value[n]).sum::<i64>() as f64;
        let times = |part: fn(&crate::sample::StateTimes) -> f64| numbers.threads.iter().map(|t| part(&t.times)).sum::<f64>();
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 1000.0, "{a} {b}");
        assert_eq!(sum(0), times(|s| s.total()) / 1e6, "a sample stands for a millisecond");
        near(sum(1), times(|s| s.holding()));
        near(sum(2), times(|s| s.get(State::Waiting)));
        near(sum(3), numbers.blame.iter().filter(|b| b.holder.is_some()).map(|b| b.nanos).sum());
        near(sum(5), times(|s| s.total()));
        assert!(profile.string_table.iter().all(|s| !s.chars().any(sanitize::is_hostile)), "{:?}", profile.string_table);
        assert_eq!(profile.string_table[profile.default_sample_type as usize], "waiting");
        assert!(profile.function.iter().all(|f| f.system_name == 0), "pprof would make <unknown> of <module>");
        let both = decoded(&[written.source(), written.source()]);
        let key = both.sample[0].label[0].key as usize;
        assert_eq!((both.sample.len(), both.string_table[key].as_str()), (2 * profile.sample.len(), "process"));
    }
}
