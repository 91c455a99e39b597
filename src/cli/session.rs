//! What `attach` and `run` share: one measured window on a thread of its own, then the report and the files.

use super::args::{MeasureArgs, Window};
use super::files::{self, Blanks, Sheet};
use super::progress::LiveLine;
use super::say;
use crate::analysis::what_if::Question;
use crate::analysis::{self, report::Report};
use crate::capture::observe::Freeze;
use crate::capture::peers;
use crate::capture::sampler::{self, Ended, Plan, Progress};
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::output::collapsed::{FlameInput, FlameMode, FlameRow, Roots};
use crate::output::text::{self, Style};
use crate::output::{collapsed, flamegraph, json, numbers, FileFormat, Format};
use crate::profile::{Profile, ProfileBuilder};
use crate::python::attach::Attached;
use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;

/// A window that has room for fewer looks than this is a slip of the pen.
const FEWEST_LOOKS: f64 = 2.0;

/// What was asked for, with the files already open.
pub struct Session {
    plan: Plan,
    window: Window,
    format: Format,
    flame: FlameMode,
    roots: Roots,
    freeze: bool,
    questions: Vec<Question>,
    sheets: Vec<Sheet>,
    /// The files among them that gilprof made.
    pub blanks: Blanks,
}

/// What came of a window.
pub struct Measured {
    profile: Profile,
    report: Report,
    ended: Ended,
}

impl Measured {
    /// Whether the window is over because the program is.
    pub fn program_ended(&self) -> bool {
        matches!(self.ended, Ended::TargetEnded)
    }
}

impl Session {
    /// Checks all that can be checked before measuring.
    pub fn prepare(args: &MeasureArgs, window: Window) -> Result<Session> {
        if args.freeze_holder {
            peers::freezer(Pid(0))?;
        }
        if window.0.is_some_and(|w| w.as_secs_f64() * args.rate < FEWEST_LOOKS) {
            return Err(Error::Usage(format!(
                "the window is too short for looks {} apart: make it longer (--duration), or look more often (--rate)",
                numbers::seconds(1.0 / args.rate)
            )));
        }
        let (sheets, blanks) = files::open_all(&args.output)?;
        Ok(Session {
            plan: Plan { rate_hz: args.rate, duration: window.0, exact: args.exact },
            window,
            format: args.format.into(),
            flame: args.flame.into(),
            roots: if args.by_thread { Roots::ByThread } else { Roots::Merged },
            freeze: args.freeze_holder,
            questions: args.what_if.clone(),
            sheets,
            blanks,
        })
    }

    /// A live line for the window.
    pub fn line(&self) -> LiveLine {
        LiveLine::new(self.window)
    }

    /// Measures until the window is over, `stop` is set or the target ends. Blocks.
    pub fn measure(&self, pid: Pid, target: Attached, stop: &AtomicBool, line: LiveLine) -> Result<Measured> {
        let mut builder = ProfileBuilder::new();
        let mut tick = |progress: Progress, builder: &ProfileBuilder| line.show(progress, builder.live());
        let freezer = |pid| -> Option<Box<dyn Freeze>> { self.freeze.then(|| peers::freezer(pid).ok()).flatten() };
        let measured = match target {
            Attached::Python(python) => sampler::measure(*python, self.plan, &freezer, stop, &mut builder, &mut tick),
            Attached::Legacy(version) => peers::measure(pid, &version, self.plan, stop, &mut builder, &mut tick),
        };
        line.clear();
        let mut window = measured?;
        window.facts.warnings.extend(self.cut_short(&window.ended, window.facts.seconds));
        let profile = builder.finish(window.target, window.facts);
        let report = analysis::report_with(&profile, &self.questions);
        Ok(Measured { profile, report, ended: window.ended })
    }

    /// Why there is less than was asked for. A window without end was to last until the program's.
    fn cut_short(&self, ended: &Ended, seconds: f64) -> Option<String> {
        let seconds = numbers::seconds(seconds);
        match ended {
            Ended::TargetEnded if self.window.0.is_some() => Some(format!("the program ended; the report covers the {seconds} before")),
            Ended::Lost(why) => Some(format!("the window ended after {seconds}: {why}")),
            Ended::TargetEnded | Ended::Done | Ended::Stopped => None,
        }
    }

    /// Writes the files of `-o`, prints the page, says where the files are. A part that fails does not keep back the others; the error is
    /// the first.
    pub fn deliver(&mut self, measured: &Measured, to: &impl IsTerminal, print: impl FnOnce(&str) -> Result<()>) -> Result<()> {
        let mut said = Vec::new();
        let mut failed = None;
        for sheet in &mut self.sheets {
            let written = contents(sheet.format, measured, self.flame, self.roots).and_then(|text| sheet.write(&text));
            match written {
                Ok(()) => said.push(format!("wrote {}", sheet.path().display())),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let printed = self.page(measured, to).and_then(|page| print(&page));
        said.iter().for_each(|line| say(line));
        match failed {
            Some(e) => Err(e),
            None => printed,
        }
    }

    /// What goes to the terminal or a pipe.
    fn page(&self, measured: &Measured, to: &impl IsTerminal) -> Result<String> {
        match self.format {
            Format::Text => Ok(text::render(&measured.report, style(to))),
            Format::Json => json::render(&measured.report),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.blanks.remove();
    }
}

fn contents(format: FileFormat, measured: &Measured, mode: FlameMode, roots: Roots) -> Result<String> {
    let profile = &measured.profile;
    let flame = || FlameInput {
        title: format!("{}, pid {}", text::program(&measured.report.target), profile.target.pid),
        subtitle: format!("{}, {} looks", numbers::seconds(profile.window.seconds), numbers::thousands(profile.window.looks)),
        mode,
        roots,
        rows: profile.stacks().map(|(thread, stack, split)| FlameRow { thread: &thread.facts.name, stack, split }).collect(),
    };
    match format {
        FileFormat::Json => json::render(&measured.report),
        FileFormat::Folded => Ok(collapsed::render(&flame())),
        FileFormat::Svg => flamegraph::render(&flame()),
    }
}

/// Colour and bars only for a person at a terminal.
pub fn style(to: &impl IsTerminal) -> Style {
    if !to.is_terminal() {
        return Style::PLAIN;
    }
    let colour = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(80);
    Style { colour, bars: colour, width }
}
