//! The diagnoses of a service, by what they are about.

pub(super) mod cores;
pub(super) mod of_processes;
pub(super) mod roles;
pub(super) mod unmeasured;
pub(super) mod workers;

use super::figures::{ServiceFigures, Slot};
use crate::analysis::report::{Code, Estimate};

/// Threads that wait for a GIL on average, in one process, from which its GIL limits it.
const LIMITS: f64 = 0.3;
/// Lower end of a gain from which more workers are worth proposing.
const WORTH_IT: f64 = 1.1;
/// Processes that one sentence names.
const NAMED: usize = 4;

/// A diagnosis of the service.
#[derive(Debug)]
pub(in crate::analysis::service) struct ServiceDiagnosis {
    pub(in crate::analysis::service) code: Code,
    pub(in crate::analysis::service) headline: String,
    pub(in crate::analysis::service) because: Vec<String>,
    pub(in crate::analysis::service) next_steps: Vec<(String, Vec<String>)>,
    /// What more workers would do.
    pub(in crate::analysis::service) gain: Option<Estimate>,
    /// Whether nothing can be predicted.
    pub(in crate::analysis::service) refused: bool,
}

impl ServiceDiagnosis {
    pub(in crate::analysis::service) fn new(code: Code, headline: impl Into<String>) -> ServiceDiagnosis {
        ServiceDiagnosis { code, headline: headline.into(), because: Vec::new(), next_steps: Vec::new(), gain: None, refused: false }
    }

    pub(in crate::analysis::service) fn because(mut self, fact: impl Into<String>) -> ServiceDiagnosis {
        self.because.push(fact.into());
        self
    }

    pub(in crate::analysis::service) fn next_step(mut self, step: impl Into<String>) -> ServiceDiagnosis {
        self.next_steps.push((step.into(), Vec::new()));
        self
    }

    pub(in crate::analysis::service) fn with_gain(self, gain: Estimate) -> ServiceDiagnosis {
        ServiceDiagnosis { gain: Some(gain), ..self }
    }

    pub(in crate::analysis::service) fn refused(self) -> ServiceDiagnosis {
        ServiceDiagnosis { refused: true, ..self }
    }
}

/// "4 workers", "worker 4243".
fn count(e: &ServiceFigures<'_>, slots: &[&Slot]) -> String {
    match slots {
        [one] => format!("worker {}", e.pid(one)),
        all => format!("{} workers", all.len()),
    }
}

/// "4243, 4244 and 2 more".
fn pids(e: &ServiceFigures<'_>, slots: &[&Slot]) -> String {
    let named: Vec<String> = slots.iter().take(NAMED).map(|slot| e.pid(slot).to_string()).collect();
    match slots.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// The verdict on one process as that on the service, which begins with why.
fn of_process(e: &ServiceFigures<'_>, member: usize, why: String) -> ServiceDiagnosis {
    let verdict = &e.members[member].report.verdict;
    let mut diagnosis = ServiceDiagnosis::new(verdict.code, verdict.headline.clone()).because(why);
    diagnosis.because.extend(verdict.because.iter().cloned());
    diagnosis.next_steps = verdict.next_steps.iter().enumerate().map(|(n, step)| (step.clone(), verdict.sketch_of(n).to_vec())).collect();
    diagnosis.gain = verdict.speedup.processes;
    diagnosis.refused = verdict.speedup.processes.is_none();
    diagnosis
}
