//! The properties of a measurement that decide whether it can be compared with another.
//!
//! Another minor version or build of Python, another number of cores or another quota changes the
//! figures themselves: such a baseline is refused. Another machine of the same size mostly does
//! not: it is noted. A property that a recording does not have is not compared.

use crate::profile::Profile;
use serde::{Deserialize, Serialize};

/// The schema of a baseline; a file with another one is refused.
pub const SCHEMA: &str = "gilprof.baseline/1";

/// The interpreter, the machine and the method of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// `3.11.7`.
    pub python: String,
    /// Whether Python is a free-threaded build.
    pub free_threaded: bool,
    /// Whether the GIL is on.
    pub gil_enabled: bool,
    /// CPUs that the program may use.
    pub cores: f64,
    /// The cgroup's quota, in CPUs.
    pub quota: Option<f64>,
    /// Sampling rate in Hz.
    pub rate_hz: f64,
    /// Whether waits were measured by kernel events.
    pub exact: bool,
    /// Switch interval in microseconds.
    pub switch_interval_us: Option<u64>,
    /// Model name of the machine's CPU; `None` if unknown, as in a recording.
    pub cpu_model: Option<String>,
    /// Number of CPUs of the machine.
    pub machine_cpus: Option<f64>,
}

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences {
    /// Differences that prevent the comparison.
    pub incompatible: Vec<String>,
    /// Differences that the reader should know of.
    pub notable: Vec<String>,
}

impl Fingerprint {
    /// The fingerprint of a measured window. `on_this_machine`: it was not read from a recording.
    pub fn from_profile(profile: &Profile, on_this_machine: bool) -> Fingerprint {
        let (target, window) = (&profile.target, &profile.window);
        Fingerprint {
            python: target.python.clone(),
            free_threaded: target.free_threaded,
            gil_enabled: target.gil_enabled,
            cores: target.cpus,
            quota: target.quota,
            rate_hz: window.rate_hz,
            exact: window.exact,
            switch_interval_us: target.switch_interval_us,
            cpu_model: on_this_machine.then(cpu_model).flatten(),
            machine_cpus: target.machine_cpus,
        }
    }

    /// The differences of this fingerprint, from a baseline, and a new one.
    pub fn compare(&self, now: &Fingerprint) -> Differences {
        let mut out = Differences::default();
        let mut differ = |refuse: bool, what: &str, was: String, is: String| {
            if was != is {
                let list = if refuse { &mut out.incompatible } else { &mut out.notable };
                list.push(format!("{what} was {was} and is {is}"));
            }
        };
        let build = |f: &Fingerprint| match (f.free_threaded, f.gil_enabled) {
            (false, _) => "with the GIL".to_string(),
            (true, true) => "free-threaded with the GIL switched on".into(),
            (true, false) => "free-threaded".into(),
        };
        let quota = |f: &Fingerprint| f.quota.map_or("none".to_string(), |quota| format!("{quota:.2} CPUs"));
        let exact = |f: &Fingerprint| if f.exact { "exact" } else { "sampled" }.to_string();
        differ(true, "Python", minor(&self.python), minor(&now.python));
        differ(true, "Python's build", build(self), build(now));
        differ(true, "the number of usable cores", self.cores.to_string(), now.cores.to_string());
        differ(true, "the CPU quota", quota(self), quota(now));
        differ(true, "the sampling rate", format!("{} Hz", self.rate_hz), format!("{} Hz", now.rate_hz));
        differ(true, "the measurement of waits", exact(self), exact(now));
        if minor(&self.python) == minor(&now.python) {
            differ(false, "Python", self.python.clone(), now.python.clone());
        }
        if let (Some(was), Some(is)) = (self.switch_interval_us, now.switch_interval_us) {
            differ(false, "the switch interval", format!("{was} us"), format!("{is} us"));
        }
        if let (Some(was), Some(is)) = (&self.cpu_model, &now.cpu_model) {
            differ(false, "the machine's CPU", was.clone(), is.clone());
        }
        if let (Some(was), Some(is)) = (self.machine_cpus, now.machine_cpus) {
            differ(false, "the machine's number of CPUs", was.to_string(), is.to_string());
        }
        out
    }
}

/// Why these are not runs of one program on one machine: the first difference from the first run
/// that changes the figures.
pub fn difference_of_runs(runs: &[Fingerprint]) -> Option<String> {
    let (first, others) = runs.split_first()?;
    let different = others.iter().map(|run| first.compare(run).incompatible).find(|differences| !differences.is_empty())?;
    Some(format!("the runs are not of one program: {}", different.join(", ")))
}

/// `3.11` of `3.11.7`.
fn minor(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// The CPU model name of this machine.
fn cpu_model() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            python: "3.11.7".into(),
            gil_enabled: true,
            cores: 2.0,
            rate_hz: 1000.0,
            cpu_model: Some("A".into()),
            machine_cpus: Some(2.0),
            ..Fingerprint::default()
        }
    }

    #[test]
    fn differences_that_change_the_figures_are_refused() {
        assert_eq!(fingerprint().compare(&fingerprint()), Differences::default());
        let changes: [fn(&mut Fingerprint); 7] = [
            |f| f.python = "3.12.1".into(),
            |f| f.free_threaded = true,
            |f| f.cores = 4.0,
            |f| f.quota = Some(1.5),
            |f| f.rate_hz = 500.0,
            |f| f.exact = true,
            |f| (f.free_threaded, f.gil_enabled) = (true, false),
        ];
        for change in changes {
            let mut other = fingerprint();
            change(&mut other);
            let differences = fingerprint().compare(&other);
            assert_eq!((differences.incompatible.len(), differences.notable.len()), (1, 0), "{differences:?}");
        }
    }

    #[test]
    fn runs_of_one_program_agree_in_what_changes_the_figures() {
        let patched = || Fingerprint { python: "3.11.9".into(), ..fingerprint() };
        let pinned = || Fingerprint { cores: 1.0, ..fingerprint() };
        assert_eq!(difference_of_runs(&[fingerprint(), patched(), fingerprint()]), None);
        let why = difference_of_runs(&[fingerprint(), fingerprint(), pinned()]).unwrap();
        assert!(why.ends_with("the number of usable cores was 2 and is 1"), "{why}");
    }

    #[test]
    fn another_machine_is_noted_and_an_unknown_one_is_not() {
        type Edit = fn(&mut Fingerprint);
        let changes: [(Edit, usize); 5] = [
            (|f| f.cpu_model = Some("B".into()), 1),
            (|f| f.machine_cpus = Some(64.0), 1),
            (|f| f.python = "3.11.9".into(), 1),
            (|f| f.switch_interval_us = Some(5000), 0),
            (|f| (f.cpu_model, f.machine_cpus) = (None, None), 0),
        ];
        for (change, notable) in changes {
            let mut other = fingerprint();
            change(&mut other);
            let differences = fingerprint().compare(&other);
            assert_eq!((differences.incompatible.len(), differences.notable.len()), (0, notable), "{differences:?}");
        }
    }
}
