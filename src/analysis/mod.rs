//! What the numbers mean: shares, contention, prediction, verdict. Pure functions over a profile;
//! nothing here prints.
//!
//! `shares`, `contention`, `functions` and `blame` are arithmetic with definitions. `own_code`
//! knows whose code a function is, `callers` who calls it, `shape` how it was started. `scaling`
//! predicts. `bootstrap` gives an interval to every figure that a rule uses, `ratio_estimator` to
//! every figure that is measured in buckets. `what_if` answers one case with the same model as
//! `scaling`. `rule_input` gathers all of these, each file of `rules` makes one diagnosis, and
//! `verdict` has their order. `service` does for several processes what the rest does for one.

mod blame;
mod bootstrap;
mod callers;
mod children;
mod code;
mod collector;
pub mod compare;
mod contention;
pub mod file_names;
mod functions;
mod lock_waits;
pub mod name_pattern;
pub mod own_code;
mod phrases;
mod place_names;
pub mod ratio_estimator;
pub mod report;
mod rule_input;
mod rules;
mod scaling;
pub mod service;
mod shape;
mod shares;
mod verdict;
pub mod what_if;

#[cfg(test)]
mod invariants;
#[cfg(test)]
mod sentences;
#[cfg(test)]
mod testing;

use crate::profile::{Profile, StackTime, NO_PYTHON};
use crate::sample::{Function, Resolver, Stop};
use report::{Engine, Report, Target, Window, SCHEMA};

/// The report of a profile.
pub fn report(profile: &Profile) -> Report {
    report_with(profile, &[])
}

/// The report of a profile, with answers to `--what-if` questions.
pub fn report_with(profile: &Profile, questions: &[what_if::Question]) -> Report {
    report_of(profile, questions, false)
}

/// The report of a process beside which the other processes of its service were measured too: it
/// does not advise to measure them, and does not take them for other programs.
pub fn report_in_service(profile: &Profile, questions: &[what_if::Question]) -> Report {
    report_of(profile, questions, true)
}

fn report_of(profile: &Profile, questions: &[what_if::Question], in_service: bool) -> Report {
    let mut gils = contention::gils(profile);
    let gil = contention::most_contended(&gils);
    if gils.len() < 2 {
        gils.clear();
    }
    let threads = shares::threads(profile);
    let functions = functions::rows(profile);
    let mut input = rule_input::RuleInput::new(profile, &gil, &threads, &functions);
    let children = input.children.clone();
    if in_service {
        input.set_in_service();
    }
    let (verdict, findings) = verdict::decide(&input);
    let refused = verdict.speedup.processes.is_none();
    let what_if = questions.iter().map(|question| what_if::answer(&input, question, refused)).collect();
    Report {
        schema: SCHEMA,
        gilprof: env!("CARGO_PKG_VERSION"),
        target: target(profile),
        window: window(profile),
        gil,
        gils,
        threads,
        blame: blame::rows(profile, &functions),
        functions: functions::largest(functions),
        children,
        verdict,
        findings,
        what_if,
        warnings: warnings(profile),
    }
}

fn target(profile: &Profile) -> Target {
    let t = profile.target.clone();
    Target {
        pid: t.pid,
        parent: t.parent,
        role: None,
        python: t.python,
        executable: t.executable,
        command: t.command,
        free_threaded: t.free_threaded,
        gil_enabled: t.gil_enabled,
        interpreters: t.interpreters,
        cpus: t.cpus,
        switch_interval_us: t.switch_interval_us,
    }
}

fn window(profile: &Profile) -> Window {
    let w = &profile.window;
    Window {
        begin_ns: w.begin.as_nanos(),
        seconds: profile.seconds(),
        rate_hz: w.rate_hz,
        samples: w.counts.samples,
        missed: w.counts.missed,
        torn: w.counts.torn,
        failed: w.counts.failed,
        stopped_seconds: Some(profile.stopped_seconds()).filter(|seconds| *seconds > 0.0),
        profiler_cpu: w.profiler_cpu,
        idle_cpus: w.idle_cpus,
        exact: w.exact,
        engine: if w.kernel_engine { Engine::Kernel } else { Engine::Samples },
        engine_reason: w.engine_reason.clone(),
        resolver: w.kernel_stacks.map(|shown| match shown {
            _ if w.kernel_engine => Resolver::Events,
            true => Resolver::KernelStack,
            false if w.switch_counts => Resolver::SwitchCounts,
            false => Resolver::CpuTime,
        }),
        events: w.exact.then_some(w.events.events),
        lost_events: w.events.lost_events.filter(|_| w.exact),
    }
}

/// Share of the time in Python functions from which unreadable names get a warning.
const UNREADABLE: f64 = 0.5;

/// The warnings of the capture side, one for each table that was too small, one for names that
/// cannot be read, and one for child processes of unknown kind.
fn warnings(profile: &Profile) -> Vec<String> {
    let l = profile.losses;
    let lost = [
        (l.functions, "frames are counted under \"(other functions)\", because the program has more functions than gilprof keeps"),
        (
            l.stacks,
            "slices of time are counted under \"(other functions)\" in stacks, because the program has more stacks than gilprof keeps",
        ),
        (l.threads, "slices of time are counted under \"(other threads)\", because the program has more threads than gilprof keeps"),
        (l.blame, "waits are counted under \"(other functions)\" in blame, because there are more pairs of functions than gilprof keeps"),
        (l.invalid, "slices of time had invalid parts, which were left out"),
    ];
    let losses = lost.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}."));
    let stops = profile.window.stops.iter().map(stop_warning);
    let unknown = children::of(profile).and_then(|children| children.unknown_warning());
    profile.window.warnings.iter().cloned().chain(stops).chain(losses).chain(unreadable_warning(profile)).chain(unknown).collect()
}

fn stop_warning(stop: &Stop) -> String {
    let Stop { cause, seconds } = stop;
    if *seconds > 0.0 {
        format!("the program stood still for {seconds:.2} s, {cause}; the states of its threads in that time are unknown")
    } else {
        format!("threads of the program were now and then {cause}; their states in that time are unknown")
    }
}

/// A build that keeps its objects in another way gives states, and no names.
fn unreadable_warning(profile: &Profile) -> Option<String> {
    let in_python = || profile.stack_times.iter().filter(|row| profile.leaf(row.stack) != NO_PYTHON);
    let is_unreadable = |row: &&StackTime| profile.function(profile.leaf(row.stack)).name == Function::UNREADABLE;
    let total: f64 = in_python().map(|row| row.times.total()).sum();
    let share = in_python().filter(is_unreadable).map(|row| row.times.total()).sum::<f64>() / total.max(1.0);
    (share > UNREADABLE).then(|| {
        format!(
            "the names of functions could not be read in {:.0} % of the time: this Python was built with options that gilprof does not \
             know, or its memory is damaged; the states of threads do not depend on names.",
            share * 100.0
        )
    })
}
