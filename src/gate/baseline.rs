//! The baseline: the runs of an earlier build, and the interpreter and machine they were measured
//! on.
//!
//! A baseline is a JSON file that is committed or passed from job to job. Its content is not
//! trusted: its size is bounded, and every figure is validated before use.

use super::fingerprint::{Fingerprint, SCHEMA};
use super::run::Run;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 32 << 20;
/// How many threads and functions of a run are stored: those with the most time.
const MAX_ROWS_KEPT: usize = 100;
/// A file with more runs is rejected.
const MAX_RUNS: usize = 1000;

/// The content of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Always `gilprof.baseline/1`.
    pub schema: String,
    /// The version of gilprof that wrote it.
    pub gilprof: String,
    /// The interpreter and machine that it was measured on.
    pub fingerprint: Fingerprint,
    /// The measured runs.
    pub runs: Vec<Run>,
}

/// Why a baseline cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaselineError {
    /// The file cannot be read, or is not a baseline.
    Unreadable(String),
    /// The file is a baseline of another schema.
    Incompatible(String),
}

#[derive(Deserialize)]
struct Header {
    schema: String,
}

impl Baseline {
    /// A baseline of new runs.
    pub fn new(fingerprint: Fingerprint, runs: &[Run]) -> Baseline {
        let runs = runs.iter().map(|run| run.clone().thinned(MAX_ROWS_KEPT)).collect();
        Baseline { schema: SCHEMA.into(), gilprof: env!("CARGO_PKG_VERSION").into(), fingerprint, runs }
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Baseline, BaselineError> {
        let failed = |why: String| BaselineError::Unreadable(format!("failed to read the baseline {}: {why}", path.display()));
        let missing = "\n  write it from a good build: gilprof gate --baseline FILE --update-baseline …";
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("{e}{missing}")))?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(failed("it is not a regular file, or is larger than 32 MiB".into()));
        }
        let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        Baseline::parse(&text).map_err(|error| match error {
            BaselineError::Unreadable(why) => failed(why),
            BaselineError::Incompatible(why) => BaselineError::Incompatible(format!("the baseline {}: {why}", path.display())),
        })
    }

    /// Parses the text of a file.
    pub fn parse(text: &[u8]) -> Result<Baseline, BaselineError> {
        let unreadable = |e: serde_json::Error| BaselineError::Unreadable(format!("it is not a baseline written by gilprof: {e}"));
        let header: Header = serde_json::from_slice(text).map_err(unreadable)?;
        if header.schema != SCHEMA {
            let name: String = header.schema.chars().take(60).collect();
            return Err(BaselineError::Incompatible(format!(
                "it has the schema {name:?}, but this gilprof reads {SCHEMA}: write it again (--update-baseline)"
            )));
        }
        let baseline: Baseline = serde_json::from_slice(text).map_err(unreadable)?;
        if baseline.runs.is_empty() || baseline.runs.len() > MAX_RUNS || !baseline.runs.iter().all(Run::is_sound) {
            return Err(BaselineError::Unreadable("its figures are missing or inconsistent: write it again (--update-baseline)".into()));
        }
        Ok(baseline)
    }

    /// The text of the file.
    pub fn text(&self) -> Result<String, String> {
        serde_json::to_string(self).map(|text| text + "\n").map_err(|e| e.to_string())
    }

    /// Writes a file through a temporary one, so that a failure leaves no partial baseline.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = self.text().map_err(std::io::Error::other)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
            let _ = std::fs::remove_file(&temporary);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::run::FunctionRun;

    fn baseline() -> Baseline {
        let mut run = Run { seconds: 1.0, samples: 1000, bucket_us: 62_500.0, ..Run::default() };
        let function = |n: usize| FunctionRun { name: format!("f{n}"), holding: vec![n as f64; 16], ..FunctionRun::default() };
        run.functions = (0..300).map(function).collect();
        Baseline::new(Fingerprint { python: "3.11.7".into(), cores: 2.0, ..Fingerprint::default() }, &[run])
    }

    #[test]
    fn a_written_baseline_is_read_back_without_the_smallest_functions() {
        let path = std::env::temp_dir().join(format!("gilprof-baseline-{}.json", std::process::id()));
        let written = baseline();
        written.write(&path).unwrap();
        assert_eq!(Baseline::read(&path), Ok(written.clone()));
        assert!(written.runs[0].functions.len() == MAX_ROWS_KEPT && written.runs[0].functions[0].name == "f299");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Baseline::read(&path), Err(BaselineError::Unreadable(why)) if why.contains("--update-baseline")));
        assert!(baseline().write(Path::new("/nowhere/b.json")).is_err());
    }

    #[test]
    fn files_that_are_not_baselines_are_rejected() {
        let text = baseline().text().unwrap();
        let parse = |text: &str| Baseline::parse(text.as_bytes());
        assert!(
            matches!(parse(&text.replace("baseline/1", "baseline/2")), Err(BaselineError::Incompatible(why)) if why.contains("baseline/2"))
        );
        for (from, to) in
            [("{", "["), ("\"seconds\":1.0", "\"seconds\":-1.0"), ("\"seconds\":1.0", "\"seconds\":1e300"), ("299.0,299.0", "299.0")]
        {
            assert!(text.contains(from), "{from}");
            assert!(matches!(parse(&text.replacen(from, to, 1)), Err(BaselineError::Unreadable(_))), "{from} {to}");
        }
        assert!(matches!(parse("{\"schema\": 3}"), Err(BaselineError::Unreadable(_))));
    }
}
