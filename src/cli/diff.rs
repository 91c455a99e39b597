//! `gilprof diff`: compares two recordings.

use super::args::{DiffArgs, FormatArg};
use super::capture::LoadedCapture;
use super::output_file;
use super::outputs::{self, style};
use super::{note, print};
use crate::analysis::compare::{compare, Comparison};
use crate::error::{Error, Result};
use crate::output::collapsed::{FlameInput, GroupBy};
use crate::output::{flamegraph, json, text, FileFormat};
use std::path::Path;
use std::process::ExitCode;

/// Runs the command. A difference between the two is no error.
pub fn command(base: &Path, new: &Path, args: &DiffArgs) -> Result<ExitCode> {
    let (mut files, placeholders) = output_file::open_all(&args.output)?;
    // Checked before anything is written, because the file may be one of the two recordings.
    if !files.iter().all(|file| matches!(file.format, FileFormat::Json | FileFormat::Svg)) {
        placeholders.remove();
        return Err(unsupported());
    }
    let written = || -> Result<()> {
        let [base, new] = [LoadedCapture::read(base)?, LoadedCapture::read(new)?];
        let comparison = compare(base.side(), new.side());
        for file in &mut files {
            let format = file.format;
            file.write(|out| {
                let text = contents(format, &comparison, &flame(&base, args), &flame(&new, args))?;
                out.write_all(text.as_bytes()).map_err(Error::Write)
            })?;
        }
        print(&match args.format {
            FormatArg::Text => text::diff::render(&comparison, style(&std::io::stdout())),
            FormatArg::Json => json::to_string(&comparison)?,
        })?;
        files.iter().for_each(|file| note(&outputs::wrote_message(file)));
        Ok(())
    }();
    placeholders.remove();
    written.map(|()| ExitCode::SUCCESS)
}

fn flame<'a>(read: &'a LoadedCapture, args: &DiffArgs) -> FlameInput<'a> {
    let group_by = if args.by_thread { GroupBy::ThreadName } else { GroupBy::Nothing };
    outputs::flame_input(&read.report, &read.profile, args.flame.into(), group_by)
}

fn contents(format: FileFormat, comparison: &Comparison, base: &FlameInput<'_>, new: &FlameInput<'_>) -> Result<String> {
    match format {
        FileFormat::Json => json::to_string(comparison),
        FileFormat::Svg => flamegraph::differential(base, new),
        _ => Err(unsupported()),
    }
}

fn unsupported() -> Error {
    Error::Usage("a comparison can be written as .json, or as .svg (differential flamegraph)".into())
}
