//! `gilprof report`: makes the page and the files of a live run from recordings.

use super::args::OutputArgs;
use super::outputs::{CaptureReport, Outputs};
use super::print;
use crate::error::{Error, Result};
use crate::output::sanitize;
use crate::profile::file::Recording;
use crate::profile::ProfileBuilder;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Processes that an error lists.
const LISTED: usize = 32;

/// Runs the command.
pub fn command(files: &[PathBuf], pids: &[i32], output: &OutputArgs) -> Result<ExitCode> {
    let mut outputs = Outputs::prepare(output)?;
    if let Some(file) = outputs.recordings().next() {
        let path = sanitize::clean(&file.path().to_string_lossy());
        return Err(Error::Usage(format!(
            "cannot write the recording {path} from recordings: use gilprof record, or attach -o, while the program runs"
        )));
    }
    let files = files.iter().map(|file| measured(file, &outputs)).collect::<Result<Vec<_>>>()?;
    let mut all: Vec<CaptureReport> = files.into_iter().flatten().collect();
    if let Some(missing) = pids.iter().find(|pid| !all.iter().any(|one| one.pid() == **pid)) {
        let there: Vec<String> = all.iter().take(LISTED).map(|one| one.pid().to_string()).collect();
        return Err(Error::Usage(format!("cannot find a process {missing} in the recordings; there are: {}", there.join(", "))));
    }
    all.retain(|one| pids.is_empty() || pids.contains(&one.pid()));
    outputs.emit(&all, &std::io::stdout(), print)?;
    Ok(ExitCode::SUCCESS)
}

/// The processes in a recording.
fn measured(file: &Path, outputs: &Outputs) -> Result<Vec<CaptureReport>> {
    let report = |recording: Recording| {
        let mut builder = ProfileBuilder::new();
        let replayed = recording.replay(&mut builder)?;
        Ok(outputs.analyse(builder.finish(replayed.target, replayed.window), Some(recording)))
    };
    Recording::open_all(file)?.into_iter().map(report).collect()
}
