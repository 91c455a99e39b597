//! `gilprof gate`: measures as often as asked, judges, writes it down, and ends with a code that a build understands.
//!
//! The gate's own codes stand in [`exit`]; a command that fails passes its own on, because a program that failed was not measured at its work.
//! The page goes to stderr when a command is run, whose stdout is its own; else to stdout.

use super::args::{MeasureArgs, OutputArgs};
use super::course::Course;
use super::files::{self, Blanks, Sheet};
use super::gate_args::{GateArgs, GateFormat, Output};
use super::progress::LiveLine;
use super::session::{Outcome as Measured, Session};
use super::values::{parse_duration, Window};
use super::{deliver, exit as codes, print, run, say, say_raw, signals, wait_for_python};
use crate::error::{Error, Result};
use crate::gate::assemble::{self, exit, Against, Checks};
use crate::gate::baseline::{Baseline, Refused};
use crate::gate::culprit::Seen;
use crate::gate::expr::Regression;
use crate::gate::fingerprint::Fingerprint;
use crate::gate::limits::{self, Limits};
use crate::gate::outcome::Outcome;
use crate::gate::output::{github, junit, markdown, sarif};
use crate::gate::page;
use crate::gate::run::Run;
use crate::ids::Pid;
use crate::output::collapsed::FlameMode;
use crate::output::{flamegraph, json};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// What is compared with a baseline when nothing is said.
const DEFAULT_REGRESSION: &str = "waiting: +5pp, min 2pp";
/// The environment variable that names the file from which GitHub takes a job's summary.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";
/// How long a running program is measured when nothing is said.
const DEFAULT_WINDOW: &str = "10s";

/// Runs the command. Whatever comes of it is a code of the gate's own.
pub fn command(args: &GateArgs) -> ExitCode {
    let code = if args.init { init() } else { Plan::of(args).and_then(gate) };
    ExitCode::from(code.unwrap_or_else(|stop| {
        say(&format!("error: {}", stop.why));
        stop.code
    }))
}

/// Why there is nothing to judge, and what to end with.
struct Stop {
    code: u8,
    why: String,
}

fn usage(why: impl Into<String>) -> Stop {
    Stop { code: exit::USAGE, why: why.into() }
}

fn unmeasured(error: &Error) -> Stop {
    Stop { code: if matches!(error, Error::Usage(_)) { exit::USAGE } else { exit::NOT_MEASURED }, why: error.to_string() }
}

/// `--init`.
fn init() -> std::result::Result<u8, Stop> {
    let made = OpenOptions::new().write(true).create_new(true).open(limits::NAME);
    let written = made.and_then(|mut file| file.write_all(limits::TEMPLATE.as_bytes()));
    match written {
        Ok(()) => say(&format!("wrote {}; try it: gilprof gate -- python3 your_benchmark.py", limits::NAME)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(usage(format!("{} is there already", limits::NAME))),
        Err(e) => return Err(usage(format!("failed to write {}: {e}", limits::NAME))),
    }
    Ok(exit::PASS)
}

/// What is measured.
enum Target {
    Command(Vec<OsString>),
    Process(Pid),
    Recordings(Vec<PathBuf>),
}

/// All that was asked for, checked.
struct Plan {
    target: Target,
    checks: Checks,
    baseline: Option<PathBuf>,
    /// What is in it; not when it is to be written.
    base: Option<Baseline>,
    update: bool,
    runs: u32,
    warmup: u32,
    window: Window,
    measure: MeasureArgs,
    outputs: Vec<GateFormat>,
    /// Where a job's page takes its Markdown from.
    summary: Option<PathBuf>,
    sheets: Vec<Sheet<GateFormat>>,
    blanks: Blanks,
}

impl Plan {
    fn of(args: &GateArgs) -> std::result::Result<Plan, Stop> {
        let target = target(args)?;
        let file = match &args.limits {
            Some(path) => Limits::read(path).map_err(usage)?,
            None if Path::new(limits::NAME).exists() => Limits::read(Path::new(limits::NAME)).map_err(usage)?,
            None => Limits::default(),
        };
        let said = file.overridden(&args.max, &args.max_regression);
        let baseline = args.baseline.clone().or(said.baseline);
        let mut checks = Checks { limits: said.max, regressions: said.max_regression };
        if args.update_baseline {
            // The new one is what the next build is compared with.
            checks.regressions.clear();
        } else if baseline.is_some() && checks.regressions.is_empty() {
            checks.regressions.push(Regression::parse(DEFAULT_REGRESSION).map_err(usage)?);
        }
        check_words(&checks, baseline.as_deref(), args.update_baseline)?;
        let base = match &baseline {
            Some(path) if !args.update_baseline => Some(Baseline::read(path).map_err(refused)?),
            _ => None,
        };
        let window = match (args.duration, &said.duration, &target) {
            (Some(window), ..) => window,
            (None, Some(text), _) => parse_duration(text).map_err(|e| usage(format!("duration = {text:?}: {e}")))?,
            (None, None, Target::Process(_)) => parse_duration(DEFAULT_WINDOW).map_err(usage)?,
            (None, None, _) => Window(None),
        };
        let rate = args.rate.or(said.rate).unwrap_or(1000.0);
        super::values::parse_rate(&rate.to_string()).map_err(|e| usage(format!("rate = {rate}: {e}")))?;
        let (runs, warmup) = (args.runs.or(said.runs).unwrap_or(1), args.warmup.or(said.warmup).unwrap_or(0));
        if !(1..=1000).contains(&runs) || warmup > 1000 {
            return Err(usage("runs are 1 to 1000, and warmup 0 to 1000"));
        }
        let summary = std::env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty()).map(PathBuf::from);
        let summary = summary.filter(|_| args.format.iter().any(Output::is_printed_markdown));
        let (outputs, sheets, blanks) = outputs(&args.format, summary.is_some())?;
        let measure = MeasureArgs { rate, freeze_holder: false, exact: args.exact };
        Ok(Plan {
            target,
            checks,
            baseline,
            base,
            update: args.update_baseline,
            runs,
            warmup,
            window,
            measure,
            outputs,
            summary,
            sheets,
            blanks,
        })
    }
}

fn target(args: &GateArgs) -> std::result::Result<Target, Stop> {
    match (args.pid, args.recordings.is_empty(), args.command.is_empty()) {
        (Some(pid), true, true) => Ok(Target::Process(pid)),
        (None, false, true) => Ok(Target::Recordings(args.recordings.clone())),
        (None, true, false) => Ok(Target::Command(args.command.clone())),
        (None, true, true) => Err(usage("there is nothing to measure: give -- CMD, or --pid PID, or a recording")),
        _ => Err(usage("only one of -- CMD, --pid PID and recordings can be measured")),
    }
}

fn check_words(checks: &Checks, baseline: Option<&Path>, update: bool) -> std::result::Result<(), Stop> {
    if update && baseline.is_none() {
        return Err(usage("--update-baseline needs to know where: --baseline FILE"));
    }
    if !checks.regressions.is_empty() && baseline.is_none() {
        return Err(usage("a regression needs something to compare with: --baseline FILE"));
    }
    if checks.limits.is_empty() && checks.regressions.is_empty() && !update {
        return Err(usage(
            "there is nothing to check: give --max 'waiting <= 20%', or --baseline FILE, or make a gilprof.toml: gilprof gate --init",
        ));
    }
    Ok(())
}

fn refused(refused: Refused) -> Stop {
    match refused {
        Refused::Unreadable(why) => usage(why),
        Refused::Incompatible(why) => Stop { code: exit::INCONCLUSIVE, why },
    }
}

type Outputs = (Vec<GateFormat>, Vec<Sheet<GateFormat>>, Blanks);

/// Opens what goes to files, before anything is measured. The page is printed unless another format takes its place; Markdown is not where
/// there is a summary that it goes to.
fn outputs(formats: &[Output], summary: bool) -> std::result::Result<Outputs, Stop> {
    let printed = formats.iter().filter(|output| output.path.is_none() && !(summary && output.is_printed_markdown()));
    let mut printed: Vec<GateFormat> = printed.map(|output| output.format).collect();
    if printed.contains(&GateFormat::Flamegraph) {
        return Err(usage("a flamegraph goes to a file: --format flamegraph=gil.svg"));
    }
    if printed.is_empty() {
        printed.push(GateFormat::Human);
    }
    // GitHub takes its annotations out of whatever else is printed; the others do not mix.
    if printed.iter().filter(|format| !matches!(format, GateFormat::Github | GateFormat::Human)).count() > usize::from(printed.len() == 1) {
        return Err(usage("only one format can be printed, or human and github together; give the others a path: --format junit=gil.xml"));
    }
    let paths = formats.iter().filter_map(|output| Some((output.path.clone()?, output.format))).collect();
    let (sheets, blanks) = files::open_each(paths).map_err(|e| usage(e.to_string()))?;
    Ok((printed, sheets, blanks))
}

fn gate(mut plan: Plan) -> std::result::Result<u8, Stop> {
    let mut flame = None;
    let outcome = match measure(&plan) {
        Ok(courses) => {
            let wanted = plan.sheets.iter().any(|sheet| sheet.format == GateFormat::Flamegraph);
            flame = courses.last().filter(|_| wanted).and_then(|course| drawn(course).ok());
            judge(&plan, &courses)?
        }
        Err(stop) if stop.code == codes::INTERRUPTED_TWICE => return Err(stop),
        Err(stop) => assemble::failed(&name(&plan.target), stop.why, stop.code),
    };
    let written = deliver(&mut plan, &outcome, flame.as_deref());
    plan.blanks.remove();
    written.map_err(|e| Stop { code: exit::NOT_MEASURED, why: e.to_string() })?;
    Ok(outcome.exit_code)
}

/// What people call what is measured, before anything is known of it.
fn name(target: &Target) -> String {
    match target {
        Target::Command(words) => words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
        Target::Process(pid) => format!("pid {pid}"),
        Target::Recordings(files) => files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" "),
    }
}

fn judge(plan: &Plan, courses: &[Course]) -> std::result::Result<Outcome, Stop> {
    let here = !matches!(plan.target, Target::Recordings(_));
    let runs: Vec<Run> = courses.iter().map(|course| Run::of(&course.profile, &course.report, &course.stretches)).collect();
    let Some(last) = courses.last() else { return Err(Stop { code: exit::NOT_MEASURED, why: "nothing was measured".into() }) };
    let now = Fingerprint::of(&last.profile, here);
    let mut notes = Vec::new();
    if !here {
        let others = courses.iter().filter(|course| !Fingerprint::of(&course.profile, here).against(&now).refused.is_empty()).count();
        if others > 0 {
            return Err(Stop {
                code: exit::INCONCLUSIVE,
                why: "the recordings are of different Pythons, cores or rates: they are no runs of one program".into(),
            });
        }
    }
    if (courses.len() as u32) < plan.runs && here {
        notes.push(format!("interrupted after {} of {} runs", courses.len(), plan.runs));
    }
    let path = plan.baseline.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let against = plan.base.as_ref().map(|baseline| Against { path: &path, baseline, now: &now });
    let seen = Seen { profile: &last.profile, report: &last.report };
    let mut outcome = assemble::judged(&plan.checks, &runs, seen, against, notes);
    if let (true, Some(path)) = (plan.update, &plan.baseline) {
        update(path, now, &runs, &mut outcome)?;
    }
    Ok(outcome)
}

/// Writes the new baseline, unless nothing can be said of the runs.
fn update(path: &Path, now: Fingerprint, runs: &[Run], outcome: &mut Outcome) -> std::result::Result<(), Stop> {
    if let Some(unusable) = runs.iter().find_map(|run| run.unusable.as_ref()) {
        return Err(Stop { code: exit::INCONCLUSIVE, why: format!("this makes no baseline: {}", unusable.why) });
    }
    Baseline::of(now, runs).write(path).map_err(|e| usage(format!("failed to write the baseline {}: {e}", path.display())))?;
    outcome.notes.push(format!("wrote the baseline {} ({} runs)", path.display(), runs.len()));
    Ok(())
}

/// Every run that counts, or why there is none.
fn measure(plan: &Plan) -> std::result::Result<Vec<Course>, Stop> {
    match &plan.target {
        Target::Recordings(files) => files.iter().map(|file| Course::read(file).map_err(|e| unmeasured(&e))).collect(),
        Target::Command(words) => {
            let mut courses = Vec::new();
            for n in 0..plan.warmup + plan.runs {
                let course = of_command(plan, words)?;
                courses.extend((n >= plan.warmup).then_some(course));
            }
            Ok(courses)
        }
        Target::Process(pid) => of_process(plan, *pid),
    }
}

fn session(plan: &Plan) -> Result<Session> {
    Ok(Session::prepare(&plan.measure, &OutputArgs::files(Vec::new()), plan.window)?.keeping())
}

fn of_command(plan: &Plan, words: &[OsString]) -> std::result::Result<Course, Stop> {
    let session = session(plan).map_err(|e| unmeasured(&e))?;
    let work = |pid, name: &str, ended: &AtomicBool, running: std::sync::mpsc::Receiver<std::convert::Infallible>| -> Result<Measured> {
        let measured =
            wait_for_python::attach_started(pid, name, ended).and_then(|target| session.measure(pid, target, ended, LiveLine::none()));
        // Whether it failed is known only then.
        let _ = running.recv();
        measured
    };
    let (status, measured) = run::accompanied(words, &plan.blanks, work).map_err(|e| unmeasured(&e))?;
    if !status.success() {
        let code = run::exit_code(status);
        let why = format!("the command failed ({status}), so what was measured of it is not judged");
        return Err(Stop { code, why });
    }
    let measured = measured.ok_or_else(|| Stop { code: exit::NOT_MEASURED, why: "the measuring was given up".into() })?;
    measured.and_then(Measured::into_measured).and_then(Course::of).map_err(|e| unmeasured(&e))
}

fn of_process(plan: &Plan, pid: Pid) -> std::result::Result<Vec<Course>, Stop> {
    let stop = Arc::new(AtomicBool::new(false));
    signals::end_window_on_signal(stop.clone(), plan.blanks.clone()).map_err(|e| unmeasured(&e))?;
    let mut courses = Vec::new();
    for n in 0..plan.warmup + plan.runs {
        let one = || -> Result<Option<Measured>> {
            let session = session(plan)?;
            let Some((pid, target)) = wait_for_python::attach(pid, &stop)? else { return Ok(None) };
            session.measure(pid, target, &stop, session.line()).map(Some)
        };
        let Some(measured) = one().map_err(|e| unmeasured(&e))? else { break };
        if n >= plan.warmup {
            courses.push(measured.into_measured().and_then(Course::of).map_err(|e| unmeasured(&e))?);
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    if courses.is_empty() {
        return Err(Stop { code: codes::INTERRUPTED_TWICE, why: "interrupted before anything was measured".into() });
    }
    Ok(courses)
}

/// The time with the GIL, of the last run.
fn drawn(course: &Course) -> Result<String> {
    flamegraph::render(&deliver::flame_of(&course.report, &course.profile, FlameMode::Holding, deliver::roots(false)))
}

/// Writes the files and prints the page. A part that fails does not keep back the others; the error is the first.
fn deliver(plan: &mut Plan, outcome: &Outcome, flame: Option<&str>) -> Result<()> {
    let to_stderr = matches!(plan.target, Target::Command(_));
    let at = plan.sheets.iter().find(|sheet| sheet.format == GateFormat::Flamegraph).map(|sheet| sheet.path().to_path_buf());
    let made = Made { outcome, flame, at: at.as_deref().filter(|_| flame.is_some()) };
    let mut failed = None;
    for sheet in &mut plan.sheets {
        let format = sheet.format;
        // Where nothing was measured there is nothing to draw.
        if format == GateFormat::Flamegraph && flame.is_none() {
            continue;
        }
        let written = sheet.write(|out| out.write_all(made.text(format, text_style(None))?.as_bytes()).map_err(Error::Write));
        failed = failed.or(written.err());
    }
    if let Some(path) = &plan.summary {
        failed = failed.or(append(path, &made.text(GateFormat::Markdown, text_style(None))?).err());
    }
    for format in &plan.outputs {
        let page = made.text(*format, text_style(Some(to_stderr)))?;
        if to_stderr {
            say_raw(&page);
        } else {
            print(&page)?;
        }
    }
    failed.map_or(Ok(()), Err)
}

/// To a file that other steps of a job write to as well.
fn append(path: &Path, text: &str) -> Result<()> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| files::failed(path, source))
}

/// For a file, or for stderr or stdout.
fn text_style(to_stderr: Option<bool>) -> crate::output::text::Style {
    match to_stderr {
        None => crate::output::text::Style::PLAIN,
        Some(true) => deliver::style(&std::io::stderr()),
        Some(false) => deliver::style(&std::io::stdout()),
    }
}

/// What there is to be written.
struct Made<'a> {
    outcome: &'a Outcome,
    flame: Option<&'a str>,
    /// Where the flamegraph goes.
    at: Option<&'a Path>,
}

impl Made<'_> {
    fn text(&self, format: GateFormat, style: crate::output::text::Style) -> Result<String> {
        match format {
            GateFormat::Human => Ok(page::render(self.outcome, style)),
            GateFormat::Json => json::to_string(self.outcome),
            GateFormat::Junit => Ok(junit::render(self.outcome, &here())),
            GateFormat::Sarif => sarif::render(self.outcome, &here()),
            GateFormat::Github => Ok(github::render(self.outcome, &here())),
            GateFormat::Markdown => Ok(markdown::render(self.outcome, &here(), self.at)),
            GateFormat::Flamegraph => Ok(self.flame.unwrap_or_default().into()),
        }
    }
}

/// What paths are told relative to.
fn here() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}
