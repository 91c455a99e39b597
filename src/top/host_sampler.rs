//! Samples all Python processes of the list at once, for their figures there: how busy each GIL is,
//! and how many threads wait for it.

use super::lists::processes::HostRow;
use crate::capture::session::{CaptureConfig, CaptureResult, Progress};
use crate::capture::tree::{capture_tree, Processes, TreeConfig, TreeSink};
use crate::ids::{GilId, Pid, ThreadId};
use crate::python::runtimes::RuntimeChoice;
use crate::sample::{GilSample, Holder, Sink, StateSlice, ThreadInfo, ThreadTotals};
use crate::units::Nanos;
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};

/// The figures are of so many seconds.
const SECONDS: u64 = 5;
/// GILs of one process whose figures are kept.
const MAX_GILS: usize = 16;
/// The part of a core that gilprof may use for the list.
const MAX_CPU: f64 = 0.25;

/// Share of time in which a GIL was held, and how many threads waited for it on average.
type Figures = (f64, f64);

/// The sampling of all processes, which ends when this is dropped.
pub struct HostSampler {
    pids: Sender<Pid>,
    sent: FxHashSet<i32>,
    latest: Arc<Mutex<FxHashMap<i32, Figures>>>,
    stop: Arc<AtomicBool>,
}

impl HostSampler {
    /// Starts with no process.
    pub fn start(capture: CaptureConfig) -> HostSampler {
        let (pids, given) = mpsc::channel();
        let (latest, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (mut to, asked) = (HostSink { latest: Arc::clone(&latest) }, Arc::clone(&stop));
        let config = TreeConfig { processes: Processes::Given(given), capture, max_cpu: Some(MAX_CPU), runtime: RuntimeChoice::default() };
        // Without a thread, or after an error, the figures stay unknown.
        let _ = std::thread::Builder::new().name("host".into()).spawn(move || drop(capture_tree(config, &asked, &mut to)));
        HostSampler { pids, sent: FxHashSet::default(), latest, stop }
    }

    /// Samples these processes too, and fills in what is known of each.
    pub fn fill(&mut self, rows: &mut [HostRow]) {
        let there: FxHashSet<i32> = rows.iter().map(|row| row.pid).collect();
        self.sent.retain(|pid| there.contains(pid));
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            if self.sent.insert(row.pid) {
                // The sampling has ended: its figures stay as they are.
                let _ = self.pids.send(Pid(row.pid));
            }
            (row.gil_busy, row.waiting) = latest.get(&row.pid).copied().unzip();
        }
    }
}

impl Drop for HostSampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct HostSink {
    latest: Arc<Mutex<FxHashMap<i32, Figures>>>,
}

impl TreeSink<GilFigures> for HostSink {
    fn begin(&mut self) -> GilFigures {
        GilFigures::default()
    }

    fn progress(&mut self, progress: Progress, sink: &mut GilFigures) {
        if let Some(figures) = sink.figures() {
            self.latest.lock().unwrap_or_else(PoisonError::into_inner).insert(progress.target.pid, figures);
        }
    }

    fn end(&mut self, result: CaptureResult, _: GilFigures) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).remove(&result.target.pid);
    }
}

/// The figures of one process's GILs over the last seconds.
#[derive(Debug, Default)]
struct GilFigures(FxHashMap<GilId, [Second; SECONDS as usize]>);

/// Nanoseconds of one second: all, those in which the GIL was held, and those that threads waited.
#[derive(Clone, Copy, Debug, Default)]
struct Second {
    number: u64,
    observed: f64,
    held: f64,
    waited: f64,
}

impl GilFigures {
    /// Of the GIL with the most waiting; `None` before the first sample.
    fn figures(&self) -> Option<Figures> {
        let of = |seconds: &[Second; SECONDS as usize]| {
            let newest = seconds.iter().map(|second| second.number).max().unwrap_or(0);
            let recent = || seconds.iter().filter(|second| second.number + SECONDS > newest);
            let sum = |part: fn(&Second) -> f64| recent().map(part).sum::<f64>();
            let observed = sum(|second| second.observed);
            (observed > 0.0).then(|| (sum(|second| second.held) / observed, sum(|second| second.waited) / observed))
        };
        self.0.values().filter_map(of).max_by(|a, b| a.1.total_cmp(&b.1).then(a.0.total_cmp(&b.0)))
    }
}

impl Sink for GilFigures {
    fn thread(&mut self, _: &ThreadInfo) {}

    fn slice(&mut self, _: &StateSlice<'_>) {}

    fn gil(&mut self, sample: &GilSample) {
        if self.0.len() >= MAX_GILS && !self.0.contains_key(&sample.gil) {
            return;
        }
        let number = sample.at.as_nanos() / Nanos::from_millis(1_000).as_nanos();
        let second = &mut self.0.entry(sample.gil).or_default()[(number % SECONDS) as usize];
        if second.number != number {
            *second = Second { number, ..Second::default() };
        }
        let span = sample.span.as_nanos() as f64;
        second.observed += span;
        second.held += if sample.holder == Holder::Nobody { 0.0 } else { span };
        second.waited += span * f64::from(sample.waiters);
    }

    fn thread_end(&mut self, _: ThreadId, _: ThreadTotals) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(gil: u32, ms: u64, holder: Holder, waiters: u32) -> GilSample {
        let (at, span) = (Nanos::from_millis(ms), Nanos::from_millis(100));
        GilSample { gil: GilId(gil), at, span, holder, switches: None, waiters, collecting: None }
    }

    #[test]
    fn the_last_seconds_of_the_most_contended_gil_count() {
        let mut figures = GilFigures::default();
        assert_eq!(figures.figures(), None);
        for ms in (0..20_000).step_by(100) {
            let busy = ms >= 10_000;
            figures.gil(&sample(0, ms, if busy { Holder::Unmatched } else { Holder::Nobody }, if busy { 2 } else { 0 }));
            figures.gil(&sample(1, ms, Holder::Unmatched, 1));
        }
        let (held, waited) = figures.figures().unwrap();
        assert!((held - 1.0).abs() < 1e-9 && (waited - 2.0).abs() < 1e-9, "{held} {waited}");
    }
}
