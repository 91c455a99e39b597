//! `gilprof diff`: two recordings beside each other.

use super::args::{DiffArgs, FormatArg};
use super::course::Course;
use super::deliver::{self, roots, style};
use super::files;
use super::{print, say};
use crate::analysis::compare::{compare, Comparison};
use crate::error::{Error, Result};
use crate::output::collapsed::FlameInput;
use crate::output::{flamegraph, json, text, FileFormat};
use std::path::Path;
use std::process::ExitCode;

/// Runs the command. That the two differ is a success.
pub fn command(base: &Path, new: &Path, args: &DiffArgs) -> Result<ExitCode> {
    let (mut sheets, blanks) = files::open_all(&args.output)?;
    // Before anything is written: the file may be one of the two.
    if !sheets.iter().all(|sheet| matches!(sheet.format, FileFormat::Json | FileFormat::Svg)) {
        blanks.remove();
        return Err(unfit());
    }
    let written = || -> Result<()> {
        let [base, new] = [Course::read(base)?, Course::read(new)?];
        let comparison = compare(base.side(), new.side());
        for sheet in &mut sheets {
            let format = sheet.format;
            sheet.write(|out| {
                let text = contents(format, &comparison, &flame(&base, args), &flame(&new, args))?;
                out.write_all(text.as_bytes()).map_err(Error::Write)
            })?;
        }
        print(&match args.format {
            FormatArg::Text => text::diff::render(&comparison, style(&std::io::stdout())),
            FormatArg::Json => json::to_string(&comparison)?,
        })?;
        sheets.iter().for_each(|sheet| say(&deliver::wrote(sheet)));
        Ok(())
    }();
    blanks.remove();
    written.map(|()| ExitCode::SUCCESS)
}

fn flame<'a>(read: &'a Course, args: &DiffArgs) -> FlameInput<'a> {
    deliver::flame_of(&read.report, &read.profile, args.flame.into(), roots(args.by_thread))
}

fn contents(format: FileFormat, comparison: &Comparison, base: &FlameInput<'_>, new: &FlameInput<'_>) -> Result<String> {
    match format {
        FileFormat::Json => json::to_string(comparison),
        FileFormat::Svg => flamegraph::differential(base, new),
        _ => Err(unfit()),
    }
}

fn unfit() -> Error {
    Error::Usage("a comparison is written as .json, or as .svg (differential flamegraph)".into())
}
