//! One thread's tables, as columns: strings, functions, frames, stacks, samples, markers.

use super::super::collapsed::NO_PYTHON;
use super::super::timeline::{leaf, Span};
use super::category;
use crate::output::sanitize;
use crate::sample::{Frame, Function, Stack, State};
use rustc_hash::FxHashMap;
use serde_json::{json, Value};
use std::collections::HashMap;
use std::sync::Arc;

/// A thread's track.
pub struct Track {
    begin: u64,
    bin: u64,
    name: String,
    tid: i32,
    main: bool,
    strings: Vec<String>,
    by_text: HashMap<String, usize>,
    functions: Vec<(usize, usize, u32)>,
    by_function: HashMap<Arc<Function>, usize>,
    /// Function, line, category.
    frames: Vec<(usize, u32, usize)>,
    by_frame: FxHashMap<(usize, u32, usize), usize>,
    /// Outer stack, frame.
    stacks: Vec<(Option<usize>, usize)>,
    by_stack: FxHashMap<(Option<usize>, usize), usize>,
    samples: Samples,
    /// The open bin: its number, and each stack with its time and whether it was on a CPU, in order
    /// of first appearance.
    open: (u64, Vec<(usize, u64, bool)>),
    markers: Vec<Marker>,
    wait: Option<OpenMarker>,
    hold: Option<OpenMarker>,
}

#[derive(Default)]
struct Samples {
    time: Vec<f64>,
    stack: Vec<usize>,
    weight: Vec<f64>,
    cpu: Vec<f64>,
    /// CPU time of the last sample, which the profiler expects with the next.
    previous_cpu: f64,
}

/// A wait or a hold that has not ended.
struct OpenMarker {
    begin: u64,
    end: u64,
    function: String,
    /// The functions that held, and the time of each.
    holders: Vec<(String, u64)>,
}

struct Marker {
    wait: bool,
    begin: f64,
    end: f64,
    function: String,
    holder: Option<String>,
}

fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

impl Track {
    pub fn new(begin: u64, bin: u64) -> Track {
        Track {
            begin,
            bin,
            name: "(not announced)".into(),
            tid: 0,
            main: false,
            strings: Vec::new(),
            by_text: HashMap::new(),
            functions: Vec::new(),
            by_function: HashMap::new(),
            frames: Vec::new(),
            by_frame: FxHashMap::default(),
            stacks: Vec::new(),
            by_stack: FxHashMap::default(),
            samples: Samples::default(),
            open: (0, Vec::new()),
            markers: Vec::new(),
            wait: None,
            hold: None,
        }
    }

    pub fn describe(&mut self, name: String, tid: i32, main: bool) {
        (self.name, self.tid, self.main) = (name, tid, main);
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn span(&mut self, span: &Span, holder: Option<String>) {
        let stack = self.stack(&span.stack, span.state);
        let on_cpu = matches!(span.state, State::HoldingPython | State::HoldingNative | State::Native);
        let (begin, end) = (span.begin.saturating_sub(self.begin), span.end.saturating_sub(self.begin));
        match begin.checked_div(self.bin) {
            None => self.samples.add(ms(begin), stack, ms(end - begin), on_cpu),
            Some(bin) => self.bin(bin, stack, end - begin, on_cpu),
        }
        self.run(span, begin, end, holder);
    }

    fn bin(&mut self, bin: u64, stack: usize, time: u64, on_cpu: bool) {
        if bin != self.open.0 {
            self.close();
            self.open.0 = bin;
        }
        match self.open.1.iter_mut().find(|(known, ..)| *known == stack) {
            Some((_, sum, _)) => *sum += time,
            None => self.open.1.push((stack, time, on_cpu)),
        }
    }

    /// The open bin's samples, one after another.
    fn close(&mut self) {
        let mut at = self.open.0 * self.bin;
        for (stack, time, on_cpu) in std::mem::take(&mut self.open.1) {
            self.samples.add(ms(at), stack, ms(time), on_cpu);
            at += time;
        }
    }

    /// Waits and holds may have spans of different stacks.
    fn run(&mut self, span: &Span, begin: u64, end: u64, holder: Option<String>) {
        let wants = if span.state == State::Waiting { Some(true) } else { span.state.is_holding().then_some(false) };
        for wait in [true, false] {
            let run = if wait { &mut self.wait } else { &mut self.hold };
            let here = wants == Some(wait);
            match run {
                Some(run) if here && run.end == begin => run.end = end,
                _ => {
                    let new = here.then(|| OpenMarker { begin, end, function: leaf(&span.stack), holders: Vec::new() });
                    if let Some(done) = std::mem::replace(run, new) {
                        self.marker(wait, done);
                    }
                }
            }
        }
        if let (Some(run), Some(holder)) = (&mut self.wait, holder) {
            match run.holders.iter_mut().find(|(known, _)| *known == holder) {
                Some((_, time)) => *time += end - begin,
                None => run.holders.push((holder, end - begin)),
            }
        }
    }

    fn marker(&mut self, wait: bool, run: OpenMarker) {
        if run.end - run.begin < self.bin {
            return;
        }
        let holder = run.holders.into_iter().max_by_key(|(_, time)| *time).map(|(holder, _)| holder);
        self.markers.push(Marker { wait, begin: ms(run.begin), end: ms(run.end), function: run.function, holder });
    }

    fn string(&mut self, text: &str) -> usize {
        if let Some(&number) = self.by_text.get(text) {
            return number;
        }
        self.strings.push(text.into());
        self.by_text.insert(text.into(), self.strings.len() - 1);
        self.strings.len() - 1
    }

    fn function(&mut self, function: &Arc<Function>) -> usize {
        if let Some(&number) = self.by_function.get(function) {
            return number;
        }
        let (name, file) = (self.string(&sanitize::clean(&function.name)), self.string(&sanitize::clean(&function.file)));
        self.functions.push((name, file, function.first_line));
        self.by_function.insert(Arc::clone(function), self.functions.len() - 1);
        self.functions.len() - 1
    }

    fn stack(&mut self, stack: &Stack, state: State) -> usize {
        let nothing = [Frame { function: Arc::new(Function { name: NO_PYTHON.into(), file: String::new(), first_line: 0 }), line: 0 }];
        let frames = if stack.frames.is_empty() { &nothing[..] } else { &stack.frames };
        let mut outer = None;
        for frame in frames {
            let key = (self.function(&frame.function), frame.line, category(state));
            let number = number(&mut self.by_frame, &mut self.frames, key);
            outer = Some(self::number(&mut self.by_stack, &mut self.stacks, (outer, number)));
        }
        outer.unwrap_or(0)
    }

    /// The thread in the profiler's format.
    pub fn finish(mut self, process: &str, pid: i32) -> Value {
        self.close();
        for (wait, run) in [(true, self.wait.take()), (false, self.hold.take())] {
            if let Some(run) = run {
                self.marker(wait, run);
            }
        }
        self.markers.sort_by(|a, b| a.begin.total_cmp(&b.begin));
        let names = [self.string("GIL wait"), self.string("GIL hold")];
        let column = |count: usize, value: Value| vec![value; count];
        let (frames, functions, stacks, markers) = (self.frames.len(), self.functions.len(), self.stacks.len(), self.markers.len());
        let line = |line: u32| if line == 0 { Value::Null } else { json!(line) };
        json!({
            "name": self.name, "isMainThread": self.main, "processName": process, "processType": "default",
            "pid": pid.to_string(), "tid": self.tid, "registerTime": 0, "unregisterTime": null,
            "processStartupTime": 0, "processShutdownTime": null, "pausedRanges": [],
            "stringArray": self.strings,
            "funcTable": {
                "length": functions,
                "name": self.functions.iter().map(|f| f.0).collect::<Vec<_>>(),
                "fileName": self.functions.iter().map(|f| f.1).collect::<Vec<_>>(),
                "lineNumber": self.functions.iter().map(|f| line(f.2)).collect::<Vec<_>>(),
                "columnNumber": column(functions, Value::Null), "isJS": column(functions, json!(false)),
                "relevantForJS": column(functions, json!(false)), "resource": column(functions, json!(-1)),
            },
            "frameTable": {
                "length": frames,
                "func": self.frames.iter().map(|f| f.0).collect::<Vec<_>>(),
                "line": self.frames.iter().map(|f| line(f.1)).collect::<Vec<_>>(),
                "category": self.frames.iter().map(|f| f.2).collect::<Vec<_>>(),
                "subcategory": column(frames, json!(0)), "address": column(frames, json!(-1)), "inlineDepth": column(frames, json!(0)),
                "nativeSymbol": column(frames, Value::Null), "innerWindowID": column(frames, json!(0)),
                "implementation": column(frames, Value::Null), "column": column(frames, Value::Null),
            },
            "stackTable": {
                "length": stacks,
                "prefix": self.stacks.iter().map(|s| s.0).collect::<Vec<_>>(),
                "frame": self.stacks.iter().map(|s| s.1).collect::<Vec<_>>(),
                "category": self.stacks.iter().map(|s| self.frames[s.1].2).collect::<Vec<_>>(),
                "subcategory": column(stacks, json!(0)),
            },
            "samples": {
                "length": self.samples.time.len(), "time": self.samples.time, "stack": self.samples.stack,
                "weight": self.samples.weight, "weightType": "tracing-ms", "threadCPUDelta": self.samples.cpu,
            },
            "markers": {
                "length": markers,
                "name": self.markers.iter().map(|m| names[usize::from(!m.wait)]).collect::<Vec<_>>(),
                "startTime": self.markers.iter().map(|m| m.begin).collect::<Vec<_>>(),
                "endTime": self.markers.iter().map(|m| m.end).collect::<Vec<_>>(),
                "phase": column(markers, json!(1)),
                "category": self.markers.iter().map(|m| category(if m.wait { State::Waiting } else { State::HoldingPython })).collect::<Vec<_>>(),
                "data": self.markers.iter().map(Marker::data).collect::<Vec<_>>(),
            },
            "nativeSymbols": {"length": 0, "address": [], "functionSize": [], "libIndex": [], "name": []},
            "resourceTable": {"length": 0, "lib": [], "name": [], "host": [], "type": []},
        })
    }
}

impl Samples {
    fn add(&mut self, time: f64, stack: usize, weight: f64, on_cpu: bool) {
        self.time.push(time);
        self.stack.push(stack);
        self.weight.push(weight);
        self.cpu.push(self.previous_cpu);
        self.previous_cpu = if on_cpu { weight * 1e3 } else { 0.0 };
    }
}

impl Marker {
    fn data(&self) -> Value {
        match (self.wait, &self.holder) {
            (true, holder) => {
                json!({"type": "GilWait", "function": self.function, "holder": holder.as_deref().unwrap_or("no holder seen")})
            }
            (false, _) => json!({"type": "GilHold", "function": self.function}),
        }
    }
}

/// The number of a row, which is appended if it is new.
fn number<K: Copy + Eq + std::hash::Hash>(known: &mut FxHashMap<K, usize>, rows: &mut Vec<K>, key: K) -> usize {
    *known.entry(key).or_insert_with(|| {
        rows.push(key);
        rows.len() - 1
    })
}
