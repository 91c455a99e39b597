//! What `attach` and `run` share: one measured window on a thread of its own, then the report and the files.

use super::args::{MeasureArgs, Window};
use super::files::{self, Sheet};
use super::progress::LiveLine;
use crate::analysis::{self, report::Report};
use crate::capture::observe::Freeze;
use crate::capture::peers;
use crate::capture::sampler::{self, Ended, Plan, Progress};
use crate::error::Result;
use crate::ids::Pid;
use crate::output::collapsed::{FlameInput, FlameMode, FlameRow, Roots};
use crate::output::text::{self, Style};
use crate::output::{collapsed, flamegraph, json, numbers, FileFormat, Format};
use crate::profile::{Profile, ProfileBuilder};
use crate::python::attach::Attached;
use std::io::IsTerminal;
use std::sync::atomic::AtomicBool;

/// What was asked for, with the files already open.
pub struct Session {
    plan: Plan,
    window: Window,
    format: Format,
    flame: FlameMode,
    roots: Roots,
    freeze: bool,
    sheets: Vec<Sheet>,
}

/// What came of a window.
pub struct Measured {
    profile: Profile,
    report: Report,
    /// Why the window ended.
    pub ended: Ended,
}

impl Session {
    /// Checks all that can be checked before measuring.
    pub fn prepare(args: &MeasureArgs, window: Window) -> Result<Session> {
        if args.freeze_holder {
            peers::freezer(Pid(0))?;
        }
        Ok(Session {
            plan: Plan { rate_hz: args.rate, duration: window.0, exact: args.exact },
            window,
            format: args.format.into(),
            flame: args.flame.into(),
            roots: if args.by_thread { Roots::ByThread } else { Roots::Merged },
            freeze: args.freeze_holder,
            sheets: files::open_all(&args.output)?,
        })
    }

    /// Measures until the window is over, `stop` is set or the target ends. Blocks.
    pub fn measure(&self, pid: Pid, target: Attached, stop: &AtomicBool) -> Result<Measured> {
        let line = LiveLine::new(self.window);
        let mut builder = ProfileBuilder::new();
        let mut tick = |progress: Progress, builder: &ProfileBuilder| line.show(progress, builder.live());
        let freezer = |pid| -> Option<Box<dyn Freeze>> { self.freeze.then(|| peers::freezer(pid).ok()).flatten() };
        let measured = match target {
            Attached::Python(python) => sampler::measure(*python, self.plan, &freezer, stop, &mut builder, &mut tick),
            Attached::Legacy(version) => peers::measure(pid, &version, self.plan, stop, &mut builder, &mut tick),
        };
        line.clear();
        let mut window = measured?;
        match &window.ended {
            Ended::TargetEnded => {
                let seconds = numbers::seconds(window.facts.seconds);
                window.facts.warnings.push(format!("the program ended; the report covers the {seconds} before"));
            }
            Ended::Lost(why) => window.facts.warnings.push(format!("the window ended early: {why}")),
            Ended::Done | Ended::Stopped => {}
        }
        let profile = builder.finish(window.target, window.facts);
        let report = analysis::report(&profile);
        Ok(Measured { profile, report, ended: window.ended })
    }

    /// What goes to the terminal or a pipe.
    pub fn page(&self, measured: &Measured, to: &impl IsTerminal) -> Result<String> {
        match self.format {
            Format::Text => Ok(text::render(&measured.report, style(to))),
            Format::Json => json::render(&measured.report),
        }
    }

    /// Writes the files of `-o`, all of them even if one fails, and says where they are.
    pub fn write_files(&mut self, measured: &Measured) -> Result<Vec<String>> {
        let (flame, roots) = (self.flame, self.roots);
        let mut said = Vec::new();
        let mut failed = None;
        for sheet in &mut self.sheets {
            let written = contents(sheet.format, measured, flame, roots).and_then(|text| Ok(sheet.write(&text)?.display().to_string()));
            match written {
                Ok(path) => said.push(path),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        match failed {
            Some(e) => Err(e),
            None => Ok(said),
        }
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
