//! speedscope's JSON (github.com/jlfwong/speedscope, file-format-spec): a sampled profile for each
//! thread, with the state on top of each stack.
//!
//! The order within a profile is that of stacks, not of time, so it is of use in the views that sum
//! up ("Left Heavy", "Sandwich").

use super::collapsed::{FlameMode, NO_PYTHON, TORN, TRUNCATED};
use super::{sanitize, text, Source};
use crate::error::{Error, Result};
use crate::sample::{Frame, Function, Stack, StackStatus, State, StateTimes};
use serde::Serialize;
use std::collections::HashMap;
use std::io::Write;

#[derive(Serialize)]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: String,
    name: String,
    #[serde(rename = "activeProfileIndex")]
    active: usize,
    shared: Shared<'a>,
    profiles: Vec<Sampled>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: &'a [NamedFrame],
}

#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
struct NamedFrame {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
struct Sampled {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    #[serde(rename = "startValue")]
    start: u64,
    #[serde(rename = "endValue")]
    end: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// Writes the profiles of all processes: first the time holding the GIL and the time waiting for
/// it, of all threads; then each thread's time.
pub fn write(sources: &[Source<'_>], out: &mut dyn Write) -> Result<()> {
    let mut frames = Frames::default();
    let mut profiles = Vec::new();
    for source in sources {
        let process = format!("{}, pid {}", sanitize::clean(&text::program(&source.report.target)), source.report.target.pid);
        for mode in [FlameMode::Holding, FlameMode::Waiting] {
            let mut sampled = Sampled::named(format!("{process}: {}", mode.weight()));
            source.profile.stacks().for_each(|(_, stack, times)| sampled.add(&mut frames, stack, times, mode));
            profiles.push(sampled);
        }
        let mut last = None;
        for (thread, stack, times) in source.profile.stacks() {
            if last != Some(thread.info.id) {
                last = Some(thread.info.id);
                profiles.push(Sampled::named(format!("{process}: {}", sanitize::clean(&thread.info.name))));
            }
            if let Some(sampled) = profiles.last_mut() {
                sampled.add(&mut frames, stack, times, FlameMode::Wall);
            }
        }
    }
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: format!("gilprof {}", env!("CARGO_PKG_VERSION")),
        name: profiles.first().map(|p| p.name.clone()).unwrap_or_default(),
        active: 0,
        shared: Shared { frames: &frames.list },
        profiles,
    };
    serde_json::to_writer(&mut *out, &file).map_err(|e| if e.is_io() { Error::Write(e.into()) } else { json_error(e) })
}

fn json_error(e: serde_json::Error) -> Error {
    Error::System { what: "write JSON".into(), source: e.into() }
}

impl Sampled {
    fn named(name: String) -> Sampled {
        Sampled { r#type: "sampled", name, unit: "nanoseconds", start: 0, end: 0, samples: Vec::new(), weights: Vec::new() }
    }

    fn add(&mut self, frames: &mut Frames, stack: &Stack, times: &StateTimes, mode: FlameMode) {
        for state in mode.states() {
            let nanos = times.get(state) as u64;
            if nanos > 0 {
                self.samples.push(frames.stack(stack, state, mode));
                self.weights.push(nanos);
                self.end += nanos;
            }
        }
    }
}

#[derive(Default)]
struct Frames {
    list: Vec<NamedFrame>,
    by_content: HashMap<NamedFrame, usize>,
    by_function: HashMap<Function, usize>,
}

impl Frames {
    fn number(&mut self, frame: NamedFrame) -> usize {
        let next = self.list.len();
        let number = *self.by_content.entry(frame.clone()).or_insert(next);
        if number == next {
            self.list.push(frame);
        }
        number
    }

    fn remark(&mut self, name: &str) -> usize {
        self.number(NamedFrame { name: name.into(), file: None, line: None })
    }

    /// All lines of a function are one frame, as in flamegraphs.
    fn frame(&mut self, frame: &Frame) -> usize {
        let function = frame.function.as_ref();
        if let Some(&number) = self.by_function.get(function) {
            return number;
        }
        let (name, file) = (sanitize::clean(&function.name), Some(sanitize::clean(&function.file)));
        let number = self.number(NamedFrame { name, file, line: Some(function.first_line) });
        self.by_function.insert(function.clone(), number);
        number
    }

    /// Root first, as speedscope has it.
    fn stack(&mut self, stack: &Stack, state: State, mode: FlameMode) -> Vec<usize> {
        let mut out = Vec::with_capacity(stack.frames.len() + 2);
        if stack.status == StackStatus::Truncated {
            out.push(self.remark(TRUNCATED));
        }
        for frame in &stack.frames {
            let number = self.frame(frame);
            out.push(number);
        }
        match stack.status {
            StackStatus::Torn => out.push(self.remark(TORN)),
            StackStatus::Complete if stack.frames.is_empty() => out.push(self.remark(NO_PYTHON)),
            _ => {}
        }
        out.extend(mode.leaf(state).map(|leaf| self.remark(leaf)));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::measured;

    #[test]
    fn threads_add_up_and_frames_exist() {
        let written = measured();
        let mut bytes = Vec::new();
        write(&[written.source()], &mut bytes).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let frames = file["shared"]["frames"].as_array().unwrap().len() as u64;
        let profiles = file["profiles"].as_array().unwrap();
        assert_eq!(profiles.len(), 2 + 4);
        for profile in profiles {
            let weights = profile["weights"].as_array().unwrap().iter().map(|w| w.as_u64().unwrap()).sum::<u64>();
            assert_eq!(Some(weights), profile["endValue"].as_u64());
            let samples = profile["samples"].as_array().unwrap().iter().flat_map(|s| s.as_array().unwrap());
            assert!(samples.clone().all(|frame| frame.as_u64().unwrap() < frames) && samples.count() > 0);
        }
        for (thread, profile) in written.profile.threads.iter().zip(&profiles[2..]) {
            assert!((profile["endValue"].as_f64().unwrap() - thread.times.total()).abs() < 1e3);
        }
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains('\u{202e}') && !text.contains("\\u001b"), "{text}");
    }
}
