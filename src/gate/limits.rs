//! `gilprof.toml`: the limits of a project, beside its code. [`TEMPLATE`] is what `gilprof gate --init` writes.
//!
//! What the command line says wins: a limit of it takes the place of the file's limit on the same metric, any other option that of the file's.

use super::expr::{Limit, Regression};
use super::metric::Metric;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The file that is read without being asked for.
pub const NAME: &str = "gilprof.toml";
/// The largest file that is read.
const LARGEST: u64 = 1 << 20;

/// What `gilprof gate --init` writes.
pub const TEMPLATE: &str = r#"# Limits for `gilprof gate`: the build fails when the GIL becomes the bottleneck.
# Try it:  gilprof gate -- python3 your_benchmark.py
# A limit is broken only when the whole interval at 99 % lies beyond it. What an option on the command line says wins.

[gate]
# What must hold. `gilprof gate --help` lists the metrics. `@warn` at the end only says so.
max = [
    "waiting <= 30%",                    # share of their time that threads wait for the GIL
    "gil.contended <= 80% @warn",        # share of the time in which at least one thread waits
    # "wait_ms.p99 <= 25ms",             # one uninterrupted wait
    # "thread(\"worker-*\").waiting <= 40%",
    # "function(\"app.py:parse\").inflicted_wait <= 0.5",  # threads that wait behind it, on average
    # "verdict not in [blocked-holding-gil, latency-victims]",
]

# A baseline: made by `gilprof gate --update-baseline …`, and committed.
# baseline = "gilprof-baseline.json"
# What may be worse than in it: a change counts when it passes both the allowed one and the floor (min).
# max-regression = ["waiting: +5pp, min 2pp"]

# How it is measured. From three runs on the spread between them counts.
# runs = 1
# warmup = 0
# duration = "10s"   # of each run; needed with --pid
# rate = 1000
"#;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// `max`.
    pub max: Vec<Limit>,
    /// `max-regression`.
    pub max_regression: Vec<Regression>,
    /// `baseline`, from where the file is.
    pub baseline: Option<PathBuf>,
    /// `runs`.
    pub runs: Option<u32>,
    /// `warmup`.
    pub warmup: Option<u32>,
    /// `duration`, as text.
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
    /// From a file.
    pub fn read(path: &Path) -> Result<Limits, String> {
        let failed = |why: String| format!("failed to read the limits in {}: {why}", path.display());
        let meta = std::fs::metadata(path).map_err(|e| failed(format!("{e}\n  make one with: gilprof gate --init")))?;
        if !meta.is_file() || meta.len() > LARGEST {
            return Err(failed("it is no file, or too large for one of limits".into()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
        let mut limits = Limits::parse(&text).map_err(failed)?;
        // A baseline lies beside the file that names it, from wherever gilprof is started.
        limits.baseline = limits.baseline.map(|baseline| path.parent().unwrap_or(Path::new("")).join(baseline));
        Ok(limits)
    }

    /// From its text. Other tables than `[gate]` are other tools'.
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

    /// With what the command line says besides.
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
    fn the_template_is_read_and_what_is_commented_out_in_it_too() {
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
    fn mistakes_are_named() {
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
    fn the_command_line_wins_metric_by_metric() {
        let file = Limits::parse("[gate]\nmax = [\"waiting <= 20%\", \"gil.busy <= 50%\"]\nmax-regression = [\"waiting: +1pp\"]").unwrap();
        let limits = file.overridden(&[Limit::parse("waiting <= 40%").unwrap()], &[Regression::parse("gil.busy: +1pp").unwrap()]);
        let max: Vec<String> = limits.max.iter().map(Limit::to_string).collect();
        assert_eq!(max, ["gil.busy <= 50%", "waiting <= 40%"]);
        assert_eq!(limits.max_regression.len(), 2);
    }
}
