//! The page and the files of `-o`, made from windows that were just measured or from recordings.

use super::args::OutputArgs;
use super::note;
use super::output_file::{self, OutputFile, Placeholders};
use crate::analysis::service::report::ServiceReport;
use crate::analysis::what_if::Question;
use crate::analysis::{self, report::Report};
use crate::error::{Error, Result};
use crate::output::collapsed::{FlameInput, FlameMode, FlameRow, GroupBy, WaitRow};
use crate::output::repeated_names::RepeatedNames;
use crate::output::text::{self, Style};
use crate::output::{collapsed, firefox, flamegraph, html, json, numbers, perfetto, pprof, speedscope};
use crate::output::{FileFormat, Format, Source};
use crate::process::sys_linux::terminal;
use crate::profile::file::Recording;
use crate::profile::{Profile, ThreadProfile};
use flate2::write::GzEncoder;
use flate2::Compression;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

/// The outputs that the arguments select, with the files already open.
#[derive(Debug)]
pub struct Outputs {
    format: Format,
    flame: FlameMode,
    group_by: GroupBy,
    questions: Vec<Question>,
    files: Vec<OutputFile>,
    /// Those of the files that gilprof created.
    pub placeholders: Placeholders,
}

/// One process that was measured.
#[derive(Debug)]
pub struct CaptureReport {
    profile: Profile,
    report: Report,
    recording: Option<Recording>,
}

impl CaptureReport {
    /// The process.
    pub fn pid(&self) -> i32 {
        self.report.target.pid
    }

    /// The parts.
    pub fn into_parts(self) -> (Profile, Report, Option<Recording>) {
        (self.profile, self.report, self.recording)
    }
}

impl Outputs {
    /// Checks all that can be checked before measuring.
    pub fn prepare(args: &OutputArgs) -> Result<Outputs> {
        let (files, placeholders) = output_file::open_all(&args.output)?;
        Ok(Outputs {
            format: args.format.into(),
            flame: args.flame.into(),
            group_by: group_by(args.by_thread),
            questions: args.what_if.clone(),
            files,
            placeholders,
        })
    }

    /// Makes the report of a profile. The recording is for the formats that need one.
    pub fn analyse(&self, profile: Profile, recording: Option<Recording>) -> CaptureReport {
        let report = analysis::report_with(&profile, &self.questions);
        CaptureReport { profile, report, recording }
    }

    /// Whether a file needs a recording.
    pub fn needs_recording(&self) -> bool {
        self.files.iter().any(|file| file.format.needs_recording())
    }

    /// The files that are written while the window runs.
    pub fn recordings(&self) -> impl Iterator<Item = &OutputFile> {
        self.files.iter().filter(|file| file.format == FileFormat::Recording)
    }

    /// Writes the files of `-o`, prints the page, then names the files. A part that fails does not
    /// stop the others; the first error is returned.
    pub fn emit<T: IsTerminal + AsFd>(&mut self, all: &[CaptureReport], to: &T, print: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let all = &Shown::new(all, &self.questions);
        let mut messages = Vec::new();
        let mut failed = None;
        let (flame, group_by) = (self.flame, self.group_by);
        // Recordings were written while the window ran, and the session reports their errors.
        for file in self.files.iter_mut().filter(|file| file.format != FileFormat::Recording) {
            let format = file.format;
            let written = file.write(|out| write(format, all, flame, group_by, out));
            match written {
                Ok(()) => messages.push(wrote_message(file)),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let printed = self.page(all, to).and_then(|page| print(&page));
        messages.iter().for_each(|line| note(line));
        failed.map_or(printed, Err)
    }

    /// The text for standard output.
    fn page<T: IsTerminal + AsFd>(&self, all: &Shown<'_>, to: &T) -> Result<String> {
        match (self.format, &all.service) {
            (Format::Json, _) => all.json(),
            (Format::Text, Some(service)) => Ok(text::service::render_service(service, &all.reports(), style(to))),
            (Format::Text, None) => Ok(all.reports().iter().map(|report| text::render(report, style(to))).collect()),
        }
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        self.placeholders.remove();
    }
}

/// The grouping that `--by-thread` selects.
pub fn group_by(by_thread: bool) -> GroupBy {
    if by_thread {
        GroupBy::Thread
    } else {
        GroupBy::Nothing
    }
}

/// The message that a file was written.
pub fn wrote_message<F>(file: &OutputFile<F>) -> String {
    format!("wrote {}", file.path().display())
}

/// What is shown: each process, and of several what is said of them together.
struct Shown<'a> {
    captures: &'a [CaptureReport],
    service: Option<ServiceReport>,
    /// Of several processes, their reports as parts of the service.
    reports: Vec<Report>,
}

impl<'a> Shown<'a> {
    fn new(captures: &'a [CaptureReport], questions: &[Question]) -> Shown<'a> {
        if captures.len() < 2 {
            return Shown { captures, service: None, reports: Vec::new() };
        }
        // A question about the service has one answer, which is that of the service.
        let of_each: Vec<Question> = questions.iter().filter(|question| !question.is_of_service()).cloned().collect();
        let mut reports: Vec<Report> = captures.iter().map(|one| analysis::report_in_service(&one.profile, &of_each)).collect();
        let measured: Vec<(&Profile, &Report)> = captures.iter().map(|one| &one.profile).zip(&reports).collect();
        let service = analysis::service::service(&measured, questions);
        reports.iter_mut().zip(&service.roles).for_each(|(report, role)| report.target.role = Some(*role));
        Shown { captures, service: Some(service), reports }
    }

    fn reports(&self) -> Vec<&Report> {
        match self.service {
            Some(_) => self.reports.iter().collect(),
            None => self.captures.iter().map(|one| &one.report).collect(),
        }
    }

    fn sources(&self) -> Vec<Source<'_>> {
        let source = |(one, report): (&'a CaptureReport, _)| Source { report, profile: &one.profile, recording: one.recording.as_ref() };
        self.captures.iter().zip(self.reports()).map(source).collect()
    }

    fn json(&self) -> Result<String> {
        match (&self.service, self.reports().as_slice()) {
            (None, [one]) => json::render(one),
            (Some(service), reports) => json::render_service(service, reports),
            (None, _) => Ok(String::new()),
        }
    }
}

fn write(format: FileFormat, all: &Shown<'_>, mode: FlameMode, group_by: GroupBy, out: &mut dyn Write) -> Result<()> {
    let sources = all.sources();
    let text = match format {
        FileFormat::Json => all.json()?,
        FileFormat::Folded => collapsed::render(&flame(all.captures, mode, group_by)),
        FileFormat::Svg => flamegraph::render(&flame(all.captures, mode, group_by))?,
        FileFormat::Recording => return Ok(()),
        FileFormat::Pprof => return pprof::write(&sources, out),
        FileFormat::Speedscope => return speedscope::write(&sources, out),
        FileFormat::Perfetto => return perfetto::write(&sources, out),
        FileFormat::Html => return html::write(&sources, all.service.as_ref(), out),
        FileFormat::Firefox => return firefox::write(&sources, out),
        FileFormat::FirefoxPacked => {
            let mut packed = GzEncoder::new(out, Compression::default());
            firefox::write(&sources, &mut packed)?;
            return packed.finish().map(drop).map_err(Error::Write);
        }
    };
    out.write_all(text.as_bytes()).map_err(Error::Write)
}

fn flame(all: &[CaptureReport], mode: FlameMode, group_by: GroupBy) -> FlameInput<'_> {
    let [one] = all else {
        let mut several = FlameInput { title: format!("{} processes", all.len()), ..FlameInput::empty(mode, group_by) };
        let mut samples = 0;
        for one in all {
            samples += one.profile.window.counts.samples;
            several.seconds = one.profile.window.seconds.max(several.seconds);
            add(&mut several, &one.profile, Some(Rc::from(process(&one.report))));
        }
        several.subtitle = window(several.seconds, samples);
        return several;
    };
    flame_input(&one.report, &one.profile, mode, group_by)
}

/// The input for a flamegraph of one process.
pub fn flame_input<'a>(report: &Report, profile: &'a Profile, mode: FlameMode, group_by: GroupBy) -> FlameInput<'a> {
    let seconds = profile.window.seconds;
    let (title, subtitle) = (process(report), window(seconds, profile.window.counts.samples));
    let mut input = FlameInput { title, subtitle, seconds, ..FlameInput::empty(mode, group_by) };
    add(&mut input, profile, None);
    input
}

fn add<'a>(input: &mut FlameInput<'a>, profile: &'a Profile, process: Option<Rc<str>>) {
    let repeated = RepeatedNames::new(profile.threads.iter().map(name));
    let tid = |thread: &ThreadProfile| repeated.contains(name(thread)).then_some(thread.info.tid.0);
    let row = |(thread, stack, times)| FlameRow { process: process.clone(), thread: name(thread), tid: tid(thread), stack, times };
    input.rows.extend(profile.stacks().map(row));
    let row = |(thread, waiter, holder, nanos)| WaitRow {
        process: process.clone(),
        thread: name(thread),
        tid: tid(thread),
        waiter,
        holder,
        nanos,
    };
    input.waits.extend(profile.waited_on().map(row));
}

fn process(report: &Report) -> String {
    format!("{}, pid {}", text::program(&report.target), report.target.pid)
}

fn window(seconds: f64, samples: u64) -> String {
    format!("{}, {} samples", numbers::seconds(seconds), numbers::thousands(samples))
}

fn name(thread: &ThreadProfile) -> &str {
    &thread.info.name
}

/// Colours, bars and the width of the terminal; for a file or a pipe, plain text of 80 columns.
pub fn style<T: IsTerminal + AsFd>(to: &T) -> Style {
    if !to.is_terminal() {
        return Style::PLAIN;
    }
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let given = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let width = given.or_else(|| terminal::columns(to)).unwrap_or(80);
    Style { colour, bars: colour, width }
}
