//! `gilprof report`: makes from recordings what a live run would have printed and written.

use super::args::OutputArgs;
use super::deliver::{Delivery, Measured};
use super::print;
use crate::error::{Error, Result};
use crate::output::plain;
use crate::profile::file::Recording;
use crate::profile::ProfileBuilder;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs the command.
pub fn command(files: &[PathBuf], output: &OutputArgs) -> Result<ExitCode> {
    let mut delivery = Delivery::prepare(output)?;
    if let Some(sheet) = delivery.recordings().next() {
        let path = plain::clean(&sheet.path().to_string_lossy());
        return Err(Error::Usage(format!(
            "{path} would be a recording, and those are made while a program runs: gilprof record, or attach -o"
        )));
    }
    let all = files.iter().map(|file| measured(file, &delivery)).collect::<Result<Vec<_>>>()?;
    delivery.deliver(&all, &std::io::stdout(), print)?;
    Ok(ExitCode::SUCCESS)
}

fn measured(file: &Path, delivery: &Delivery) -> Result<Measured> {
    let recording = Recording::open(file)?;
    let mut builder = ProfileBuilder::new();
    let replayed = recording.replay(&mut builder)?;
    Ok(delivery.judge(builder.finish(replayed.target, replayed.window), Some(recording)))
}
