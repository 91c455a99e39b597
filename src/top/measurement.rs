//! A running measurement of one process, or a recording that is played, with the threads that it
//! takes: one that samples and one that adds up.

use super::analyst::{Analyst, Input, Latest, Request};
use super::history::Span;
use super::piece::PieceSink;
use crate::capture::session::{Progress, StopReason};
use crate::capture::target::Target;
use crate::error::Result;
use crate::profile::file::Recording;
use crate::profile::CoalescingSink;
use crate::sample::{CaptureStats, TargetInfo};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pieces that wait to be added up. When there are more, the sampling thread keeps its records.
const QUEUE: usize = 64;
/// How often a played recording checks whether it should end.
const PLAY_STEP: Duration = Duration::from_millis(50);

/// How fast a recording is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As it was recorded.
    Real,
    /// As fast as it can be read.
    Unlimited,
}

/// A measurement that runs, or has ended by itself. Dropping it ends it.
#[derive(Debug)]
pub struct RunningMeasurement {
    /// `None` only while it is dropped.
    inputs: Option<SyncSender<Input>>,
    latest: Arc<Mutex<Latest>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl RunningMeasurement {
    /// Measures a process.
    pub fn live(target: Target, span: Span) -> RunningMeasurement {
        RunningMeasurement::start(span, move |inputs, stop| sample(target, inputs, stop))
    }

    /// Plays a recording.
    pub fn replay(recording: Recording, pace: Pace, span: Span) -> RunningMeasurement {
        RunningMeasurement::start(span, move |inputs, stop| match play(&recording, pace, inputs, stop) {
            Ok(()) => "the recording ends here".into(),
            Err(e) => e.to_string(),
        })
    }

    fn start(span: Span, measure: impl FnOnce(&SyncSender<Input>, &AtomicBool) -> String + Send + 'static) -> RunningMeasurement {
        let (inputs, receiver): (_, Receiver<Input>) = sync_channel(QUEUE);
        let (latest, stop) = (Arc::new(Mutex::new(Latest::default())), Arc::new(AtomicBool::new(false)));
        let (shown, stopped, to) = (Arc::clone(&latest), Arc::clone(&stop), inputs.clone());
        let threads = vec![
            std::thread::spawn(move || Analyst::run(&receiver, &shown, span)),
            std::thread::spawn(move || {
                let measured = std::panic::catch_unwind(AssertUnwindSafe(|| measure(&to, &stopped)));
                let reason = measured.unwrap_or_else(|_| "gilprof itself has failed: its sampling thread panicked".into());
                // Refused only if the analyst is gone, and then nothing is shown any more.
                let _ = to.send(Input::Ended(reason));
            }),
        ];
        RunningMeasurement { inputs: Some(inputs), latest, stop, threads }
    }

    /// What there is to show.
    pub fn latest(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for something. The answer comes with [`latest`](Self::latest).
    pub fn request(&self, request: Request) {
        if let Some(inputs) = &self.inputs {
            // Refused only if the analyst is gone.
            let _ = inputs.send(Input::Request(request));
        }
    }

    /// Whether the thread that adds up has ended, which only a panic can make it do.
    pub fn is_broken(&self) -> bool {
        self.threads.first().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it ends by itself, or `stop` is set; then ends it.
    pub fn wait(&self, stop: &AtomicBool) {
        while self.latest().ended.is_none() && !self.is_broken() {
            if stop.load(Ordering::Relaxed) {
                self.stop.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(PLAY_STEP);
        }
    }
}

impl Drop for RunningMeasurement {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.inputs = None;
        for thread in self.threads.drain(..) {
            // A panic has been printed already.
            let _ = thread.join();
        }
    }
}

/// Samples until the target ends or `stop` is set. Returns why it ended.
fn sample(target: Target, inputs: &SyncSender<Input>, stop: &AtomicBool) -> String {
    let mut sink = CoalescingSink::new(PieceSink::default());
    let hand_over = |piece| match inputs.try_send(Input::Piece(piece)) {
        Err(TrySendError::Full(Input::Piece(piece))) => Err(piece),
        _ => Ok(()),
    };
    let mut on_progress = |progress: Progress, sink: &mut CoalescingSink<PieceSink>| {
        sink.inner_mut().publish(&progress.target, &progress.window, hand_over);
    };
    match target.run_until(stop, &mut sink, &mut on_progress) {
        Err(e) => e.to_string(),
        Ok(result) => {
            let wait = |piece| inputs.send(Input::Piece(piece)).or(Ok(()));
            sink.finish().publish(&result.target, &result.stats, wait);
            match result.stop_reason {
                StopReason::Done | StopReason::Stopped => "the measurement is over".into(),
                StopReason::TargetEnded => "the program has ended".into(),
                StopReason::Lost(why) => why,
            }
        }
    }
}

/// Plays a recording until its end, or until `stop` is set.
fn play(recording: &Recording, pace: Pace, inputs: &SyncSender<Input>, stop: &AtomicBool) -> Result<()> {
    let began = Instant::now();
    let mut playback = recording.playback()?;
    let mut sink = PieceSink::default();
    let send = |sink: &mut PieceSink, target: &TargetInfo, stats: &CaptureStats| {
        sink.publish(target, stats, |piece| inputs.send(Input::Piece(piece)).or(Ok(())));
    };
    let mut shown = 0.0;
    while let Some((target, stats)) = playback.chunk(&mut sink)? {
        let due = Duration::try_from_secs_f64(stats.seconds).unwrap_or_default();
        while pace == Pace::Real && began.elapsed() < due && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(PLAY_STEP.min(due.saturating_sub(began.elapsed())));
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        // A chunk that was written because it was full has the statistics of an earlier moment.
        if stats.seconds > shown {
            shown = stats.seconds;
            send(&mut sink, target, stats);
        }
    }
    let summary = playback.finish()?;
    send(&mut sink, &summary.target, &summary.window);
    Ok(())
}
