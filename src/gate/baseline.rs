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
const KEPT: usize = 100;
/// More runs than these are no baseline.
const MOST_RUNS: usize = 1000;

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
pub enum Refused {
    /// The file cannot be read, or is none.
    Unreadable(String),
    /// It is one, but not one to compare with.
    Incompatible(String),
}

#[derive(Deserialize)]
struct Head {
    schema: String,
}

impl Baseline {
    /// Of runs that were measured just now.
    pub fn of(fingerprint: Fingerprint, runs: &[Run]) -> Baseline {
        let runs = runs.iter().map(|run| run.clone().thinned(KEPT)).collect();
        Baseline { schema: SCHEMA.into(), gilprof: env!("CARGO_PKG_VERSION").into(), fingerprint, runs }
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Baseline, Refused> {
        let failed = |why: String| Refused::Unreadable(format!("failed to read the baseline {}: {why}", path.display()));
        let missing = "\n  make it from a build that is as it should be: gilprof gate --baseline FILE --update-baseline …";
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("{e}{missing}")))?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(failed("it is no file, or larger than any baseline".into()));
        }
        let text = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        Baseline::parse(&text).map_err(|refused| match refused {
            Refused::Unreadable(why) => failed(why),
            Refused::Incompatible(why) => Refused::Incompatible(format!("the baseline {}: {why}", path.display())),
        })
    }

    /// From its text.
    pub fn parse(text: &[u8]) -> Result<Baseline, Refused> {
        let unreadable = |e: serde_json::Error| Refused::Unreadable(format!("it is no baseline of gilprof's: {e}"));
        let head: Head = serde_json::from_slice(text).map_err(unreadable)?;
        if head.schema != SCHEMA {
            let name: String = head.schema.chars().take(60).collect();
            return Err(Refused::Incompatible(format!(
                "it has the schema {name:?}, and this gilprof reads {SCHEMA}: measure it anew (--update-baseline)"
            )));
        }
        let baseline: Baseline = serde_json::from_slice(text).map_err(unreadable)?;
        if baseline.runs.is_empty() || baseline.runs.len() > MOST_RUNS || !baseline.runs.iter().all(Run::is_sound) {
            return Err(Refused::Unreadable("figures in it are none, or do not fit together: measure it anew (--update-baseline)".into()));
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
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}.new", std::process::id()));
        std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, path)).inspect_err(|_| {
            // Nothing of it is left behind.
            let _ = std::fs::remove_file(&aside);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::run::FunctionRun;

    fn baseline() -> Baseline {
        let mut run = Run { seconds: 1.0, looks: 1000, stretch_us: 62_500.0, ..Run::default() };
        let function = |n: usize| FunctionRun { name: format!("f{n}"), holding: vec![n as f64; 16], ..FunctionRun::default() };
        run.functions = (0..300).map(function).collect();
        Baseline::of(Fingerprint { python: "3.11.7".into(), cores: 2.0, ..Fingerprint::default() }, &[run])
    }

    #[test]
    fn what_is_written_is_read_back_and_the_least_left_out() {
        let path = std::env::temp_dir().join(format!("gilprof-baseline-{}.json", std::process::id()));
        let written = baseline();
        written.write(&path).unwrap();
        assert_eq!(Baseline::read(&path), Ok(written.clone()));
        assert!(written.runs[0].functions.len() == KEPT && written.runs[0].functions[0].name == "f299");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Baseline::read(&path), Err(Refused::Unreadable(why)) if why.contains("--update-baseline")));
        assert!(baseline().write(Path::new("/nowhere/b.json")).is_err());
    }

    #[test]
    fn what_is_no_baseline_is_refused() {
        let text = baseline().text().unwrap();
        let parse = |text: &str| Baseline::parse(text.as_bytes());
        assert!(matches!(parse(&text.replace("baseline/1", "baseline/2")), Err(Refused::Incompatible(why)) if why.contains("baseline/2")));
        for (from, to) in
            [("{", "["), ("\"seconds\":1.0", "\"seconds\":-1.0"), ("\"seconds\":1.0", "\"seconds\":1e300"), ("299.0,299.0", "299.0")]
        {
            assert!(text.contains(from), "{from}");
            assert!(matches!(parse(&text.replacen(from, to, 1)), Err(Refused::Unreadable(_))), "{from} {to}");
        }
        assert!(matches!(parse("{\"schema\": 3}"), Err(Refused::Unreadable(_))));
    }
}
