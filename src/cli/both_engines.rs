//! `--engine both`: samples beside the kernel engine, of the same window, and what they disagree
//! on. For tests of gilprof, and where a report is doubted.

use super::tee::{self, RecordingFiles};
use crate::analysis;
use crate::analysis::compare::{compare, Change, ComparedWindow};
use crate::capture::session::{CaptureConfig, Engine};
use crate::capture::target::Target;
use crate::error::Result;
use crate::output::numbers;
use crate::process::sys_linux;
use crate::profile::buckets::Buckets;
use crate::profile::file::Recording;
use crate::profile::Profile;
use crate::units::Nanos;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often the sampler checks whether the kernel engine's window has begun.
const START_POLL: Nanos = Nanos::from_millis(1);

/// When the kernel engine's window runs.
#[derive(Debug, Default)]
pub struct Window {
    /// It has begun.
    pub begun: AtomicBool,
    /// It has ended.
    pub ended: AtomicBool,
}

/// Ends the sampler's window when it is dropped, also by a panic.
#[derive(Debug)]
pub struct EndsWindow<'a>(pub &'a Window);

impl Drop for EndsWindow<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// Samples a process while the window of the kernel engine runs.
pub fn sample_beside(target: Target, config: CaptureConfig, window: &Window) -> Result<(Profile, Recording)> {
    while !window.begun.load(Ordering::Relaxed) && !window.ended.load(Ordering::Relaxed) {
        sys_linux::sleep_until(sys_linux::monotonic() + START_POLL);
    }
    let file = tee::unnamed_file()?;
    let mut files = RecordingFiles::new(std::iter::empty(), Some(&file))?;
    let mut sink = files.sink();
    let config = CaptureConfig { engine: Engine::Samples, duration: None, ..config };
    let measured = target.config(config).run_until(&window.ended, &mut sink, &mut |_, _| {})?;
    let profile = sink.finish().finish(measured.target, measured.stats);
    files.finish()?;
    Ok((profile, Recording::from_file(file, Path::new(tee::UNNAMED))?))
}

/// What the two disagree on by more than the samples' interval and by enough to matter, as
/// sentences.
pub fn disagreements(samples: (&Profile, &Recording), kernel: (&Profile, &Recording)) -> Result<Vec<String>> {
    if !kernel.0.window.kernel_engine {
        return Ok(vec!["the engines were not compared: the kernel engine did not measure the whole window".into()]);
    }
    let reports = [samples.0, kernel.0].map(analysis::report);
    let buckets = [buckets(samples)?, buckets(kernel)?];
    let side = |n: usize| ComparedWindow { report: &reports[n], buckets: &buckets[n] };
    let found = compare(side(0), side(1));
    let mut all = Vec::new();
    let mut add = |name: &str, change: &Change, unit: &dyn Fn(f64) -> String| {
        if change.real {
            let [base, new, low, high] = [change.base, change.new, change.low, change.high].map(unit);
            all.push(format!("the engines disagree: {name} is {base} by samples and {new} by kernel events (difference {low} to {high})"));
        }
    };
    for figure in &found.figures {
        if figure.share {
            add(figure.name, &figure.change, &numbers::percent);
        } else {
            add(figure.name, &figure.change, &|threads| format!("{threads:.2}"));
        }
    }
    for thread in &found.threads {
        add(&format!("waiting of {}", thread.name), &thread.waiting, &numbers::percent);
        add(&format!("holding of {}", thread.name), &thread.holding, &numbers::percent);
    }
    if all.is_empty() {
        all.push("the engines agree: samples and kernel events differ by chance only, or by too little to matter".into());
    }
    Ok(all)
}

fn buckets((profile, recording): (&Profile, &Recording)) -> Result<Buckets> {
    let mut buckets = Buckets::new(profile.window.begin, profile.window.seconds);
    recording.replay(&mut buckets)?;
    Ok(buckets)
}
