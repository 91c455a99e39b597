//! Values on the command line, parsed and checked: process ids, rates, durations.

use crate::ids::Pid;
use crate::units::Nanos;
use clap::ValueEnum;

/// Samples per second that `--rate` accepts.
const RATES: std::ops::RangeInclusive<f64> = 1.0..=20_000.0;
/// The longest window: a week.
const LONGEST_S: f64 = 7.0 * 86_400.0;

/// `--duration`; `None` is without limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationArg(pub Option<Nanos>);

/// `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineArg {
    Samples,
    Kernel,
    Auto,
    Both,
}

/// A parser for `clap`; public for the fuzz tests.
#[doc(hidden)]
pub fn parse_pid(text: &str) -> Result<Pid, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(Pid(pid)),
        _ => Err("a process id is a positive number, such as 4242; find it with: pgrep -fa python".into()),
    }
}

/// A parser for `clap`; public for the fuzz tests.
#[doc(hidden)]
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "a rate is a number of samples per second, such as 1000".to_string())?;
    if RATES.contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("a rate is between {} and {} samples per second", RATES.start(), RATES.end()))
    }
}

/// A parser for `clap`: `25%` or `25`, as a part of a core.
pub fn parse_max_cpu(text: &str) -> Result<f64, String> {
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| "a part of a core is a percentage, such as 25%".to_string())?;
    if percent > 0.0 && percent.is_finite() {
        Ok(percent / 100.0)
    } else {
        Err("a part of a core is above 0 %".into())
    }
}

/// A parser for `clap`; public for the fuzz tests.
#[doc(hidden)]
pub fn parse_duration(text: &str) -> Result<DurationArg, String> {
    const HELP: &str = "a duration is a number with a unit, such as 500ms, 10s, 2m or 1h, or a number of seconds; 0 is without limit";
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| HELP.to_string())?;
    let seconds = match unit.trim() {
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(HELP.into()),
    };
    match seconds {
        0.0 => Ok(DurationArg(None)),
        s if s < 0.01 => Err("a duration is at least 10ms".into()),
        s if s > LONGEST_S => Err("a duration is at most a week; 0 is without limit".into()),
        s => Ok(DurationArg(Some(Nanos::from_secs_f64(s)))),
    }
}

/// Whether a shell would find a command of this name.
pub fn is_command(name: &str) -> bool {
    let in_folder = |folder: std::path::PathBuf| folder.join(name).is_file();
    name.contains('/') || std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(in_folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let seconds = |text| parse_duration(text).map(|w| w.0.map(Nanos::as_secs_f64));
        assert_eq!(seconds("10s"), Ok(Some(10.0)));
        assert_eq!(seconds("1.5"), Ok(Some(1.5)));
        assert_eq!(seconds("500ms"), Ok(Some(0.5)));
        assert_eq!(seconds("2m"), Ok(Some(120.0)));
        assert_eq!(seconds("0"), Ok(None));
        for bad in ["", "abc", "-1", "1x", "1ms", "9000h", "1.2.3", "nan", "inf", "1e9"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn rates_and_pids() {
        assert_eq!(parse_rate("1000"), Ok(1000.0));
        for bad in ["0", "-5", "nan", "inf", "x", "1000000"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
        for bad in ["0", "-1", "x", "99999999999"] {
            assert!(parse_pid(bad).is_err(), "{bad}");
        }
    }
}
