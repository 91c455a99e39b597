//! The common part of `attach`, `run`, `record` and `gate`: measures one window, then writes the
//! outputs.

use super::args::{MeasureArgs, OutputArgs};
use super::both_engines;
use super::note;
use super::outputs::{wrote_message, CaptureReport, Outputs};
use super::progress::LiveLine;
use super::tee::{self, TeeSink};
use super::values::DurationArg;
use crate::capture::session::{CaptureConfig, CaptureResult, Progress, ProgressHook, StopReason};
use crate::capture::target::Target;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::numbers;
use crate::profile::file::Recording;
use crate::profile::{CoalescingSink, Profile};
use crate::python::attach::Attached;
use crate::python::runtimes::RuntimeChoice;
use crate::sample::Sink;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// A window with fewer samples than this is an error in the arguments.
const MIN_SAMPLES: f64 = 2.0;

/// A window to measure, with the output files already open.
pub struct Session {
    config: CaptureConfig,
    window: DurationArg,
    /// The runtime to measure, of a process that has several.
    pub runtime: RuntimeChoice,
    /// Whether to record the window even if no file needs it.
    keep_recording: bool,
    /// Sample beside the kernel engine, and say where the two disagree.
    both: bool,
    /// The program was started to be measured, so that a window lasts until its end at most.
    of_command: bool,
    outputs: Outputs,
}

/// A window that has ended.
pub struct CompletedCapture {
    measured: CaptureReport,
    stop_reason: StopReason,
    recorded: Result<()>,
}

impl CompletedCapture {
    /// The report; an error if the recording could not be written.
    pub fn into_report(self) -> Result<CaptureReport> {
        self.recorded.map(|()| self.measured)
    }

    /// Whether the window ended because the program did.
    pub fn program_ended(&self) -> bool {
        matches!(self.stop_reason, StopReason::TargetEnded)
    }
}

impl Session {
    /// Checks all that can be checked before measuring.
    pub fn prepare(measure: &MeasureArgs, output: &OutputArgs, window: DurationArg) -> Result<Session> {
        if window.0.is_some_and(|w| w.as_secs_f64() * measure.rate < MIN_SAMPLES) {
            return Err(Error::Usage(format!(
                "the window is too short for samples {} apart: make it longer (--duration), or raise the rate (--rate)",
                numbers::seconds(1.0 / measure.rate)
            )));
        }
        let config = CaptureConfig {
            rate_hz: measure.rate,
            duration: window.0,
            engine: measure.engine(),
            freeze_holder: measure.freeze_holder,
            ..CaptureConfig::default()
        };
        let runtime = measure.runtime.clone().unwrap_or_default();
        Ok(Session {
            config,
            window,
            runtime,
            keep_recording: measure.both_engines(),
            both: measure.both_engines(),
            of_command: false,
            outputs: Outputs::prepare(output)?,
        })
    }

    /// Records the window even if no file needs it.
    pub fn with_recording(self) -> Session {
        Session { keep_recording: true, ..self }
    }

    /// A live line for the window.
    pub fn live_line(&self) -> LiveLine {
        LiveLine::new(self.window)
    }

    /// The files that gilprof created and that are still empty.
    pub fn placeholders(&self) -> super::output_file::Placeholders {
        self.outputs.placeholders.clone()
    }

    /// Measures until the window ends, `stop` is set or the target ends. Blocks. Sets `stop` if a
    /// recording cannot be written any more.
    pub fn measure(&self, pid: Pid, target: Attached, stop: &AtomicBool, line: LiveLine) -> Result<CompletedCapture> {
        let file = if self.keep_recording || self.outputs.needs_recording() { Some(tee::unnamed_file()?) } else { None };
        let mut sink = CoalescingSink::new(TeeSink::new(self.outputs.recordings(), file.as_ref())?);
        let mut tick = |progress: Progress, sink: &mut CoalescingSink<TeeSink>| {
            let tee = sink.inner_mut();
            if !tee.checkpoint(&progress.target, &progress.window) {
                stop.store(true, Ordering::Relaxed);
            }
            line.show(progress.window, tee.builder.live());
        };
        let target = Target::new(pid, target).config(self.config);
        let (measured, beside) = self.run(target, stop, &mut sink, &mut tick);
        line.clear();
        let mut window = measured?;
        window.stats.warnings.extend(self.early_end_warning(&window.stop_reason, window.stats.seconds));
        window.stats.cut_short = self.cut_short(&window.stop_reason, window.stats.seconds);
        let (builder, recorded) = sink.finish().finish(&window.target, &window.stats);
        let recording = match (file, &recorded) {
            (Some(file), Ok(())) => Some(Recording::from_file(file, Path::new(tee::UNNAMED))?),
            _ => None,
        };
        let mut profile = builder.finish(window.target, window.stats);
        if let (Some(beside), Some(recording)) = (beside, &recording) {
            let compared =
                beside.and_then(|(samples, of_samples)| both_engines::disagreements((&samples, &of_samples), (&profile, recording)));
            // What the kernel engine has measured stays.
            let failed = |why| vec![format!("the engines were not compared: {why}")];
            profile.window.warnings.extend(compared.unwrap_or_else(failed));
        }
        let measured = self.outputs.analyse(profile, recording);
        Ok(CompletedCapture { measured, stop_reason: window.stop_reason, recorded })
    }

    /// Measures, and samples beside that if it was asked for.
    fn run<S: Sink>(
        &self,
        target: Target,
        stop: &AtomicBool,
        sink: &mut S,
        tick: &mut ProgressHook<'_, S>,
    ) -> (Result<CaptureResult>, Option<Result<(Profile, Recording)>>) {
        let window = both_engines::Window::default();
        std::thread::scope(|scope| {
            let sampler = self.both.then(|| {
                let (target, config, window) = (target.clone(), self.config, &window);
                scope.spawn(move || both_engines::sample_beside(target, config, window))
            });
            let ends = both_engines::EndsWindow(&window);
            let measured = target.run_until(stop, sink, &mut |progress, sink| {
                window.begun.store(true, Ordering::Relaxed);
                tick(progress, sink);
            });
            drop(ends);
            let failed = || Err(Error::Usage("the sampler beside the kernel engine ended in a panic".into()));
            (measured, sampler.map(|sampler| sampler.join().unwrap_or_else(|_| failed())))
        })
    }

    /// A warning if the window ended early. A window without limit is meant to last until the
    /// program's end.
    fn early_end_warning(&self, stop_reason: &StopReason, seconds: f64) -> Option<String> {
        let seconds = numbers::seconds(seconds);
        match stop_reason {
            StopReason::TargetEnded if self.window.0.is_some() => {
                Some(format!("the program ended; the report covers the {seconds} until then"))
            }
            StopReason::Lost(why) => Some(format!("the window ended after {seconds}: {why}")),
            StopReason::TargetEnded | StopReason::Done | StopReason::Stopped => None,
        }
    }

    /// The same session, of a program that was started to be measured.
    pub fn of_command(self) -> Session {
        Session { of_command: true, ..self }
    }

    /// Why the window did not last as long as it was meant to. A window without limit ends with the
    /// program, or by a signal.
    fn cut_short(&self, stop_reason: &StopReason, seconds: f64) -> Option<String> {
        let seconds = numbers::seconds(seconds);
        match (stop_reason, self.window.0) {
            (StopReason::TargetEnded, _) if self.of_command => None,
            (StopReason::Lost(why), _) => Some(format!("the window ended after {seconds}: {why}")),
            (StopReason::TargetEnded | StopReason::Stopped, Some(limit)) => {
                Some(format!("the window ended after {seconds} instead of {}", numbers::seconds(limit.as_secs_f64())))
            }
            (StopReason::TargetEnded | StopReason::Stopped, None) | (StopReason::Done, _) => None,
        }
    }

    /// Writes the files of `-o`, prints the page and names the files.
    pub fn emit<T: IsTerminal + AsFd>(&mut self, outcome: CompletedCapture, to: &T, print: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let emitted = self.outputs.emit(std::slice::from_ref(&outcome.measured), to, print);
        if outcome.recorded.is_ok() {
            self.outputs.recordings().for_each(|file| note(&wrote_message(file)));
        }
        outcome.recorded.and(emitted)
    }
}
