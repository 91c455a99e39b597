//! The common part of `attach`, `run`, `record` and `gate`: measures one window, then writes the
//! outputs.

use super::args::{MeasureArgs, OutputArgs};
use super::both_engines;
use super::note;
use super::outputs::{wrote_message, CaptureReport, Outputs};
use super::progress::LiveLine;
use super::tee::{self, RecordingFiles, TeeSink};
use super::tree_profiles::TreeProfiles;
use super::values::DurationArg;
use super::window_end::WindowEnd;
use crate::capture::session::{CaptureConfig, CaptureResult, Progress, ProgressHook, StopReason};
use crate::capture::target::Target;
use crate::capture::tree::{capture_tree, Processes, TreeConfig};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::numbers;
use crate::process::proc_info;
use crate::profile::file::Recording;
use crate::profile::{CoalescingSink, Profile};
use crate::python::attach::Attached;
use crate::python::diagnose;
use crate::python::runtimes::RuntimeChoice;
use crate::sample::Sink;
use crate::units::Nanos;
use std::fs::File;
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
    /// The largest part of a core that gilprof may use for several processes.
    max_cpu: Option<f64>,
    end: WindowEnd,
    outputs: Outputs,
}

/// A window that has ended.
pub struct CompletedCapture {
    /// Of each process, in the order in which they were met.
    measured: Vec<CaptureReport>,
    stop_reason: StopReason,
    recorded: Result<()>,
}

impl CompletedCapture {
    /// The reports; an error if the recording could not be written.
    pub fn into_reports(self) -> Result<Vec<CaptureReport>> {
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
            max_cpu: measure.subprocesses.max_cpu,
            end: WindowEnd { limit: window.0, of_command: false },
            outputs: Outputs::prepare(output)?,
        })
    }

    /// Records the window even if no file needs it.
    pub fn with_recording(self) -> Session {
        Session { keep_recording: true, ..self }
    }

    /// Uses at most this part of a core for several processes, if the arguments name no other.
    pub fn with_max_cpu(self, max_cpu: f64) -> Session {
        Session { max_cpu: self.max_cpu.or(Some(max_cpu)), ..self }
    }

    /// How long the window is meant to last.
    pub fn limit(&self) -> Option<Nanos> {
        self.end.limit
    }

    /// A live line for the window.
    pub fn live_line(&self) -> LiveLine {
        LiveLine::new(self.window)
    }

    /// The files that gilprof created and that are still empty.
    pub fn placeholders(&self) -> super::output_file::Placeholders {
        self.outputs.placeholders.clone()
    }

    /// Measures one process until the window ends, `stop` is set or the target ends. Blocks. Sets
    /// `stop` if a recording cannot be written any more.
    pub fn measure(&self, pid: Pid, target: Attached, stop: &AtomicBool, line: LiveLine) -> Result<CompletedCapture> {
        let file = self.unnamed_recording()?;
        let mut files = RecordingFiles::new(self.outputs.recordings(), file.as_ref())?;
        let mut sink = files.sink();
        let mut tick = |progress: Progress, sink: &mut CoalescingSink<TeeSink>| {
            let tee = sink.inner_mut();
            tee.checkpoint(&progress.target, &progress.window);
            if files.failed() {
                stop.store(true, Ordering::Relaxed);
            }
            line.show(progress.window, tee.builder.live(), 1);
        };
        let target = Target::new(pid, target).config(self.config);
        let (measured, beside) = self.run(target, stop, &mut sink, &mut tick);
        line.clear();
        let mut window = measured?;
        window.stats.warnings.extend(self.end.warning(&window.stop_reason, window.stats.seconds));
        window.stats.cut_short = self.end.cut_short(&window.stop_reason, window.stats.seconds);
        let mut profile = sink.finish().finish(window.target, window.stats);
        let recorded = files.finish();
        let recording = match (file, &recorded) {
            (Some(file), Ok(())) => Some(Recording::from_file(file, Path::new(tee::UNNAMED))?),
            _ => None,
        };
        if let (Some(beside), Some(recording)) = (beside, &recording) {
            let compared =
                beside.and_then(|(samples, of_samples)| both_engines::disagreements((&samples, &of_samples), (&profile, recording)));
            // What the kernel engine has measured stays.
            let failed = |why| vec![format!("the engines were not compared: {why}")];
            profile.window.warnings.extend(compared.unwrap_or_else(failed));
        }
        let measured = vec![self.outputs.analyse(profile, recording)];
        Ok(CompletedCapture { measured, stop_reason: window.stop_reason, recorded })
    }

    /// The same for a process and all Python processes below it. `attached`: the process itself,
    /// if it is Python.
    /// `patience`: how long to wait for the first Python.
    pub fn measure_tree(
        &self,
        root: Pid,
        attached: Option<Attached>,
        patience: Option<Nanos>,
        stop: &AtomicBool,
        line: LiveLine,
    ) -> Result<CompletedCapture> {
        let file = self.unnamed_recording()?;
        let mut to = TreeProfiles::new(self.end, root, (&self.outputs, file.as_ref()), stop, &line);
        let config = TreeConfig {
            processes: Processes::Below { root, attached, patience },
            capture: self.config,
            max_cpu: self.max_cpu,
            runtime: self.runtime.clone(),
        };
        let measured = capture_tree(config, stop, &mut to);
        let (profiles, recorded) = to.finish();
        line.clear();
        let stop_reason = measured?.0;
        if profiles.is_empty() {
            if !proc_info::is_running(root) {
                return Err(Error::Gone { pid: root, when: " before gilprof saw any Python in it".into() });
            }
            let why = "no Python process below it could be measured while gilprof waited".into();
            return Err(Error::NotPython { pid: root, what: diagnose::brief_command(root), why });
        }
        let mut recordings = match (file, &recorded) {
            (Some(file), Ok(())) => Recording::all_in_file(file, Path::new(tee::UNNAMED))?,
            _ => Vec::new(),
        };
        let mut recording_of = |process| {
            let at = recordings.iter().position(|recording| recording.process() == process)?;
            Some(recordings.swap_remove(at))
        };
        let measured = profiles.into_iter().map(|(process, profile)| self.outputs.analyse(profile, recording_of(process))).collect();
        Ok(CompletedCapture { measured, stop_reason, recorded })
    }

    fn unnamed_recording(&self) -> Result<Option<File>> {
        (self.keep_recording || self.outputs.needs_recording()).then(tee::unnamed_file).transpose()
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

    /// The same session, of a program that was started to be measured.
    pub fn of_command(self) -> Session {
        Session { end: WindowEnd { of_command: true, ..self.end }, ..self }
    }

    /// Writes the files of `-o`, prints the page and names the files.
    pub fn emit<T: IsTerminal + AsFd>(&mut self, outcome: CompletedCapture, to: &T, print: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let emitted = self.outputs.emit(&outcome.measured, to, print);
        if outcome.recorded.is_ok() {
            self.outputs.recordings().for_each(|file| note(&wrote_message(file)));
        }
        outcome.recorded.and(emitted)
    }
}
