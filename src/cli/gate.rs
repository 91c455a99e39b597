//! `gilprof gate`: measures the runs, evaluates the checks, writes the outcome, and ends with an
//! exit code for a build.
//!
//! [`gate_exit`] has the codes, and no code of the measured command is one of them: a command that
//! fails by itself was not measured at its work, and has a code of the gate. `--pass-exit-code`
//! ends with the command's own code, as `run` does. The page goes to stderr if the gate starts a
//! command, which keeps stdout; else to stdout.

use super::args::{MeasureArgs, OutputArgs};
use super::capture::LoadedCapture;
use super::gate_args::GateArgs;
use super::gate_outputs::{GateOutputs, PageStream};
use super::run::Supervised;
use super::session::{CompletedCapture, Session};
use super::values::{parse_duration, DurationArg};
use super::{attach, note, outputs, run, signals};
use crate::error::{Error, Result};
use crate::gate::baseline::{Baseline, BaselineError};
use crate::gate::culprit::MeasuredRun;
use crate::gate::evaluate::{self, gate_exit, Checks, ComparedBaseline, Enforcement, Measurement};
use crate::gate::expr::Regression;
use crate::gate::fingerprint::{difference_of_runs, Fingerprint};
use crate::gate::limits::{self, Limits};
use crate::gate::outcome::{CommandFailure, Outcome};
use crate::gate::processes::ProcessRuns;
use crate::gate::run::Run;
use crate::ids::Pid;
use crate::output::collapsed::FlameMode;
use crate::output::{flamegraph, numbers};
use crate::sample::DescendantCpu;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// The regression that is checked against a baseline if no other is given.
const DEFAULT_REGRESSION: &str = "waiting: +5pp, min 2pp";
/// The window of a running program if no duration is given.
const DEFAULT_WINDOW: &str = "10s";

/// Share of all CPU time that may be unmeasured, and seconds of it that are no matter.
const MOSTLY: f64 = 0.5;
const MIN_UNMEASURED_S: f64 = 0.2;

/// Runs the command. Errors become exit codes of the gate.
pub fn command(args: &GateArgs) -> ExitCode {
    let code = if args.init { init() } else { GateConfig::from_args(args).map(run_gate) };
    ExitCode::from(code.unwrap_or_else(|error| {
        note(&format!("error: {}", error.why));
        error.code
    }))
}

/// Why there is no outcome, and the exit code.
struct GateError {
    code: u8,
    why: String,
    /// How the command ended, if that is why.
    command: Option<CommandFailure>,
}

impl GateError {
    fn new(code: u8, why: impl Into<String>) -> GateError {
        GateError { code, why: why.into(), command: None }
    }
}

fn usage(why: impl Into<String>) -> GateError {
    GateError::new(gate_exit::USAGE, why)
}

fn not_measured(error: &Error) -> GateError {
    GateError::new(if matches!(error, Error::Usage(_)) { gate_exit::USAGE } else { gate_exit::NOT_MEASURED }, error.to_string())
}

/// `--init`.
fn init() -> std::result::Result<u8, GateError> {
    let made = OpenOptions::new().write(true).create_new(true).open(limits::NAME);
    let written = made.and_then(|mut file| file.write_all(limits::TEMPLATE.as_bytes()));
    match written {
        Ok(()) => note(&format!("wrote {}; try it: gilprof gate -- python3 your_benchmark.py", limits::NAME)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(usage(format!("{} is there already", limits::NAME))),
        Err(e) => return Err(usage(format!("failed to write {}: {e}", limits::NAME))),
    }
    Ok(gate_exit::PASS)
}

/// The program to measure.
enum Target {
    Command(Vec<OsString>),
    Process(Pid),
    Recordings(Vec<PathBuf>),
}

/// The arguments and the file of limits, merged and checked.
struct GateConfig {
    target: Target,
    checks: Checks,
    baseline: Option<PathBuf>,
    update: bool,
    pass_exit_code: bool,
    runs: u32,
    warmup: u32,
    window: DurationArg,
    measure: MeasureArgs,
    outputs: GateOutputs,
}

impl GateConfig {
    fn from_args(args: &GateArgs) -> std::result::Result<GateConfig, GateError> {
        let target = target(args)?;
        let file = match &args.limits {
            Some(path) => Limits::read(path).map_err(usage)?,
            None if Path::new(limits::NAME).exists() => Limits::read(Path::new(limits::NAME)).map_err(usage)?,
            None => Limits::default(),
        };
        let merged = file.overridden(&args.max, &args.max_regression);
        let baseline = args.baseline.clone().or(merged.baseline);
        let mut checks = Checks { limits: merged.max, regressions: merged.max_regression, enforcement: Enforcement::Enforced };
        if args.update_baseline {
            // The next build is compared with the new baseline, and its limits are enforced then.
            checks.regressions.clear();
            checks.enforcement = Enforcement::OnlyShown;
        } else if baseline.is_some() && checks.regressions.is_empty() {
            checks.regressions.push(Regression::parse(DEFAULT_REGRESSION).map_err(usage)?);
        }
        check_arguments(&checks, baseline.as_deref(), args.update_baseline)?;
        let window = match (args.duration, &merged.duration, &target) {
            (Some(window), ..) => window,
            (None, Some(text), _) => parse_duration(text).map_err(|e| usage(format!("duration = {text:?}: {e}")))?,
            (None, None, Target::Process(_)) => parse_duration(DEFAULT_WINDOW).map_err(usage)?,
            (None, None, _) => DurationArg(None),
        };
        let rate = args.rate.or(merged.rate).unwrap_or(1000.0);
        super::values::parse_rate(&rate.to_string()).map_err(|e| usage(format!("rate = {rate}: {e}")))?;
        let (runs, warmup) = (args.runs.or(merged.runs).unwrap_or(1), args.warmup.or(merged.warmup).unwrap_or(0));
        if !(1..=1000).contains(&runs) || warmup > 1000 {
            return Err(usage("runs are 1 to 1000, and warmup 0 to 1000"));
        }
        let stream = if matches!(target, Target::Command(_)) { PageStream::Stderr } else { PageStream::Stdout };
        let outputs = GateOutputs::open(&args.format, stream).map_err(usage)?;
        let measure = MeasureArgs {
            rate,
            freeze_holder: false,
            exact: args.exact,
            engine: args.engine,
            runtime: None,
            subprocesses: args.subprocesses,
        };
        let (update, pass_exit_code) = (args.update_baseline, args.pass_exit_code);
        Ok(GateConfig { target, checks, baseline, update, pass_exit_code, runs, warmup, window, measure, outputs })
    }
}

fn target(args: &GateArgs) -> std::result::Result<Target, GateError> {
    match (args.pid, args.recordings.is_empty(), args.command.is_empty()) {
        (Some(pid), true, true) => Ok(Target::Process(pid)),
        (None, false, true) => Ok(Target::Recordings(args.recordings.clone())),
        (None, true, false) => Ok(Target::Command(args.command.clone())),
        (None, true, true) => Err(usage("there is nothing to measure: give -- CMD, --pid PID or a recording")),
        _ => Err(usage("only one of -- CMD, --pid PID and recordings can be measured")),
    }
}

fn check_arguments(checks: &Checks, baseline: Option<&Path>, update: bool) -> std::result::Result<(), GateError> {
    if update && baseline.is_none() {
        return Err(usage("--update-baseline needs a file: --baseline FILE"));
    }
    if !checks.regressions.is_empty() && baseline.is_none() {
        return Err(usage("--max-regression needs a baseline: --baseline FILE"));
    }
    if checks.limits.is_empty() && checks.regressions.is_empty() && !update {
        return Err(usage(
            "there is nothing to check: give --max 'waiting <= 20%', or --baseline FILE, or make a gilprof.toml: gilprof gate --init",
        ));
    }
    Ok(())
}

fn baseline_error(error: BaselineError) -> GateError {
    match error {
        BaselineError::Unreadable(why) => usage(why),
        BaselineError::Incompatible(why) => GateError::new(gate_exit::INCONCLUSIVE, why),
    }
}

/// Measures, evaluates and writes. From here on every error is an outcome, so that no file of an
/// earlier build is taken for the result of this one.
fn run_gate(mut config: GateConfig) -> u8 {
    let (outcome, flame) = outcome(&config).unwrap_or_else(|error| {
        let outcome = evaluate::not_evaluated(&name(&config.target), error.why, error.code);
        (Outcome { command_failure: error.command, ..outcome }, None)
    });
    match (config.outputs.emit(&outcome, flame.as_deref()), outcome.exit_code) {
        (Ok(()), code) => code,
        // A result that could not be written is still the result, except that it is no pass.
        (Err(error), code) => {
            note(&format!("error: {error}"));
            if code == gate_exit::PASS {
                gate_exit::USAGE
            } else {
                code
            }
        }
    }
}

/// The outcome, and the flamegraph if a file for it was given.
fn outcome(config: &GateConfig) -> std::result::Result<(Outcome, Option<String>), GateError> {
    // Before the runs, so that a baseline that cannot be read costs no measurement.
    let base = match &config.baseline {
        Some(path) if !config.update => Some(Baseline::read(path).map_err(baseline_error)?),
        _ => None,
    };
    let captures = capture_runs(config)?;
    let mut outcome = evaluate(config, base.as_ref(), &captures)?;
    let flame =
        match captures.last().and_then(GateRun::busiest).filter(|_| config.outputs.has_flamegraph()).map(draw_flamegraph).transpose() {
            Ok(flame) => flame,
            Err(error) => {
                outcome.notes.push(format!("the flamegraph could not be drawn: {error}"));
                None
            }
        };
    Ok((outcome, flame))
}

/// The name of the program before anything is known about it.
fn name(target: &Target) -> String {
    match target {
        Target::Command(args) => args.iter().map(|argument| argument.to_string_lossy()).collect::<Vec<_>>().join(" "),
        Target::Process(pid) => format!("pid {pid}"),
        Target::Recordings(files) => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "),
    }
}

fn evaluate(config: &GateConfig, base: Option<&Baseline>, captures: &[GateRun]) -> std::result::Result<Outcome, GateError> {
    let on_this_machine = !matches!(config.target, Target::Recordings(_));
    let runs: Vec<ProcessRuns> = captures.iter().map(|capture| capture.runs.clone()).collect();
    let Some(last) = captures.last() else { return Err(GateError::new(gate_exit::NOT_MEASURED, "nothing was measured")) };
    let busiest = captures.iter().filter_map(GateRun::busiest);
    let mut fingerprints: Vec<Fingerprint> = busiest.map(|capture| Fingerprint::from_profile(&capture.profile, on_this_machine)).collect();
    if let Some(why) = difference_of_runs(&fingerprints) {
        return Err(GateError::new(gate_exit::INCONCLUSIVE, why));
    }
    let now = fingerprints.pop().unwrap_or_default();
    let incomplete = incomplete(config, captures);
    let path = config.baseline.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let compared = base.map(|baseline| ComparedBaseline { path: &path, baseline, now: &now });
    let last: Vec<MeasuredRun<'_>> =
        last.processes.iter().map(|capture| MeasuredRun { profile: &capture.profile, report: &capture.report }).collect();
    let warnings = captures.iter().filter_map(GateRun::busiest).flat_map(|capture| capture.report.warnings.iter().cloned()).collect();
    let measurement = Measurement { runs: &runs, last: &last, warnings, incomplete };
    let mut outcome = evaluate::evaluate(&config.checks, &measurement, compared);
    if let (true, Some(path)) = (config.update, &config.baseline) {
        let wrote = update(path, now, &measurement)?;
        outcome.headline = if outcome.checks.is_empty() { wrote } else { format!("{wrote} {}", outcome.headline) };
    }
    Ok(outcome)
}

/// Why the runs are not all that was to be measured: a signal came between two runs, a window was
/// cut short, or most of the work was done where gilprof could not measure it.
fn incomplete(config: &GateConfig, captures: &[GateRun]) -> Option<String> {
    let missing = matches!(config.target, Target::Process(_)) && captures.len() < config.runs as usize;
    let interrupted = missing.then(|| format!("the gate was interrupted after {} of {} runs", captures.len(), config.runs));
    let cut_short = |capture: &GateRun| capture.processes.iter().find_map(|process| process.profile.window.cut_short.clone());
    interrupted.or_else(|| captures.iter().find_map(|capture| cut_short(capture).or_else(|| capture.unmeasured())))
}

/// Writes the new baseline, unless a run is unusable or the measurement is incomplete. Returns a
/// sentence about it.
fn update(path: &Path, now: Fingerprint, measurement: &Measurement<'_>) -> std::result::Result<String, GateError> {
    let runs = &measurement.busiest();
    let unusable = runs.iter().find_map(|run| run.unusable.as_ref()).map(|unusable| &unusable.why);
    if let Some(why) = unusable.or(measurement.incomplete.as_ref()) {
        return Err(GateError::new(gate_exit::INCONCLUSIVE, format!("cannot make a baseline of these runs: {why}")));
    }
    Baseline::new(now, runs).write(path).map_err(|e| usage(format!("failed to write the baseline {}: {e}", path.display())))?;
    Ok(format!("Wrote the baseline {} ({}).", path.display(), numbers::counted(runs.len() as f64, "run")))
}

/// One measured run: its processes.
struct GateRun {
    processes: Vec<LoadedCapture>,
    runs: ProcessRuns,
}

impl GateRun {
    fn new(processes: Vec<LoadedCapture>) -> GateRun {
        let run = |capture: &LoadedCapture| Run::from_report(&capture.profile, &capture.report, &capture.buckets);
        let runs = ProcessRuns::new(processes.iter().map(run).collect());
        GateRun { processes, runs }
    }

    fn from_capture(capture: CompletedCapture) -> Result<GateRun> {
        capture.into_reports()?.into_iter().map(LoadedCapture::from_report).collect::<Result<_>>().map(GateRun::new)
    }

    fn busiest(&self) -> Option<&LoadedCapture> {
        self.processes.get(self.runs.busiest())
    }

    /// A sentence, if most of the CPU time of all processes was not measured.
    fn unmeasured(&self) -> Option<String> {
        // The process that ended last knows most.
        let trees = self.processes.iter().filter_map(|process| process.profile.window.tree.as_ref());
        let tree = trees.max_by_key(|tree| tree.cpu.as_ref().map(DescendantCpu::total))?;
        let Some(cpu) = &tree.cpu else { return Some("it is not known how much of the CPU time was not measured".into()) };
        let all = cpu.total().as_secs_f64();
        let shown: f64 = self.processes.iter().map(|process| process.profile.cpu().as_secs_f64()).sum();
        let measured = shown + tree.not_shown.as_secs_f64();
        let missing = (all - measured).max(0.0);
        (missing > MOSTLY * all && missing > MIN_UNMEASURED_S).then(|| {
            let other = if cpu.other.as_secs_f64() > MOSTLY * missing { ", most of it in programs that are not Python" } else { "" };
            format!("{:.0} % of the CPU time was not measured{other}", 100.0 * missing / all)
        })
    }
}

/// All runs without the warm-up, or why there is none.
fn capture_runs(config: &GateConfig) -> std::result::Result<Vec<GateRun>, GateError> {
    match &config.target {
        Target::Recordings(files) => {
            files.iter().map(|file| LoadedCapture::read_all(file).map(GateRun::new).map_err(|e| not_measured(&e))).collect()
        }
        Target::Command(args) => {
            let mut captures = Vec::new();
            for n in 0..config.warmup + config.runs {
                let capture = capture_command(config, args)?;
                captures.extend((n >= config.warmup).then_some(capture));
            }
            Ok(captures)
        }
        Target::Process(pid) => capture_process(config, *pid),
    }
}

fn session(config: &GateConfig) -> Result<Session> {
    Ok(Session::prepare(&config.measure, &OutputArgs::files(Vec::new()), config.window)?.with_recording())
}

fn capture_command(config: &GateConfig, args: &[OsString]) -> std::result::Result<GateRun, GateError> {
    let session = session(config).map_err(|e| not_measured(&e))?.of_command();
    let follows = config.measure.follows(true).map_err(|e| not_measured(&e))?;
    let work =
        |pid, name: &str, ended: &AtomicBool, running: std::sync::mpsc::Receiver<std::convert::Infallible>| -> Result<CompletedCapture> {
            let measured = run::measure_started(&session, follows, pid, name, ended);
            // The exit status, which says whether the command failed, is known only at its end.
            let _ = running.recv();
            measured
        };
    let ended = run::supervise(args, &config.outputs.placeholders, work).map_err(|e| not_measured(&e))?;
    if !ended.status.success() {
        return Err(failed(&ended, config.pass_exit_code));
    }
    let measured = ended.done.ok_or_else(|| GateError::new(gate_exit::INTERRUPTED, "interrupted before anything was measured"))?;
    measured.and_then(GateRun::from_capture).map_err(|e| not_measured(&e))
}

/// The error for a command that failed.
fn failed<T>(ended: &Supervised<T>, pass_exit_code: bool) -> GateError {
    let status = ended.status;
    let how = match status.code() {
        Some(code) => format!("the command ended with exit code {code}"),
        // `signal: 15 (SIGTERM)`.
        None => format!("the command was ended by {}", status.to_string().replacen("signal: ", "signal ", 1)),
    };
    let (code, why) = if ended.interrupted {
        (gate_exit::INTERRUPTED, format!("interrupted: {how}"))
    } else {
        (gate_exit::COMMAND_FAILED, format!("{how}: it failed by itself, so its figures are not checked"))
    };
    let code = if pass_exit_code { run::exit_code(status) } else { code };
    GateError { code, why, command: Some(CommandFailure { exit_code: status.code(), signal: status.signal() }) }
}

fn capture_process(config: &GateConfig, pid: Pid) -> std::result::Result<Vec<GateRun>, GateError> {
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), config.outputs.placeholders.clone()).map_err(|e| not_measured(&e))?;
    let mut captures = Vec::new();
    for n in 0..config.warmup + config.runs {
        let one = || -> Result<Option<CompletedCapture>> {
            let session = session(config)?;
            attach::measure_running(&session, config.measure.follows(false)?, pid, &stop)
        };
        let Some(measured) = one().map_err(|e| not_measured(&e))? else { break };
        if n >= config.warmup {
            captures.push(GateRun::from_capture(measured).map_err(|e| not_measured(&e))?);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    if captures.is_empty() {
        return Err(GateError::new(gate_exit::INTERRUPTED, "interrupted before anything was measured"));
    }
    Ok(captures)
}

/// The flamegraph of the time holding the GIL in the last run.
fn draw_flamegraph(capture: &LoadedCapture) -> Result<String> {
    flamegraph::render(&outputs::flame_input(&capture.report, &capture.profile, FlameMode::Holding, outputs::group_by(false)))
}
