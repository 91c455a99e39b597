//! One capture's program: samples the interpreter that runs in a process, and follows the process
//! across `exec` to the next one.

use super::address_space::AddressSpace;
use super::kernel::{KernelEngine, POLL_RATE_HZ};
use super::pause::PtracePauser;
use super::sampler::{SampleOutcome, Sampler, ThreadPauser};
use super::session::{CaptureConfig, Engine, SampleSource, Sampled, StopReason};
use crate::error::{Error, ReadError};
use crate::ids::Pid;
use crate::process::{kernel_stack, proc_info, sys_linux, threads};
use crate::python::attach::PythonProcess;
use crate::sample::{CaptureStats, EventCounts, Sink, Stop, TargetInfo};
use crate::units::Nanos;

/// After this time without a good sample, gilprof locates the interpreter again: the process may be
/// ending, or its data may have moved.
const RELOCATE_AFTER: Nanos = Nanos::from_millis(100);
/// How often gilprof checks whether a program that replaced the measured one is Python by now.
const RELOCATE_PERIOD: Nanos = Nanos::from_millis(10);
/// A program that replaced the measured one may be a launcher that soon runs `exec` itself. After
/// this time it is taken to stay.
const EXEC_GRACE: Nanos = Nanos::from_millis(1_000);
/// After this time without a good sample the window ends.
const GIVE_UP_AFTER: Nanos = Nanos::from_millis(2_000);
/// In a gap of this length between two good samples, another program may have started its own
/// interpreter.
const RECHECK_EXEC_AFTER: Nanos = Nanos::from_millis(5);
/// Samples after which it is checked although all were good: no sample may fall into the exec.
const RECHECK_EXEC_EVERY: u64 = 16;

/// What samples of earlier programs of the process came to.
#[derive(Debug, Default)]
struct EarlierPrograms {
    torn: u64,
    shortened: u64,
    stops: Vec<Stop>,
    /// Of an engine that ended with one of them.
    events: EventCounts,
}

/// The interpreter of the program that a process runs.
pub struct InterpreterSource {
    pid: Pid,
    /// The file of the measured runtime.
    path: String,
    target: TargetInfo,
    sampler: Sampler,
    /// The kernel engine; `None`: all is sampled.
    engine: Option<Box<KernelEngine>>,
    /// Why all is sampled, where the kernel engine was wanted.
    engine_reason: Option<String>,
    earlier: EarlierPrograms,
    warnings: Vec<String>,
    address_space: AddressSpace,
    freeze_holder: bool,
    /// How long after its beginning a sample may read stacks.
    time_for_stacks: Nanos,
    samples: u64,
    /// The time of the last good sample, and its number.
    last_good: (Nanos, u64),
    /// When gilprof last located the interpreter again.
    relocated_at: Nanos,
    /// The measured program has been replaced by another one.
    replaced: bool,
}

impl InterpreterSource {
    /// The program of a process, as `config` wants it measured.
    pub fn new(python: PythonProcess, config: &CaptureConfig) -> InterpreterSource {
        let engine = match config.engine {
            Engine::Samples => Ok(None),
            Engine::Kernel | Engine::Auto => KernelEngine::open(&python, config.rate_hz).map(|engine| Some(Box::new(engine))),
        };
        let pid = python.pid;
        let mut program = InterpreterSource {
            pid,
            path: python.path.clone(),
            target: target_info(&python),
            earlier: EarlierPrograms::default(),
            warnings: Vec::new(),
            address_space: AddressSpace::open(pid, python.runtime),
            engine: None,
            engine_reason: None,
            freeze_holder: config.freeze_holder,
            // The second half of the period is left for what follows, and for the program.
            time_for_stacks: Nanos::from_nanos((0.5e9 / config.rate_hz) as u64),
            samples: 0,
            last_good: (Nanos::ZERO, 0),
            relocated_at: Nanos::ZERO,
            replaced: false,
            sampler: Sampler::new(python.clone(), pauser(config.freeze_holder)),
        };
        program.sampler.all_evidence = config.all_evidence;
        program.warn(python.runtimes_warning);
        match engine {
            Ok(engine) => program.engine = engine,
            Err(why) => {
                program.warn(
                    (config.engine == Engine::Kernel).then(|| format!("the program is sampled, not watched by the kernel engine: {why}")),
                );
                program.engine_reason = Some(why.to_string());
            }
        }
        program
    }

    fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.extend(warnings);
    }

    /// Takes one sample, unless the program was replaced.
    fn sample_once(&mut self, now: Nanos, until: Nanos, sink: &mut dyn Sink) -> Result<SampleOutcome, ReadError> {
        let bad_before = self.samples != self.last_good.1;
        let recheck =
            now.saturating_since(self.last_good.0) >= RECHECK_EXEC_AFTER || bad_before || self.samples.is_multiple_of(RECHECK_EXEC_EVERY);
        self.replaced = self.replaced || (recheck && self.address_space.is_replaced());
        self.samples += 1;
        if self.replaced {
            return Ok(SampleOutcome::Failed);
        }
        self.sampler.stacks_until = Some(now + self.time_for_stacks);
        let Some(engine) = &mut self.engine else { return self.sampler.sample(now, until, sink) };
        let outcome = engine.sample(&mut self.sampler, now, sink)?;
        if let Some(why) = engine.brake(&mut self.sampler, now, sink) {
            self.end_engine();
            self.engine_reason = Some(why.clone());
            self.warn([why]);
        }
        Ok(outcome)
    }

    /// Drops the engine, and keeps its counts and warnings: the program is sampled from now on.
    fn end_engine(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        let mut counts = CaptureStats::default();
        engine.add_stats(&mut counts);
        self.earlier.events = counts.events;
        self.warn(counts.warnings);
    }

    fn reason_of(&self, error: ReadError) -> StopReason {
        match error {
            ReadError::Gone => StopReason::TargetEnded,
            // An exiting process refuses access before it is gone.
            ReadError::Refused if !sys_linux::exists(self.pid) => StopReason::TargetEnded,
            ReadError::Refused | ReadError::Unmapped { .. } => StopReason::Lost(error.to_string()),
        }
    }

    /// Locates the interpreter after some time without a good sample: the process may run another
    /// program now, or be ending.
    fn relocate(&mut self, now: Nanos, sink: &mut dyn Sink) -> Sampled {
        let since_good = now.saturating_since(self.last_good.0);
        match PythonProcess::open_again(self.pid, &self.path) {
            Ok(python) if self.replaced || python.runtime != self.sampler.runtime() || python.version != self.target.python => {
                self.switch_program(python, now, sink);
                Sampled::Switched
            }
            Err(Error::NoSuchProcess { .. } | Error::Gone { .. }) => Sampled::Ended(StopReason::TargetEnded),
            found => match reason_lost(found.as_ref().err(), self.replaced, since_good) {
                Some(why) => Sampled::Ended(StopReason::Lost(why)),
                None => Sampled::Failed,
            },
        }
    }

    fn switch_program(&mut self, python: PythonProcess, now: Nanos, sink: &mut dyn Sink) {
        self.resolve(now, sink);
        self.warn([format!("the process replaced itself by another program; it runs Python {} since", python.version)]);
        self.warn(python.runtimes_warning.clone());
        self.warn(self.sampler.pauser_warning());
        if let Some(engine) = &mut self.engine {
            engine.switch_program(&python);
        }
        self.earlier.torn += self.sampler.stats.torn;
        self.earlier.shortened += self.sampler.stats.shortened;
        self.earlier.stops.extend(self.sampler.stop_detector.stops());
        self.path.clone_from(&python.path);
        self.target = target_info(&python);
        self.address_space = AddressSpace::open(self.pid, python.runtime);
        self.sampler = Sampler::continued(python, pauser(self.freeze_holder), &self.sampler);
        self.replaced = false;
        self.last_good = (now, self.samples);
    }

    /// Resolves all pending time: the window ends, or the program.
    fn resolve(&mut self, now: Nanos, sink: &mut dyn Sink) {
        match &mut self.engine {
            Some(engine) => engine.finish(&mut self.sampler, now, sink),
            None => self.sampler.finish(now, sink),
        }
    }
}

impl SampleSource for InterpreterSource {
    fn poll_rate(&self, rate_hz: f64) -> f64 {
        rate_hz.min(if self.engine.is_some() { POLL_RATE_HZ } else { f64::INFINITY })
    }

    fn prepare(&mut self, now: Nanos, may_go_on: &dyn Fn() -> bool, sink: &mut dyn Sink) {
        sys_linux::set_timer_slack();
        sys_linux::request_short_timeslice();
        sys_linux::raise_nofile_limit();
        // What goes wrong here the first sample reports.
        let _ = match &mut self.engine {
            Some(engine) => engine.prepare(&mut self.sampler, now, may_go_on, sink),
            None => self.sampler.prepare(now, may_go_on, sink),
        };
        self.last_good.0 = sys_linux::monotonic();
    }

    fn sample(&mut self, now: Nanos, until: Nanos, sink: &mut dyn Sink) -> Sampled {
        let since_good = now.saturating_since(self.last_good.0);
        match self.sample_once(now, until, sink) {
            Ok(SampleOutcome::Complete) => {
                self.last_good = (now, self.samples);
                return Sampled::Complete;
            }
            Ok(SampleOutcome::Failed | SampleOutcome::NoInterpreter) => {}
            Err(e) => return Sampled::Ended(self.reason_of(e)),
        }
        let every = if self.replaced { RELOCATE_PERIOD } else { RELOCATE_AFTER };
        if since_good > every && now.saturating_since(self.relocated_at) > every {
            self.relocated_at = now;
            return self.relocate(now, sink);
        }
        Sampled::Failed
    }

    fn is_idle(&self) -> bool {
        self.engine.is_none() && !self.replaced && self.samples == self.last_good.1 && self.sampler.is_idle()
    }

    fn sample_idle(&mut self, until: Nanos, sink: &mut dyn Sink) {
        self.samples += 1;
        self.sampler.sample_idle(until, sink);
        self.last_good = (until, self.samples);
    }

    fn accounted_until(&self) -> Nanos {
        self.sampler.accounted_until()
    }

    fn finish(&mut self, end: Nanos, sink: &mut dyn Sink) {
        self.resolve(end, sink);
        self.warn(self.sampler.pauser_warning());
        // Which CPUs the threads may use that worked is known only now.
        if let Some(affinity) = self.sampler.working_cpus().count().map(f64::from) {
            self.target.cpus = self.target.quota.map_or(affinity, |quota| quota.min(affinity));
        }
    }

    /// A window that ended while another program had replaced the measured one ended with the
    /// measured program.
    fn correct(&self, reason: StopReason) -> StopReason {
        match reason {
            // A process loses its address space before it ends, which is taken for another program
            // for a moment.
            StopReason::Done if self.replaced && !proc_info::is_running(self.pid) => StopReason::TargetEnded,
            // The end of a command that gilprof started may be known before a sample fails.
            StopReason::Stopped if !proc_info::is_running(self.pid) => StopReason::TargetEnded,
            StopReason::Done | StopReason::Stopped if self.replaced => {
                StopReason::Lost("the process replaced itself by another program".into())
            }
            other => other,
        }
    }

    fn target(&self) -> TargetInfo {
        let stats = &self.sampler.stats;
        TargetInfo {
            interpreters: stats.interpreters.max(self.target.interpreters),
            switch_interval_us: stats.interval_us,
            gil_enabled: stats.gil_enabled,
            ..self.target.clone()
        }
    }

    fn fill_stats(&self, stats: &mut CaptureStats) {
        let earlier = &self.earlier;
        stats.counts.torn = earlier.torn + self.sampler.stats.torn;
        stats.kernel_stacks = Some(kernel_stack::proven());
        stats.switch_counts = !kernel_stack::readable() && threads::switch_counts_are_usable();
        stats.stops = earlier.stops.iter().cloned().chain(self.sampler.stop_detector.stops()).collect();
        stats.events = earlier.events;
        stats.engine_reason.clone_from(&self.engine_reason);
        stats.warnings.clone_from(&self.warnings);
        let shortened = earlier.shortened + self.sampler.stats.shortened;
        if shortened > 0 {
            stats.warnings.push(format!(
                "{shortened} stacks were too deep to be read whole at this rate; frames in their middle are left out (to read them, lower --rate)"
            ));
        }
        if let Some(engine) = &self.engine {
            engine.add_stats(stats);
        }
    }
}

/// Why the window ends after this time without a good sample; `None`: it does not end yet. `error`:
/// the search for an interpreter failed. `replaced`: another program replaced the measured one.
fn reason_lost(error: Option<&Error>, replaced: bool, since_good: Nanos) -> Option<String> {
    match error {
        Some(Error::NotPython { what, .. }) if replaced && since_good > EXEC_GRACE => {
            Some(format!("the process replaced itself by {what}, which is not Python"))
        }
        _ if since_good <= GIVE_UP_AFTER => None,
        Some(Error::NotPython { .. }) => Some("the program unloaded its Python".into()),
        Some(Error::NotReady { .. }) if replaced => {
            Some("the process replaced itself by another Python, which has not created its interpreter".into())
        }
        Some(Error::NotReady { .. }) => Some("the program ended its interpreter, but not itself".into()),
        _ => Some("its interpreter could no longer be read".into()),
    }
}

/// A pauser for the program that the process runs now, if the user asked for it.
pub fn pauser(freeze_holder: bool) -> Option<Box<dyn ThreadPauser>> {
    freeze_holder.then(|| -> Box<dyn ThreadPauser> { Box::new(PtracePauser::default()) })
}

/// What is known of a target before the first sample.
pub fn target_info(python: &PythonProcess) -> TargetInfo {
    let limits = proc_info::CpuLimits::from_pid(python.pid);
    TargetInfo {
        pid: python.pid.0,
        parent: proc_info::parent(python.pid).map(|parent| parent.0),
        python: python.version.clone(),
        executable: proc_info::exe(python.pid).unwrap_or_default(),
        command: proc_info::command(python.pid),
        free_threaded: python.free_threaded,
        gil_enabled: true,
        interpreters: 1,
        cpus: limits.cpus(),
        quota: limits.quota,
        machine_cpus: limits.machine,
        switch_interval_us: None,
    }
}

#[cfg(test)]
mod tests;
