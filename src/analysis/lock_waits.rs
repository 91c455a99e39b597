//! Waits of working threads for locks other than the GIL: where, whose lock it is, and what its
//! owner does.
//!
//! A sample shows that a thread sleeps on a futex, and in which Python function and line. It does
//! not show the owner. The owner of a lock that is taken in a function is in that function too, or
//! below it, until it releases the lock. A lock that is always waited for is always owned, so if
//! other threads are there for too little time, threads wait for work and not for a lock.
//!
//! A lock of Python code is taken in one line and held in others. If the threads that wait and
//! those that compute without the GIL, or would if they had a core, are on one line, the lock is
//! inside the C code that the line calls.

use super::phrases::named;
use super::report::Place;
use crate::profile::{FunctionId, Profile, StackId, StackTime, NO_PYTHON};
use crate::sample::{Frame, State, StateTimes};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// Files of the standard library in which a thread on a lock waits for work, for a result or for
/// the end of another thread, so that there is no contention.
const IDLE_WAIT_FILES: [&str; 7] = [
    "/threading.py",
    "/queue.py",
    "/concurrent/futures/thread.py",
    "/concurrent/futures/process.py",
    "/concurrent/futures/_base.py",
    "/multiprocessing/pool.py",
    "/multiprocessing/queues.py",
];
/// Functions of installed packages in which a thread waits for work or for a result.
const IDLE_WAITS: [&str; 6] = ["get", "poll", "wait", "join", "result", "consume"];
/// Functions that only take a lock for their caller.
const ACQUIRE: [&str; 6] = ["acquire", "_acquire", "acquire_lock", "_acquireLock", "lock", "__enter__"];
/// Share of its time from which a thread counts as waiting.
const WAITER_SHARE: f64 = 0.05;
/// Most places at which locks are examined.
const EXAMINED: usize = 4;
/// Part of the time in which a thread waits for a lock, for which the lock must have been owned.
const OWNED: f64 = 0.8;
/// Threads in a function below which its owner is unknown: the lock may be held elsewhere.
const KNOWN: f64 = 0.02;
/// Share of the owner's time from which a sentence names its function, and a line is that of C code
/// with a lock in it.
const MOSTLY: f64 = 0.5;

/// Waits of working threads for other locks, except where threads wait for work.
#[derive(Default)]
pub(super) struct LockWaits {
    /// Thread-seconds per second.
    pub(super) rate: f64,
    pub(super) threads: usize,
    /// The lock with the most waiting.
    pub(super) worst: Option<Lock>,
    /// The lock inside a library's C code with the most waiting, with its thread-seconds per
    /// second.
    pub(super) in_library: Option<(f64, Lock)>,
}

/// A lock, by the place at which threads wait for it.
#[derive(Clone)]
pub(super) struct Lock {
    pub(super) place: Place,
    pub(super) line: u32,
    pub(super) kind: LockKind,
    /// What the owner does for most of the time. `None` if that is not known.
    pub(super) owner: Option<Owner>,
}

/// Whose lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockKind {
    /// A handler's lock of the standard library's logging.
    Logging,
    /// The lock of a module that is being imported.
    Import,
    /// Inside the C code that the line calls.
    InCCode,
    /// Of Python code.
    Python,
}

/// Where the owner of a lock is.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) place: Place,
    pub(super) line: u32,
    pub(super) state: State,
}

/// A place at which threads wait for a lock.
struct Site {
    key: (FunctionId, u32),
    nanos: f64,
    threads: usize,
    /// The stack with the most of it.
    stack: StackId,
}

impl LockWaits {
    /// The waits of a profile.
    pub(super) fn of(profile: &Profile) -> LockWaits {
        let seconds = profile.seconds();
        if seconds <= 0.0 {
            return LockWaits::default();
        }
        let (mut out, mut queues) = (LockWaits::default(), Vec::new());
        for site in sites(profile).iter().take(EXAMINED) {
            let (lock, owned) = examine(profile, site);
            let rate = site.nanos / 1e9 / seconds;
            if (KNOWN..OWNED * rate / site.threads.max(1) as f64).contains(&owned) {
                queues.push(site.key);
                continue;
            }
            if lock.kind == LockKind::InCCode && out.in_library.is_none() {
                out.in_library = Some((rate, lock.clone()));
            }
            out.worst.get_or_insert(lock);
        }
        let mut threads: FxHashMap<usize, f64> = FxHashMap::default();
        for row in waits(profile).filter(|row| !queues.contains(&key(profile, row))) {
            *threads.entry(row.thread).or_default() += row.times.get(State::Lock) / 1e9;
        }
        out.rate = threads.values().sum::<f64>() / seconds;
        out.threads = threads.values().filter(|waited| **waited >= WAITER_SHARE * seconds).count();
        out
    }
}

/// The rows with waits for locks that may cost time.
fn waits(profile: &Profile) -> impl Iterator<Item = &StackTime> {
    profile.stack_times.iter().filter(|row| row.times.get(State::Lock) > 0.0 && works(profile, row.thread) && !waits_for_work(profile, row))
}

/// Whether a thread does anything besides sleeping. A thread that never does is unused rather than
/// delayed by a lock. A few samples are enough: a thread may wait milliseconds for a lock and work
/// microseconds with it.
fn works(profile: &Profile, thread: usize) -> bool {
    let times = &profile.threads[thread].times;
    times.holding() + times.get(State::Native) + times.get(State::Waiting) > 0.0005 * times.total()
}

/// Whether a thread waits for work by its innermost function. Threads without Python are a
/// library's own, and wait for its calls.
fn waits_for_work(profile: &Profile, row: &StackTime) -> bool {
    let leaf = profile.leaf(row.stack);
    let function = profile.function(leaf);
    let name = function.name.rsplit('.').next().unwrap_or_default();
    let installed = || ["/site-packages/", "/dist-packages/"].iter().any(|part| function.file.contains(part));
    leaf == NO_PYTHON || IDLE_WAIT_FILES.iter().any(|end| function.file.ends_with(end)) || IDLE_WAITS.contains(&name) && installed()
}

/// The innermost function of a row, and its line.
fn key(profile: &Profile, row: &StackTime) -> (FunctionId, u32) {
    (profile.leaf(row.stack), profile.stack(row.stack).leaf().map_or(0, |leaf| leaf.line))
}

/// The places with waits, those with the most first.
fn sites(profile: &Profile) -> Vec<Site> {
    let mut sites: FxHashMap<(FunctionId, u32), (Site, f64)> = FxHashMap::default();
    let mut threads: FxHashSet<((FunctionId, u32), usize)> = FxHashSet::default();
    for row in waits(profile) {
        let (key, nanos) = (key(profile, row), row.times.get(State::Lock));
        let new = || (Site { key, nanos: 0.0, threads: 0, stack: row.stack }, 0.0);
        let (site, most) = sites.entry(key).or_insert_with(new);
        site.nanos += nanos;
        site.threads += usize::from(threads.insert((key, row.thread)));
        if nanos > *most {
            (*most, site.stack) = (nanos, row.stack);
        }
    }
    let mut sites: Vec<Site> = sites.into_values().map(|(site, _)| site).collect();
    sites.sort_by(|a, b| b.nanos.total_cmp(&a.nanos).then(a.key.cmp(&b.key)));
    sites
}

/// The lock at a place, and the average number of threads that may own it.
fn examine(profile: &Profile, site: &Site) -> (Lock, f64) {
    let place = named(profile.function(site.key.0));
    let takes = |frame: &&Frame| ACQUIRE.contains(&frame.function.name.rsplit('.').next().unwrap_or_default());
    let frames = &profile.stack(site.stack).frames;
    let taker = frames.iter().rev().find(|frame| !takes(frame)).or(frames.last()).map(|frame| &frame.function);
    let (mut owners, mut all, mut same_line): (FxHashMap<(FunctionId, u32), StateTimes>, f64, f64) = Default::default();
    for row in &profile.stack_times {
        let inside = |frame: &Frame| taker.is_some_and(|taker| Arc::ptr_eq(&frame.function, taker));
        if !profile.stack(row.stack).frames.iter().any(inside) {
            continue;
        }
        let key = key(profile, row);
        let mut times = row.times;
        times.add(State::Unknown, -times.get(State::Unknown));
        if key == site.key {
            times.add(State::Lock, -times.get(State::Lock));
            // On the line of a lock of Python code a thread may lack a core, but does not compute.
            same_line += times.get(State::Native) + times.get(State::Starved).min(times.get(State::Native));
        }
        all += times.total();
        owners.entry(key).or_default().merge(&times);
    }
    let kind = match place.file.as_str() {
        file if file.ends_with("/logging/__init__.py") => LockKind::Logging,
        file if file.contains("importlib._bootstrap") || file.ends_with("/importlib/_bootstrap.py") => LockKind::Import,
        _ if same_line > MOSTLY * all => LockKind::InCCode,
        _ => LockKind::Python,
    };
    let owned = all / 1e9 / profile.seconds();
    let most = owners.into_iter().max_by(|a, b| a.1.total().total_cmp(&b.1.total()).then(b.0.cmp(&a.0)));
    let owner = most.filter(|(_, times)| owned >= KNOWN && times.total() > MOSTLY * all).map(|((function, line), times)| {
        let state = State::ALL.into_iter().max_by(|a, b| times.get(*a).total_cmp(&times.get(*b))).unwrap_or(State::Unknown);
        Owner { place: named(profile.function(function)), line, state }
    });
    (Lock { place, line: site.key.1, kind, owner }, owned)
}

#[cfg(test)]
mod tests {
    use super::{LockKind, LockWaits};
    use crate::analysis::testing::Scene;

    /// Whose lock it is for which four of five threads wait, while the other is in one of `owner`.
    fn kind(owner: [&'static str; 2]) -> Option<LockKind> {
        let profile = Scene::new(2.0).run(3000, |t| {
            let mut all = vec!["L update"; 5];
            all[(t / 3 % 5) as usize] = if t.is_multiple_of(20) { "P main" } else { owner[(t % 2) as usize] };
            all
        });
        LockWaits::of(&profile).worst.map(|lock| lock.kind)
    }

    #[test]
    fn a_thread_without_a_core_on_the_line_of_a_lock_shows_c_code_only_beside_one_that_computes_there() {
        assert_eq!(kind(["S update", "P update>add"]), Some(LockKind::Python));
        assert_eq!(kind(["S update", "N update"]), Some(LockKind::InCCode));
    }
}
