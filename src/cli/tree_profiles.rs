//! The profiles of several processes that are measured together, each built while it runs.

use super::outputs::Outputs;
use super::progress::LiveLine;
use super::tee::{RecordingFiles, TeeSink};
use super::window_end::WindowEnd;
use crate::capture::session::{CaptureResult, Progress, StopReason};
use crate::capture::tree::TreeSink;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::profile::{CoalescingSink, LiveStats, Profile};
use crate::units::Nanos;
use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};

/// The largest number of profiles that are kept. Of more processes, those with the least CPU time
/// are in the recording only.
const MAX_PROFILES: usize = 1024;

/// Builds the profiles.
pub struct TreeProfiles<'a> {
    window_end: WindowEnd,
    root: Pid,
    /// The outputs, and the unnamed recording.
    to: (&'a Outputs, Option<&'a File>),
    /// Opened when there is a process to record.
    files: Option<RecordingFiles>,
    /// Why they could not be opened.
    failed: Option<Error>,
    stop: &'a AtomicBool,
    line: &'a LiveLine,
    /// Of the processes that still run.
    live: BTreeMap<i32, LiveStats>,
    /// The processes that have ended, by their numbers.
    ended: Vec<(u32, Profile)>,
    /// How many are not kept, and their CPU time.
    dropped: usize,
    dropped_cpu: Nanos,
}

impl TreeProfiles<'_> {
    /// For the processes from `root` on. Sets `stop` if a recording cannot be written any more.
    pub fn new<'a>(
        window_end: WindowEnd,
        root: Pid,
        to: (&'a Outputs, Option<&'a File>),
        stop: &'a AtomicBool,
        line: &'a LiveLine,
    ) -> TreeProfiles<'a> {
        TreeProfiles {
            window_end,
            root,
            to,
            files: None,
            failed: None,
            stop,
            line,
            live: BTreeMap::new(),
            ended: Vec::new(),
            dropped: 0,
            dropped_cpu: Nanos::ZERO,
        }
    }

    /// The profiles in the order in which the processes were met, with their numbers in the
    /// recordings; and whether those could be written.
    pub fn finish(mut self) -> (Vec<(u32, Profile)>, Result<()>) {
        self.ended.sort_by_key(|(process, _)| *process);
        if let (Some((_, first)), true) = (self.ended.first_mut(), self.dropped > 0) {
            first.window.warnings.push(format!(
                "{} more processes were measured, each with less CPU time than those shown; a recording has them (-o run.gilprof)",
                self.dropped
            ));
        }
        for tree in self.ended.iter_mut().filter_map(|(_, profile)| profile.window.tree.as_mut()) {
            tree.not_shown = self.dropped_cpu;
        }
        let written = self.files.map_or(Ok(()), RecordingFiles::finish);
        (self.ended, self.failed.map_or(written, Err))
    }
}

impl TreeSink<CoalescingSink<TeeSink>> for TreeProfiles<'_> {
    fn begin(&mut self) -> CoalescingSink<TeeSink> {
        let opened = match self.files.take() {
            Some(files) => Ok(files),
            None => RecordingFiles::new(self.to.0.recordings(), self.to.1),
        };
        let mut files = opened.unwrap_or_else(|why| {
            self.failed.get_or_insert(why);
            self.stop.store(true, Ordering::Relaxed);
            RecordingFiles::default()
        });
        let sink = files.sink();
        self.files = Some(files);
        sink
    }

    fn progress(&mut self, progress: Progress, sink: &mut CoalescingSink<TeeSink>) {
        let tee = sink.inner_mut();
        tee.checkpoint(&progress.target, &progress.window);
        if self.files.as_ref().is_some_and(RecordingFiles::failed) {
            self.stop.store(true, Ordering::Relaxed);
        }
        self.live.insert(progress.target.pid, tee.builder.live());
        let busiest = self.live.values().max_by(|a, b| a.waiters_mean.total_cmp(&b.waiters_mean));
        self.line.show(progress.window, busiest.copied().unwrap_or_default(), self.live.len());
    }

    fn end(&mut self, result: CaptureResult, sink: CoalescingSink<TeeSink>) {
        let CaptureResult { target, mut stats, stop_reason } = result;
        self.live.remove(&target.pid);
        // That one of several processes ends is no event to warn of, and that it became another
        // program no reason to doubt the others.
        let is_root = target.pid == self.root.0;
        if is_root || stop_reason != StopReason::TargetEnded {
            stats.warnings.extend(self.window_end.warning(&stop_reason, stats.seconds));
        }
        if is_root || stop_reason == StopReason::Stopped && !self.window_end.of_command {
            stats.cut_short = self.window_end.cut_short(&stop_reason, stats.seconds);
        }
        let tee = sink.finish();
        self.ended.push((tee.process, tee.finish(target, stats)));
        if self.ended.len() > MAX_PROFILES {
            let others = self.ended.iter().enumerate().filter(|(_, (_, profile))| profile.target.pid != self.root.0);
            if let Some((at, _)) = others.min_by_key(|(_, (_, profile))| profile.cpu()) {
                self.dropped_cpu += self.ended.swap_remove(at).1.cpu();
                self.dropped += 1;
            }
        }
    }
}
