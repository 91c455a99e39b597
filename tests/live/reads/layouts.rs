//! The tables of `python::layout` on live interpreters: a reader of this test's own follows them
//! through two idle threads.

mod reader;

use crate::harness::Suite;
use crate::on;
use crate::support::layout_probe::LayoutProbe;
use crate::support::{interpreters, Interpreter};
use gilprof::process::memory::Memory;
use reader::asleep_in_read;

/// The checks of this file, and their interpreters.
pub fn cases(suite: &mut Suite) {
    on!(suite, interpreters(), [live_interpreters_match_the_tables]);
    on!(suite, interpreters().into_iter().filter(|i| i.minor() >= (3, 13)), [drop_requests_are_in_the_eval_breaker]);
}

fn live_interpreters_match_the_tables(interpreter: &Interpreter) {
    eprintln!("{}", interpreter.label);
    let target = LayoutProbe::start(interpreter, "resting");
    asleep_in_read(target.target.pid());
    the_runtime_is_ready(&target);
    the_gil_is_at_rest(&target);
    the_threads_are_the_kernels(&target);
    the_stacks_are_known(&target);
    the_names_are_found(&target);
}

fn the_runtime_is_ready(t: &LayoutProbe) {
    let runtime = t.layout.runtime;
    assert_eq!(t.ptr(t.runtime, runtime.interpreters_head), t.ptr(t.runtime, runtime.interpreters_main));
    assert!(t.ptr(t.interpreter, t.layout.interpreter.next).is_null());
    let (of_interpreter, of_runtime) = (t.layout.interpreter.gc_collecting, t.layout.runtime.gc_collecting);
    assert!(of_interpreter.is_some() != of_runtime.is_some());
    for (base, field) in [(t.interpreter, of_interpreter), (t.runtime, of_runtime)] {
        if let Some(collecting) = field {
            assert_eq!(t.read_u32(base.offset(collecting.offset() as u64)), Ok(0));
        }
    }
}

/// Both threads of the target are asleep: the GIL has no holder, and there were a few switches.
fn the_gil_is_at_rest(t: &LayoutProbe) {
    let gil = t.layout.gil;
    assert_eq!(t.read_u64(t.gil().offset(gil.interval.offset() as u64)), Ok(5000));
    assert_eq!(t.read_u32(t.gil().offset(gil.locked.offset() as u64)), Ok(0));
    let switches = t.read_u64(t.gil().offset(gil.switch_number.offset() as u64)).unwrap();
    assert!((1..1_000_000).contains(&switches), "{switches} switches");
    let holder = t.ptr(t.gil(), gil.last_holder);
    assert!(t.threads().contains(&holder), "{holder} held it last, the threads are {:?}", t.threads());
}

fn the_threads_are_the_kernels(t: &LayoutProbe) {
    let threads = t.threads();
    assert_eq!(threads.len(), 2);
    for thread in threads {
        assert_eq!(t.ptr(thread, t.layout.thread.interp), t.interpreter);
        if let Some(native) = t.layout.thread.native_thread_id {
            let id = t.ptr_u64(thread, native);
            assert!(t.tids().contains(&id), "{id} is not in {:?}", t.tids());
        }
        if let Some(stack) = t.layout.thread.datastack {
            let (chunk, top) = (t.ptr(thread, stack.chunk), t.ptr(thread, stack.top));
            assert!(top.within(chunk, t.ptr_u64(chunk, stack.chunk_size)) && top >= chunk.offset(stack.data.into()));
        }
        if let Some(requested) = t.layout.thread.gil_requested {
            assert_eq!(t.read_u32(thread.offset(requested.offset() as u64)), Ok(0));
        }
        if let Some(eval_breaker) = t.layout.thread.eval_breaker {
            assert_eq!(t.ptr_u64(thread, eval_breaker) & 1, 0, "a sleeping thread has a drop request");
        }
    }
}

/// A thread that computes while another waits gets a drop request every switch interval and obeys
/// it at once, unless it is off its CPU then: both values are seen often.
fn drop_requests_are_in_the_eval_breaker(interpreter: &Interpreter) {
    let t = LayoutProbe::start(interpreter, "cpu");
    let eval_breaker = t.layout.thread.eval_breaker.unwrap();
    let mut seen = [0u32; 2];
    for _ in 0..4_000_000 {
        let holder = t.ptr(t.gil(), t.layout.gil.last_holder);
        seen[(t.ptr_u64(holder, eval_breaker) & 1) as usize] += 1;
        if seen[1] > 20 && seen[0] > 1000 {
            break;
        }
    }
    eprintln!("{}: a drop request {} of {} times", interpreter.label, seen[1], seen[0] + seen[1]);
    assert!(seen[1] > 20 && seen[0] > 1000, "{}: {seen:?}", interpreter.label);
}

/// The main thread is at module level, the other in `sleeper`; both inside a C call.
fn the_stacks_are_known(t: &LayoutProbe) {
    let mut leaves: Vec<String> = t.threads().iter().map(|&thread| t.stack(thread)[0].name.clone()).collect();
    leaves.sort();
    assert_eq!(leaves, ["<module>", "sleeper"]);
    for thread in t.threads() {
        let stack = t.stack(thread);
        assert!(t.layout.is_call(stack[0].opcode), "leaf {:?} of {:?}", stack[0], t.layout.minor);
        assert_eq!(stack[0].file, t.target.source());
        assert_eq!(stack[0].line, t.target.fact("lines")[&stack[0].name]);
    }
}

fn the_names_are_found(t: &LayoutProbe) {
    let threading = t.dict_get(t.ptr(t.interpreter, t.layout.interpreter.modules.unwrap()), "threading");
    let active = t.dict_get(t.ptr(threading, t.layout.containers.module_dict), "_active");
    let mut found: Vec<(u64, String)> =
        t.items(active).into_iter().map(|(ident, thread)| (t.int(ident), t.text(t.attribute(thread, "_name")))).collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let names: Vec<&str> = found.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["MainThread", "wörker"]);
    let mut idents: Vec<u64> = t.threads().iter().map(|&thread| t.ptr_u64(thread, t.layout.thread.thread_id)).collect();
    let mut keys: Vec<u64> = found.iter().map(|(ident, _)| *ident).collect();
    idents.sort();
    keys.sort();
    assert_eq!(idents, keys);
}
