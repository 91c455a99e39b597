//! What other numbers of workers and threads would do, by the model of `scaling`.

use super::figures::ServiceFigures;
use crate::analysis::bootstrap::Bootstrap;
use crate::analysis::report::{Estimate, ProcessRole, WhatIf};
use crate::analysis::scaling::workers::{Today, Workers};
use crate::analysis::scaling::NO_CHANGE;
use crate::analysis::what_if::{self, Question};

/// Most workers that are proposed.
const MAX_WORKERS: usize = 64;
/// Share of the best gain from which fewer workers are as good.
const AS_GOOD: f64 = 0.95;

/// Numbers of workers and threads that would do more work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposal {
    pub(super) today: Today,
    pub(super) workers: usize,
    /// Of each worker.
    pub(super) threads: usize,
    pub(super) gain: Estimate,
}

/// The worker that each thread is of; `None` for threads of other slots.
fn of_slots(e: &ServiceFigures<'_>, slots: &[usize]) -> Vec<Option<usize>> {
    e.times.threads.iter().map(|thread| Some(thread.slot).filter(|slot| slots.contains(slot))).collect()
}

/// The threads of these slots in more workers: the fewest that gain nearly as much as any number.
/// `None` where each worker has one thread already.
pub(super) fn more_workers(e: &ServiceFigures<'_>, slots: &[usize]) -> Option<Proposal> {
    let case = |workers, threads| Workers { of: of_slots(e, slots), workers: Some(workers), threads: Some(threads), cores: None };
    let today = case(1, 1).today(&e.whole);
    let most = today.threads.min(MAX_WORKERS);
    let even = (today.workers + 1..=most).filter(|workers| today.threads.is_multiple_of(*workers));
    let mut numbers: Vec<(usize, usize)> = even.map(|workers| (workers, today.threads / workers)).collect();
    if numbers.is_empty() && most > today.workers {
        numbers.push((most, today.threads.div_ceil(most)));
    }
    let gain = |&(workers, threads): &(usize, usize)| case(workers, threads).gain(&e.whole, &e.program).map_or(1.0, |gain| gain.estimate);
    let best = numbers.iter().map(gain).fold(0.0, f64::max);
    let (workers, threads) = numbers.iter().copied().find(|numbers| gain(numbers) >= AS_GOOD * best)?;
    Some(Proposal { today, workers, threads, gain: predict(e, &case(workers, threads))? })
}

/// The gain with its interval; `None` if the workers do no work.
fn predict(e: &ServiceFigures<'_>, case: &Workers) -> Option<Estimate> {
    let measure = |blocks: &[usize]| case.gain(&e.times.rates(blocks), &e.program);
    let drawn = Bootstrap::of_blocks(e.times.blocks(), e.times.threads.len(), measure);
    (*drawn.whole())?;
    Some(drawn.prediction(|gain| gain.unwrap_or(NO_CHANGE)))
}

/// The answer to a question about the service; without a gain if the verdict refuses predictions.
pub(super) fn answer(e: &ServiceFigures<'_>, question: &Question, refused: bool) -> WhatIf {
    let none = |why: &str| WhatIf { question: question.text.clone(), gain: None, note: why.to_string() };
    if refused {
        return none("not predicted: the verdict says why");
    }
    let of_role = |role| (0..e.slots.len()).filter(|slot| e.slots[*slot].role == role).collect::<Vec<usize>>();
    let slots = of_role(ProcessRole::Worker);
    let case = what_if::workers(&of_slots(e, &slots), question);
    match predict(e, &case) {
        None => none("no thread of a worker does any work"),
        Some(gain) => {
            let today = case.today(&e.whole);
            let note = format!(
                "the work of all workers, of which there are {} with {} working threads now; what moves between processes is not counted",
                today.workers, today.threads
            );
            WhatIf { question: question.text.clone(), gain: Some(gain), note }
        }
    }
}
