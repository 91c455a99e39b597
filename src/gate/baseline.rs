//! The baseline: runs of an earlier build, kept as samples, with what they were measured on.
//!
//! It is a file of JSON that one commits, or hands from job to job. It is foreign: bounded, and checked before anything is made of it.

use super::fingerprint::{Fingerprint, SCHEMA};
use super::run::Run;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The largest file that is read.
const LARGEST: u64 = 32 << 20;
/// How many threads and functions of a run are kept, those that matter most.
const MAX_ROWS_KEPT: usize = 100;
/// More runs than these are no baseline.
const MAX_RUNS: usize = 1000;

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Always `gilprof.baseline/1`.
    pub schema: String,
    /// The version of gilprof that wrote it.
    pub gilprof: String,
    /// What it was measured on.
    pub fingerprint: Fingerprint,
    /// What was measured.
    pub runs: Vec<Run>,
}

/// Why there is no baseline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaselineError {
    /// The file cannot be read, or is none.
    Unreadable(String),
    /// It is one, but not one to compare with.
    Incompatible(String),
}

#[derive(Deserialize)]
struct Header {
    schema: String,
}

impl Baseline {
    /// Of runs that were measured just now.
    pub fn new(fingerprint: Fingerprint, runs: &[Run]) -> Baseline {
        let runs = runs.iter().map(|run| run.clone().thinned(MAX_ROWS_KEPT)).collect();
        Baseline { schema: SCHEMA.into(), gilprof: env!("CARGO_PKG_VERSION").into(), fingerprint, runs }
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Baseline, BaselineError> {
        let failed = |why: String| BaselineError::Unreadable(format!("failed to read the baseline {}: {why}", path.display()));
        let missing = "\n  make it from a build that is as it should be: gilprof gate --baseline FILE --update-baseline …";
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("{e}{missing}")))?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(failed("it is no file, or larger than any baseline".into()));
        }
        let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        Baseline::parse(&text).map_err(|error| match error {
            BaselineError::Unreadable(why) => failed(why),
            BaselineError::Incompatible(why) => BaselineError::Incompatible(format!("the baseline {}: {why}", path.display())),
        })
    }

    /// From its text.
    pub fn parse(text: &[u8]) -> Result<Baseline, BaselineError> {
        let unreadable = |e: serde_json::Error| BaselineError::Unreadable(format!("it is no baseline of gilprof's: {e}"));
        let header: Header = serde_json::from_slice(text).map_err(unreadable)?;
        if header.schema != SCHEMA {
            let name: String = header.schema.chars().take(60).collect();
            return Err(BaselineError::Incompatible(format!(
                "it has the schema {name:?}, and this gilprof reads {SCHEMA}: measure it anew (--update-baseline)"
            )));
        }
        let baseline: Baseline = serde_json::from_slice(text).map_err(unreadable)?;
        if baseline.runs.is_empty() || baseline.runs.len() > MAX_RUNS || !baseline.runs.iter().all(Run::is_sound) {
            return Err(BaselineError::Unreadable(
                "figures in it are none, or do not fit together: measure it anew (--update-baseline)".into(),
            ));
        }
        Ok(baseline)
    }

    /// Its text.
    pub fn text(&self) -> Result<String, String> {
        serde_json::to_string(self).map(|text| text + "\n").map_err(|e| e.to_string())
    }

    /// To a file, whole or not at all.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let text = self.text().map_err(std::io::Error::other)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(format!(".{}.new", std::process::id()));
        std::fs::write(&temporary, text).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
            // Nothing of it is left behind.
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
    fn what_is_written_is_read_back_and_the_least_left_out() {
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
    fn what_is_no_baseline_is_refused() {
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
