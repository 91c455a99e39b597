//! `gilprof.toml`: the limits of a project, in a file beside its code. `gilprof gate --init` writes
//! [`TEMPLATE`].
//!
//! The command line takes precedence: its limits replace the file's limits on the same metric, and
//! its options replace the same options of the file.

use super::expr::{Limit, Regression};
use super::metric::Metric;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The file that is read by default.
pub const NAME: &str = "gilprof.toml";
/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// The file that `gilprof gate --init` writes.
pub const TEMPLATE: &str = r#"# Limits for `gilprof gate`: the build fails when the GIL becomes the bottleneck.
# Try it:  gilprof gate -- python3 your_benchmark.py
# A check fails only when the whole interval (99 %) of the measured figure is beyond the limit.
# Options on the command line take precedence over this file.

[gate]
# The limits. `gilprof gate --help` lists the metrics. A check with `@warn` never fails the build.
max = [
    "waiting <= 30%",                    # share of the time of threads in which they wait for the GIL
    "gil.contended <= 80% @warn",        # share of the time in which at least one thread waits
    # "wait_ms.p99 <= 25ms",             # length of one wait; 99 % are shorter
    # "thread(\"worker-*\").waiting <= 40%",
    # "function(\"app.py:parse\").inflicted_wait <= 0.5",  # threads waiting for it, on average
    # "verdict not in [blocked-holding-gil, latency-victims]",
]

# The baseline: written by `gilprof gate --update-baseline …`; commit the file.
# baseline = "gilprof-baseline.json"
# How much worse a figure may be than in the baseline, here 5 percentage points (pp). A change
# fails only if it also exceeds the floor (min).
# max-regression = ["waiting: +5pp, min 2pp"]

# The measurement. With three or more runs the interval covers the spread between runs.
# runs = 1
# warmup = 0
# duration = "10s"   # of each run; by default a command is measured to its end, and --pid for 10 s
# rate = 1000
"#;

/// The content of a limits file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// `max`.
    pub max: Vec<Limit>,
    /// `max-regression`.
    pub max_regression: Vec<Regression>,
    /// `baseline`, resolved against the directory of the file.
    pub baseline: Option<PathBuf>,
    /// `runs`.
    pub runs: Option<u32>,
    /// `warmup`.
    pub warmup: Option<u32>,
    /// `duration`, not parsed.
    pub duration: Option<String>,
    /// `rate`.
    pub rate: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    max: Vec<String>,
    max_regression: Vec<String>,
    baseline: Option<PathBuf>,
    runs: Option<u32>,
    warmup: Option<u32>,
    duration: Option<String>,
    rate: Option<f64>,
}

#[derive(Deserialize)]
struct File {
    gate: Option<Table>,
}

impl Limits {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Limits, String> {
        let failed = |why: String| format!("failed to read the limits in {}: {why}", path.display());
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("{e}\n  write one with: gilprof gate --init")))?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(failed("it is not a regular file, or is larger than 1 MiB".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut limits = Limits::parse(&text).map_err(failed)?;
        // The path of the baseline is relative to this file, not to the working directory.
        limits.baseline = limits.baseline.map(|baseline| path.parent().unwrap_or(Path::new("")).join(baseline));
        Ok(limits)
    }

    /// Parses the text of a file. Tables other than `[gate]` belong to other tools.
    pub fn parse(text: &str) -> Result<Limits, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
        let table = file.gate.ok_or("it has no table [gate]")?;
        let limit = |text: &String| Limit::parse(text).map_err(|e| format!("max = {text:?}: {e}"));
        let regression = |text: &String| Regression::parse(text).map_err(|e| format!("max-regression = {text:?}: {e}"));
        Ok(Limits {
            max: table.max.iter().map(limit).collect::<Result<_, _>>()?,
            max_regression: table.max_regression.iter().map(regression).collect::<Result<_, _>>()?,
            baseline: table.baseline,
            runs: table.runs,
            warmup: table.warmup,
            duration: table.duration,
            rate: table.rate,
        })
    }

    /// Merges the limits of the command line, which take precedence.
    pub fn overridden(mut self, max: &[Limit], max_regression: &[Regression]) -> Limits {
        let given: Vec<&Metric> = max.iter().map(|limit| &limit.metric).collect();
        self.max.retain(|limit| !given.contains(&&limit.metric));
        self.max.extend_from_slice(max);
        let given: Vec<&Metric> = max_regression.iter().map(|regression| &regression.metric).collect();
        self.max_regression.retain(|regression| !given.contains(&&regression.metric));
        self.max_regression.extend_from_slice(max_regression);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_parses_with_and_without_its_comment_marks() {
        let plain = Limits::parse(TEMPLATE).unwrap();
        assert_eq!((plain.max.len(), plain.max_regression.len(), plain.runs), (2, 0, None));
        let uncommented: String = TEMPLATE
            .lines()
            .map(|line| match line.trim_start().strip_prefix("# ") {
                Some(code) if code.starts_with('"') || code.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
                    format!("{code}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        let all = Limits::parse(&uncommented).unwrap_or_else(|e| panic!("{e}\n{uncommented}"));
        assert_eq!((all.max.len(), all.max_regression.len(), all.runs, all.warmup), (6, 1, Some(1), Some(0)));
        assert_eq!((all.duration.as_deref(), all.rate), (Some("10s"), Some(1000.0)));
    }

    #[test]
    fn errors_name_the_mistake() {
        for (text, words) in [
            ("", "no table [gate]"),
            ("[gate]\nmaxx = []", "unknown field `maxx`"),
            ("[gate]\nmax = [\"wait <= 2%\"]", "max = \"wait <= 2%\": there is no metric"),
            ("[gate]\nmax-regression = [\"waiting\"]", "a colon"),
            ("[gate]\nmax = 3", "invalid type"),
            ("[gate", "TOML parse error at line 1"),
        ] {
            let error = Limits::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(Limits::parse("[tool]\nx = 1\n[gate]\n").is_ok());
    }

    #[test]
    fn the_command_line_replaces_limits_of_the_same_metric() {
        let file = Limits::parse("[gate]\nmax = [\"waiting <= 20%\", \"gil.busy <= 50%\"]\nmax-regression = [\"waiting: +1pp\"]").unwrap();
        let limits = file.overridden(&[Limit::parse("waiting <= 40%").unwrap()], &[Regression::parse("gil.busy: +1pp").unwrap()]);
        let max: Vec<String> = limits.max.iter().map(Limit::to_string).collect();
        assert_eq!(max, ["gil.busy <= 50%", "waiting <= 40%"]);
        assert_eq!(limits.max_regression.len(), 2);
    }
}
