//! The outputs of a gate: files that are opened before anything is measured, the summary of a
//! GitHub job, and the pages that are printed.

use super::gate_args::{GateFormat, Output};
use super::output_file::{self, OutputFile, Placeholders};
use super::{outputs, print, write_stderr};
use crate::error::{Error, Result};
use crate::gate::outcome::Outcome;
use crate::gate::output::{github, junit, markdown, sarif};
use crate::gate::text;
use crate::output::json;
use crate::output::text::Style;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The environment variable with the path of the file for the summary of a GitHub job.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";

/// The outputs of one gate.
pub struct GateOutputs {
    printed: Vec<GateFormat>,
    /// The stream of the printed pages.
    stream: PageStream,
    files: Vec<OutputFile<GateFormat>>,
    /// The file for the summary of a GitHub job.
    summary: Option<PathBuf>,
    /// The files that are still empty.
    pub placeholders: Placeholders,
}

/// Where pages are printed. A command that the gate starts keeps stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl GateOutputs {
    /// Opens the files. The page for people is printed unless another format is. Markdown is not
    /// printed if there is a job summary, because it goes there.
    pub fn open(formats: &[Output], stream: PageStream) -> std::result::Result<GateOutputs, String> {
        let summary = std::env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty()).map(PathBuf::from);
        let summary = summary.filter(|_| formats.iter().any(Output::is_printed_markdown));
        let is_printed = |output: &&Output| output.path.is_none() && !(summary.is_some() && output.is_printed_markdown());
        let mut printed: Vec<GateFormat> = formats.iter().filter(is_printed).map(|output| output.format).collect();
        if printed.contains(&GateFormat::Flamegraph) {
            return Err("a flamegraph goes to a file: --format flamegraph=gil.svg".into());
        }
        if printed.is_empty() {
            printed.push(GateFormat::Human);
        }
        // GitHub finds its annotations among other lines; the other formats do not mix.
        if printed.iter().filter(|format| !matches!(format, GateFormat::Github | GateFormat::Human)).count()
            > usize::from(printed.len() == 1)
        {
            return Err(
                "only one format can be printed, or human and github together; give the others a path: --format junit=gil.xml".into()
            );
        }
        let paths = formats.iter().filter_map(|output| Some((output.path.clone()?, output.format))).collect();
        let (files, placeholders) = output_file::open_each(paths).map_err(|e| e.to_string())?;
        Ok(GateOutputs { printed, stream, files, summary, placeholders })
    }

    /// Whether there is a flamegraph to draw.
    pub fn has_flamegraph(&self) -> bool {
        self.files.iter().any(|file| file.format == GateFormat::Flamegraph)
    }

    /// Writes the files, removes those that stay empty, and prints the pages. A part that fails
    /// does not stop the others; the first error is returned.
    pub fn emit(&mut self, outcome: &Outcome, flame: Option<&str>) -> Result<()> {
        let at = self.files.iter().find(|file| file.format == GateFormat::Flamegraph).map(|file| file.path().to_path_buf());
        let renderer = Renderer { outcome, flame, at: at.as_deref().filter(|_| flame.is_some()) };
        let plain = |format| renderer.text(format, Style::PLAIN);
        let mut done = Ok(());
        for file in &mut self.files {
            let format = file.format;
            // If nothing was measured, there is nothing to draw.
            if format == GateFormat::Flamegraph && flame.is_none() {
                continue;
            }
            // Rendered first: a file that cannot be rendered keeps its old contents.
            let written = plain(format).and_then(|text| file.write(|out| out.write_all(text.as_bytes()).map_err(Error::Write)));
            done = done.and(written);
        }
        self.placeholders.remove();
        if let Some(path) = &self.summary {
            done = done.and(plain(GateFormat::Markdown).and_then(|text| append(path, &text)));
        }
        for format in &self.printed {
            done = done.and(renderer.text(*format, self.stream.style()).and_then(|page| self.stream.print(&page)));
        }
        done
    }
}

impl PageStream {
    fn style(self) -> Style {
        match self {
            PageStream::Stdout => outputs::style(&std::io::stdout()),
            PageStream::Stderr => outputs::style(&std::io::stderr()),
        }
    }

    fn print(self, page: &str) -> Result<()> {
        match self {
            PageStream::Stdout => print(page),
            PageStream::Stderr => {
                write_stderr(page);
                Ok(())
            }
        }
    }
}

/// Appends to a file that other steps of a job also write.
fn append(path: &Path, text: &str) -> Result<()> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|source| output_file::failed(path, source))
}

/// Renders an outcome in each format.
struct Renderer<'a> {
    outcome: &'a Outcome,
    flame: Option<&'a str>,
    /// The path of the flamegraph.
    at: Option<&'a Path>,
}

impl Renderer<'_> {
    fn text(&self, format: GateFormat, style: Style) -> Result<String> {
        match format {
            GateFormat::Human => Ok(text::render(self.outcome, style)),
            GateFormat::Json => json::to_string(self.outcome),
            GateFormat::Junit => Ok(junit::render(self.outcome, &cwd())),
            GateFormat::Sarif => sarif::render(self.outcome, &cwd()),
            GateFormat::Github => Ok(github::render(self.outcome, &cwd())),
            GateFormat::Markdown => Ok(markdown::render(self.outcome, &cwd(), self.at)),
            GateFormat::Flamegraph => Ok(self.flame.unwrap_or_default().into()),
        }
    }
}

/// The directory to which paths in the output are relative.
fn cwd() -> PathBuf {
    std::env::current_dir().unwrap_or_default()
}
