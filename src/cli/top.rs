//! `gilprof top`: a live view of a program, of all Python programs of the host, or of a recording.

use super::top_args::TopArgs;
use super::values::{parse_pid, EngineArg};
use super::{dump, exit, print, signals, wait_for_python};
use crate::capture::session::{CaptureConfig, Engine};
use crate::capture::target::Target;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::{json, sanitize};
use crate::process::sys_linux::terminal;
use crate::profile::file::Recording;
use crate::profile::ProfileBuilder;
use crate::python::attach;
use crate::python::runtimes::RuntimeChoice;
use crate::top::app::{self, Arrived, Tools};
use crate::top::draw::Paint;
use crate::top::history::Span;
use crate::top::host::{self, Host};
use crate::top::host_sampler::HostSampler;
use crate::top::measurement::{Pace, RunningMeasurement};
use crate::top::model::{Model, View};
use crate::top::terminal::text;
use crate::units::Nanos;
use std::io::{stdin, stdout, IsTerminal};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

/// Processes of one name that an error lists.
const MAX_NAMED: usize = 10;
/// Rows besides the list's own on a printed screen, and the most rows of all.
const CHROME: usize = 12;
const MAX_ROWS: usize = 200;
/// The width of a printed screen where no terminal has one.
const PLAIN_WIDTH: u16 = 80;

/// Runs the command.
pub fn command(args: &TopArgs) -> Result<ExitCode> {
    engine(args)?;
    let model =
        Model { view: args.view, span: args.window, sort: args.sort, filter: args.filter.clone().unwrap_or_default(), ..Model::default() };
    match (args.once || args.json, &args.replay) {
        (false, _) if !stdout().is_terminal() || !stdin().is_terminal() => {
            Err(Error::Usage("top needs a terminal; for a file or a pipe use: gilprof top --once, or --json".into()))
        }
        (false, Some(file)) => screen(args, Some(RunningMeasurement::replay(recording(file, args.pid)?, Pace::Real, model.span)), model),
        (false, None) => match target(args)? {
            Some(pid) => live(args, pid, model),
            None => screen(args, None, Model { view: View::Processes, ..model }),
        },
        (true, Some(file)) => {
            let measurement = RunningMeasurement::replay(recording(file, args.pid)?, Pace::Unlimited, model.span);
            print_once(args, &measurement, model)
        }
        (true, None) => match target(args)? {
            Some(pid) => measure_once(args, pid, model),
            None if args.json => Err(Error::Usage("--json needs a program: gilprof top --json PID".into())),
            None => print_host(args, model),
        },
    }
}

/// The recording of a process. A file with one process needs no name of it.
fn recording(file: &Path, wanted: Option<Pid>) -> Result<Recording> {
    let mut all = Recording::open_all(file)?;
    let pid_of = |recording: &Recording| -> Result<i32> {
        let mut playback = recording.playback()?;
        let first = playback.chunk(&mut ProfileBuilder::new())?;
        Ok(first.map_or(0, |(target, _)| target.pid))
    };
    let pids = match (wanted, all.len()) {
        (None, 1) => return Ok(all.swap_remove(0)),
        _ => all.iter().map(pid_of).collect::<Result<Vec<_>>>()?,
    };
    if let Some(at) = pids.iter().position(|pid| wanted == Some(Pid(*pid))) {
        return Ok(all.swap_remove(at));
    }
    let name = sanitize::clean(&file.to_string_lossy());
    let each = |pid: &i32| format!("\n  gilprof top --replay {name} --pid {pid}");
    let listed: String = pids.iter().take(MAX_NAMED).map(each).collect();
    Err(Error::Usage(format!("cannot tell which process of {name} to play; choose one:{listed}")))
}

/// The process that the arguments name; `None`: all of them.
fn target(args: &TopArgs) -> Result<Option<Pid>> {
    match (args.pid, &args.target) {
        (Some(pid), _) => Ok(Some(pid)),
        (None, None) => Ok(None),
        (None, Some(text)) => parse_pid(text).map_or_else(|_| by_name(text), Ok).map(Some),
    }
}

/// The one Python process whose command line has this text.
fn by_name(name: &str) -> Result<Pid> {
    let found = host::find(name);
    let shown = sanitize::clean(name);
    match &found[..] {
        [(pid, _)] => Ok(*pid),
        [] => Err(Error::Usage(format!("no Python process has {shown:?} in its command line\n  list all: gilprof top --once"))),
        several => {
            let mut why = format!("{} Python processes have {shown:?} in their command lines; choose one:", several.len());
            for (pid, command) in several.iter().take(MAX_NAMED) {
                why += &format!("\n  gilprof top --pid {pid}   ({})", sanitize::clean(command));
            }
            if several.len() > MAX_NAMED {
                why += &format!("\n  and {} more", several.len() - MAX_NAMED);
            }
            Err(Error::Usage(why))
        }
    }
}

fn config(args: &TopArgs, engine: Engine, duration: Option<Nanos>) -> CaptureConfig {
    CaptureConfig { rate_hz: args.rate, duration, engine, ..CaptureConfig::default() }
}

fn engine(args: &TopArgs) -> Result<Engine> {
    match args.engine {
        EngineArg::Samples => Ok(Engine::Samples),
        EngineArg::Kernel => Ok(Engine::Kernel),
        EngineArg::Auto => Ok(Engine::Auto),
        EngineArg::Both => Err(Error::Usage("top measures with one engine: use --engine samples, kernel or auto".into())),
    }
}

/// Attaches to a process that the arguments name, waiting for one that is just starting.
fn attach_now(args: &TopArgs, pid: Pid, duration: Option<Nanos>, stop: &AtomicBool) -> Result<Option<Target>> {
    let (runtime, engine) = (args.runtime.clone().unwrap_or_default(), engine(args)?);
    let attached = wait_for_python::attach(pid, &runtime, stop)?;
    Ok(attached.map(|(pid, attached)| Target::new(pid, attached).config(config(args, engine, duration))))
}

fn live(args: &TopArgs, pid: Pid, model: Model) -> Result<ExitCode> {
    // Ctrl-C loses nothing here, so no handler is installed yet.
    match attach_now(args, pid, None, &AtomicBool::new(false))? {
        Some(target) => screen(args, Some(RunningMeasurement::live(target, model.span)), model),
        None => Ok(ExitCode::from(exit::INTERRUPTED)),
    }
}

fn screen(args: &TopArgs, measurement: Option<RunningMeasurement>, model: Model) -> Result<ExitCode> {
    let arrived = Arc::new(Arrived::default());
    signals::note_for_screen(&arrived)?;
    let measure = |pid: Pid, model: &Model| {
        let attached = attach::attach(pid, &RuntimeChoice::default())?;
        Ok(RunningMeasurement::live(Target::new(pid, attached).config(config(args, engine(args)?, None)), model.span))
    };
    let runtime = args.runtime.clone().unwrap_or_default();
    let dump = |pid: Pid| match args.replay {
        Some(_) => Err(Error::Usage("a recording has no process to dump".into())),
        None => dump::as_text(pid, &runtime),
    };
    let tools = Tools { measure: &measure, dump: &dump, capture: config(args, Engine::Samples, None), paint: paint(args) };
    app::run(measurement, model, &tools, &arrived)?;
    Ok(ExitCode::SUCCESS)
}

fn paint(args: &TopArgs) -> Paint {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
    Paint { colour: !plain, ascii: args.ascii }
}

/// Measures one window and prints it.
fn measure_once(args: &TopArgs, pid: Pid, model: Model) -> Result<ExitCode> {
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), super::output_file::Placeholders::default())?;
    let seconds = model.span.seconds().or(Span::default().seconds());
    let Some(target) = attach_now(args, pid, seconds.map(Nanos::from_secs_f64), &stop)? else {
        return Ok(ExitCode::from(exit::INTERRUPTED));
    };
    let measurement = RunningMeasurement::live(target, model.span);
    measurement.wait(&stop);
    print_once(args, &measurement, model)
}

/// Prints the last picture of a measurement that ends by itself.
fn print_once(args: &TopArgs, measurement: &RunningMeasurement, mut model: Model) -> Result<ExitCode> {
    measurement.wait(&AtomicBool::new(false));
    model.take(&mut measurement.latest());
    let ended = model.ended.take();
    let Some(picture) = model.shown().filter(|picture| picture.report.window.samples > 0) else {
        return Err(Error::Usage(format!("nothing was measured: {}", ended.unwrap_or_default())));
    };
    if args.json {
        print(&json::render(&picture.report)?)?;
    } else {
        print_screen(args, &model)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_screen(args: &TopArgs, model: &Model) -> Result<()> {
    let given = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = given.or_else(|| terminal::columns(&stdout()).and_then(|n| n.try_into().ok())).unwrap_or(PLAIN_WIDTH);
    let rows = model.listing().rows.len().max(model.icicle_depth()) + CHROME;
    print(&text(model, Paint { colour: false, ascii: args.ascii }, (width.clamp(40, 500), rows.min(MAX_ROWS) as u16)))
}

/// Measures the processes of the host for a second, and prints them.
fn print_host(args: &TopArgs, model: Model) -> Result<ExitCode> {
    let mut host = Host::default();
    let mut sampler = HostSampler::start(config(args, Engine::Samples, None));
    sampler.fill(&mut host.read());
    std::thread::sleep(Duration::from_secs(1));
    let mut processes = host.read();
    sampler.fill(&mut processes);
    let model = Model { view: View::Processes, processes, unreadable: host.unreadable, ..model };
    print_screen(args, &model)?;
    Ok(ExitCode::SUCCESS)
}
