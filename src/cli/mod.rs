//! Turns arguments into configuration; one file per command.
pub mod args;
mod attach;
mod both_engines;
mod capture;
mod diff;
mod dump;
pub mod exit;
mod gate;
pub mod gate_args;
mod gate_outputs;
mod output_file;
mod outputs;
mod progress;
mod report;
mod run;
mod session;
mod signals;
mod subprocess_args;
mod tee;
mod top;
pub mod top_args;
mod tree_profiles;
pub mod values;
mod wait_for_python;
mod window_end;

use crate::error::{Error, Result};
use args::{Cli, Command, OutputArgs, RecordSource};
use clap::Parser;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

/// Whether a command prints the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verbosity {
    Report,
    Quiet,
}

/// The whole program.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // Before clap, which would complain about an option of the command.
    if let Some(command) = gate_args::command_without_dashes(&args) {
        return fail(&Error::Usage(format!("`--` is missing before the command: gilprof gate … -- {command}")));
    }
    let done = match Cli::parse_from(args).command {
        Command::Attach { process, duration, measure, output } => {
            process.pid().and_then(|pid| attach::command(pid, duration, &measure, &output, Verbosity::Report))
        }
        Command::Run { duration, measure, output, command } => run::command(duration, &measure, &output, &command, Verbosity::Report),
        Command::Record { target, duration, measure, output } => {
            let output = OutputArgs::files(output);
            match target.source() {
                RecordSource::Process(pid) => attach::command(pid, duration, &measure, &output, Verbosity::Quiet),
                RecordSource::Command(command) => run::command(duration, &measure, &output, command, Verbosity::Quiet),
            }
        }
        Command::Diff { base, new, args } => diff::command(&base, &new, &args),
        Command::Report { files, pid, output } => report::command(&files, &pid, &output),
        Command::Top(args) => top::command(&args),
        Command::Gate(args) => Ok(gate::command(&args)),
        Command::Dump { process, format, freeze_holder, runtime, record_memory } => {
            let runtime = runtime.unwrap_or_default();
            process.pid().and_then(|pid| dump::command(pid, format.into(), freeze_holder, &runtime, record_memory.as_deref()))
        }
    };
    done.unwrap_or_else(|e| fail(&e))
}

/// Prints an error and returns its exit code.
fn fail(error: &Error) -> ExitCode {
    note(&format!("error: {error}"));
    ExitCode::from(exit::code(error))
}

/// Writes to stdout. A closed pipe is no error, because the reader chose to stop; a full disk is
/// one.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Output { path: "standard output".into(), source }),
        _ => Ok(()),
    }
}

/// Writes a line to stderr, marked as gilprof's.
fn note(text: &str) {
    write_stderr(&format!("gilprof: {text}\n"));
}

/// Writes to stderr. An error is ignored, because there is no other place to report it.
fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn system(what: &str, source: std::io::Error) -> Error {
    Error::System { what: what.into(), source }
}
