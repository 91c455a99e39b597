//! Threads that have several thread states, one in each interpreter that they run.
//!
//! A thread that runs a subinterpreter has a thread state there and one in the interpreter that it
//! came from. gilprof attributes the thread to one of them at a time: the one that holds a GIL,
//! else the one whose GIL the thread waits for, else the one before.
//!
//! Folklore: up to 3.12, `_xxsubinterpreters.run_string` runs an interpreter under the thread state
//! of the thread that *made* the interpreter, with that thread's ids in it. gilprof detects such a
//! foreign thread state when it holds the GIL while the thread that it names sleeps in the kernel.
//! If exactly one other Python thread is runnable, that thread runs under it.

use super::thread_reader::ThreadReader;
use crate::ids::{Addr, Tid};
use crate::python::interpreters::{RuntimeState, ThreadState};
use crate::python::layout::Minor;
use std::collections::HashMap;

/// From this version a thread state always carries the ids of the thread that runs under it.
const IDS_RELIABLE_SINCE: Minor = Minor(3, 13);

/// A thread state and the thread that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadStateBinding {
    /// Index of the thread in the sampler's list.
    pub thread: usize,
    /// The thread's `PyThreadState` in this interpreter.
    pub tstate: Addr,
    /// `pthread_self()`, from the thread state.
    pub pthread: u64,
    /// The interpreter's GIL.
    pub gil: Addr,
    interpreter: usize,
}

impl ThreadStateBinding {
    /// The binding of `state`, one of `runtime_state`'s, to the thread at index `thread`.
    pub fn new(thread: usize, state: &ThreadState, runtime_state: &RuntimeState) -> ThreadStateBinding {
        let gil = runtime_state.interpreters.get(state.interpreter).map_or(Addr(0), |i| i.gil);
        ThreadStateBinding { thread, tstate: state.at, pthread: state.pthread, gil, interpreter: state.interpreter }
    }
}

/// The bindings of all threads that more than one thread state names.
#[derive(Debug, Default)]
pub struct ThreadStateBindings {
    all: Vec<ThreadStateBinding>,
    /// Thread states that run on another thread than the one that they name.
    foreign: HashMap<Addr, Tid>,
}

impl ThreadStateBindings {
    /// Replaces all bindings by `bindings`, oldest thread state first. Returns true if two thread
    /// states of one interpreter name the same thread. That does not last: one of them was just
    /// made and still carries its maker's ids.
    pub fn rebuild(&mut self, bindings: Vec<ThreadStateBinding>) -> bool {
        let mut of_thread: HashMap<usize, (usize, usize)> = HashMap::new();
        let mut just_made = false;
        for binding in &bindings {
            let (count, interpreter) = of_thread.entry(binding.thread).or_insert((0, binding.interpreter));
            just_made |= *count > 0 && *interpreter == binding.interpreter;
            *count += 1;
        }
        self.all = bindings;
        self.all.retain(|binding| of_thread.get(&binding.thread).is_some_and(|(count, _)| *count > 1));
        just_made
    }

    /// Drops foreign thread states that no longer exist, because their addresses may be reused.
    pub fn retain_foreign(&mut self, runtime_state: &RuntimeState) {
        self.foreign.retain(|at, _| runtime_state.threads.iter().any(|t| t.at == *at));
    }

    /// The thread that a foreign thread state runs on; `None` for a thread state that is not known
    /// to be foreign.
    pub fn foreign(&self, tstate: Addr) -> Option<Tid> {
        self.foreign.get(&tstate).copied()
    }

    /// Whether thread states of this version may run on another thread than the one that they name.
    pub fn may_be_foreign(&self, minor: Minor) -> bool {
        minor < IDS_RELIABLE_SINCE && !self.all.is_empty()
    }

    /// Checks whether the thread state `holder` is foreign: it holds the GIL, and the thread that
    /// it names sleeps in a system call. (A thread that holds the GIL may be stopped, and it may
    /// wait for a page.) If one other thread alone is runnable, `holder` is noted as running on
    /// that thread. Returns another binding of the sleeping thread, which that thread is to be
    /// attributed to.
    pub fn resolve_foreign_holder(&mut self, holder: Addr, threads: &[ThreadReader]) -> Option<ThreadStateBinding> {
        let binding = self.for_state(holder).filter(|binding| threads.get(binding.thread).is_some_and(ThreadReader::sleeps_in_syscall))?;
        let mut running = threads.iter().filter(|t| !t.tstate.is_null() && t.tstate != holder && t.is_runnable()).map(|t| t.info.tid);
        let first = running.next()?;
        if running.next().is_none() {
            self.foreign.insert(holder, first);
        }
        self.for_thread(binding.thread).find(|other| other.tstate != holder).copied()
    }

    /// Drops all bindings, because the indices of threads have changed.
    pub fn clear(&mut self) {
        self.all.clear();
    }

    /// The bindings of a thread with several thread states, oldest first; none for a thread with
    /// one.
    pub fn for_thread(&self, thread: usize) -> impl DoubleEndedIterator<Item = &ThreadStateBinding> {
        self.all.iter().filter(move |binding| binding.thread == thread)
    }

    /// The binding of a thread state whose thread has several.
    pub fn for_state(&self, tstate: Addr) -> Option<ThreadStateBinding> {
        self.all.iter().find(|binding| binding.tstate == tstate).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::thread_reader::PollHints;
    use crate::estimate::state_machine::ThreadStateMachine;
    use crate::ids::ThreadId;
    use crate::process::c_library::Abi;
    use crate::process::memory_dump::{DumpHead, DumpedTask};
    use crate::process::replay::{ReplayMemory, ReplayTarget};
    use crate::python::gil_waits::FutexOwner;
    use crate::sample::{Stack, ThreadInfo};
    use crate::units::Nanos;
    use std::sync::Arc;

    fn binding(thread: usize, tstate: u64, interpreter: usize) -> ThreadStateBinding {
        ThreadStateBinding { thread, tstate: Addr(tstate), pthread: 1, gil: Addr(9), interpreter }
    }

    #[test]
    fn only_threads_with_several_thread_states_have_bindings() {
        let mut bindings = ThreadStateBindings::default();
        assert!(!bindings.rebuild(vec![binding(0, 10, 1), binding(1, 11, 1), binding(0, 12, 0)]));
        assert_eq!(bindings.for_thread(0).map(|b| b.tstate).collect::<Vec<_>>(), [Addr(10), Addr(12)]);
        assert_eq!(
            (bindings.for_thread(1).count(), bindings.for_state(Addr(11)), bindings.for_state(Addr(12))),
            (0, None, Some(binding(0, 12, 0)))
        );
        assert!(bindings.rebuild(vec![binding(0, 10, 1), binding(0, 12, 1)]), "a new thread state in the same interpreter");
    }

    /// Threads at these places, each with the thread state of its number.
    fn threads(places: &[&str]) -> Vec<ThreadReader> {
        let task = |n: usize, place: &str| DumpedTask { tid: n as i32, syscall: Some(place.into()), ..DumpedTask::default() };
        let tasks = places.iter().enumerate().map(|(n, place)| task(n, place)).collect();
        let head = DumpHead { schema: String::new(), pid: 0, python: String::new(), abi: Abi::default(), runtime: 0, threads: tasks };
        let target = ReplayTarget { head, memory: ReplayMemory::new() };
        let thread = |n: usize| {
            let info = ThreadInfo { id: ThreadId(n as u32), tid: Tid(n as i32), name: String::new(), python: true, main: false, gil: None };
            let mut thread = ThreadReader::open(&target, info, Nanos::ZERO, None, &Arc::new(Stack::empty())).reader;
            let history = ThreadStateMachine::new(Nanos::ZERO, None, false);
            thread.bind_to(Addr(n as u64), 1, (Addr(9), None));
            thread.poll(&target, &history, PollHints::default(), |_| FutexOwner::Other).unwrap();
            thread
        };
        (0..places.len()).map(thread).collect()
    }

    #[test]
    fn a_holder_that_is_stopped_or_waits_for_a_page_is_not_foreign() {
        let (asleep, nowhere) = ("0 0x3 0x1 0x1 0x0 0x0 0x0 0x7ffd 0x7f00\n", "-1 0x7ffd 0x7f00\n");
        let foreign = |place: &str, stopped: bool| {
            let mut bindings = ThreadStateBindings::default();
            bindings.rebuild(vec![binding(0, 0, 1), binding(0, 12, 0)]);
            let mut threads = threads(&[place, "running\n"]);
            if stopped {
                threads[0].mark_stopped();
            }
            (bindings.resolve_foreign_holder(Addr(0), &threads).map(|other| other.tstate), bindings.foreign(Addr(0)))
        };
        assert_eq!(foreign(asleep, false), (Some(Addr(12)), Some(Tid(1))));
        assert_eq!(foreign(asleep, true), (None, None));
        assert_eq!(foreign(nowhere, false), (None, None));
    }
}
