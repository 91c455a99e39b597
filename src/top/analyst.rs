//! The thread between the sampling thread and the screen: keeps the history, makes a picture four
//! times a second, and writes recordings and reports.
//!
//! It never touches the terminal, so a terminal that stands still stops neither the samples nor
//! their figures. A picture that takes long to make comes more seldom, so that pictures take at
//! most [`MAX_SHARE`] of a core.

use super::files;
use super::history::{History, Span};
use super::picture::Picture;
use super::piece::Piece;
use super::stats::between;
use crate::error::{Error, Result};
use crate::output::{html, json, Source};
use crate::profile::file::{Recorder, Recording};
use crate::sample::{CaptureStats, Sink, Stop};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time from one picture to the next.
const PICTURE_PERIOD: Duration = Duration::from_millis(250);
/// A picture that is due may have to wait for its samples.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// The first picture comes as soon as there is this much to show, in seconds.
const FIRST_PICTURE: f64 = 0.25;
/// The share of a core that pictures may take.
const MAX_SHARE: f64 = 0.04;

/// What the thread receives.
#[derive(Debug)]
pub enum Input {
    /// From the sampling thread.
    Piece(Box<Piece>),
    /// The measurement has ended, for this reason.
    Ended(String),
    /// From the screen.
    Request(Request),
}

/// What the screen asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Show this window from now on.
    Span(Span),
    /// Begin the figures since the start anew.
    Reset,
    /// Begin a recording, or end it.
    Record,
    /// Write a report of the shown window.
    Report,
}

/// What the screen reads.
#[derive(Debug, Default)]
pub struct Latest {
    /// The newest picture.
    pub picture: Option<Arc<Picture>>,
    /// What happened and was not shown yet, such as that a file was written.
    pub messages: Vec<String>,
    /// The recording that is being written.
    pub recording: Option<PathBuf>,
    /// The measurement has ended, for this reason; the picture is the last one.
    pub ended: Option<String>,
}

/// A recording that is being written.
struct OpenRecording {
    recorder: Recorder,
    path: PathBuf,
    begin: CaptureStats,
}

/// The thread's state.
pub struct Analyst<'a> {
    latest: &'a Mutex<Latest>,
    history: History,
    span: Span,
    stops: Vec<Stop>,
    recording: Option<OpenRecording>,
    /// When the next picture is due, and whether there is anything new to show.
    due: Instant,
    fresh: bool,
}

impl Analyst<'_> {
    /// Runs until the other ends of `inputs` are gone.
    pub fn run(inputs: &Receiver<Input>, latest: &Mutex<Latest>, span: Span) {
        let (history, stops, due) = (History::default(), Vec::new(), Instant::now());
        let mut analyst = Analyst { latest, history, span, stops, recording: None, due, fresh: false };
        loop {
            let until_due = analyst.due.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
            let wait = if analyst.fresh { until_due } else { PICTURE_PERIOD };
            match inputs.recv_timeout(wait) {
                Ok(input) => analyst.take(input),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if analyst.fresh && Instant::now() >= analyst.due && analyst.history.latest().1.seconds >= FIRST_PICTURE {
                analyst.show();
            }
        }
        analyst.end_recording();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Piece(piece) => {
                self.add(*piece);
                self.fresh = true;
            }
            Input::Ended(reason) => {
                self.history.finish();
                self.end_recording();
                self.stops.clear();
                self.show();
                self.publish(|latest| latest.ended = Some(reason));
            }
            Input::Request(Request::Span(span)) => {
                self.span = span;
                self.show();
            }
            Input::Request(Request::Reset) => {
                self.history.reset();
                self.say("the figures since the start begin anew");
                self.show();
            }
            Input::Request(Request::Record) if self.recording.is_some() => self.end_recording(),
            Input::Request(Request::Record) => {
                if let Err(e) = self.begin_recording() {
                    self.say(&e.to_string());
                }
            }
            Input::Request(Request::Report) => {
                let said = self.write_report().map_or_else(|e| e.to_string(), |path| format!("wrote {}", path.display()));
                self.say(&said);
            }
        }
    }

    fn add(&mut self, piece: Piece) {
        self.stops = between(self.history.latest().1, &piece.stats).stops;
        if let Some(open) = &mut self.recording {
            piece.records.iter().for_each(|record| record.send(&mut open.recorder));
            open.recorder.checkpoint(&piece.target, &between(&open.begin, &piece.stats));
            if open.recorder.failed() {
                self.history.add(piece);
                self.end_recording();
                return;
            }
        }
        self.history.add(piece);
    }

    /// Makes a picture, and sets when the next one is due.
    fn show(&mut self) {
        let began = Instant::now();
        let picture = Arc::new(Picture::new(&self.history, self.span, &self.stops));
        self.publish(|latest| latest.picture = Some(picture));
        self.fresh = false;
        self.due = began + PICTURE_PERIOD.max(began.elapsed().div_f64(MAX_SHARE));
    }

    fn say(&self, message: &str) {
        self.publish(|latest| latest.messages.push(message.to_owned()));
    }

    fn publish(&self, change: impl FnOnce(&mut Latest)) {
        change(&mut self.latest.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn begin_recording(&mut self) -> Result<()> {
        let (target, stats) = self.history.latest();
        let (path, file) = files::create(target.pid, "gilprof")?;
        let mut recorder = Recorder::new(file);
        self.history.threads().for_each(|info| recorder.thread(info));
        self.recording = Some(OpenRecording { recorder, path: path.clone(), begin: stats.clone() });
        self.publish(|latest| latest.recording = Some(path));
        Ok(())
    }

    fn end_recording(&mut self) {
        let Some(open) = self.recording.take() else { return };
        let (target, stats) = self.history.latest();
        let finished = open.recorder.finish(target, &between(&open.begin, stats));
        let said = match finished {
            Ok(()) => format!("wrote {}", open.path.display()),
            Err(source) => Error::Output { path: open.path, source }.to_string(),
        };
        self.publish(|latest| latest.recording = None);
        self.say(&said);
    }

    /// A page for a browser; of the time since the start, of which no timeline is kept, JSON.
    fn write_report(&self) -> Result<PathBuf> {
        let (target, _) = self.history.latest();
        let picture = Picture::new(&self.history, self.span, &[]);
        let ending = if self.span.seconds().is_some() { "html" } else { "json" };
        let (path, file) = files::create(target.pid, ending)?;
        self.write_to(&file, &path, &picture)?;
        Ok(path)
    }

    fn write_to(&self, mut file: &File, path: &Path, picture: &Picture) -> Result<()> {
        let failed = |source| Error::Output { path: path.into(), source };
        if self.span.seconds().is_none() {
            return file.write_all(json::render(&picture.report)?.as_bytes()).map_err(failed);
        }
        let timeline = files::unnamed().map_err(failed)?;
        let mut recorder = Recorder::new(timeline.try_clone().map_err(failed)?);
        let stats = self.history.replay(self.span, &mut recorder);
        recorder.finish(self.history.latest().0, &stats).map_err(failed)?;
        let recording = Recording::from_file(timeline, path)?;
        let source = Source { report: &picture.report, profile: &picture.profile, recording: Some(&recording) };
        let mut out = std::io::BufWriter::new(file);
        html::write(&[source], None, &mut out)?;
        out.flush().map_err(failed)
    }
}
