//! One process of the service, with its report.

use crate::analysis::report::{ProcessRole, Report};
use crate::profile::Profile;

/// Share of its time from which a thread uses the GIL.
const USES: f64 = 0.01;

/// One process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    pub(super) profile: &'a Profile,
    pub(super) report: &'a Report,
    pub(super) role: ProcessRole,
}

impl Member<'_> {
    /// The share of the service's window for which it was measured.
    pub(super) fn presence(&self, seconds: f64) -> f64 {
        if seconds > 0.0 {
            (self.profile.seconds() / seconds).min(1.0)
        } else {
            1.0
        }
    }

    /// Its CPU time: from the kernel where it is known, else from the states.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let own = self.profile.window.descendants.as_ref().map(|cpu| cpu.own.as_secs_f64());
        own.filter(|own| *own > 0.0).unwrap_or_else(|| self.report.threads.iter().map(|thread| thread.cpu * thread.seconds).sum())
    }

    /// Seconds for which threads waited that use the GIL, and the seconds of those threads.
    pub(super) fn waiting(&self) -> (f64, f64) {
        let uses = self.report.threads.iter().filter(|thread| thread.states.holding + thread.states.waiting >= USES);
        uses.fold((0.0, 0.0), |(waited, of), thread| (waited + thread.seconds * thread.states.waiting, of + thread.seconds))
    }
}
