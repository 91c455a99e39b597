//! Where a runnable thread is, by its kernel stack: `/proc/PID/task/TID/stack`, which only root may read.
//!
//! A thread on a CPU has no stack that others could read; of one in the run queue it says how it came there. Not on every kernel: some show the
//! stack that a running thread had when it was last switched out, which cannot be told from one that waits now (aarch64, and x86-64 built with
//! frame pointers). So it is tried first, on a thread of our own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{mpsc, Arc, OnceLock};
use std::time::{Duration, Instant};

/// So long a thread of our own is watched for being on a CPU. It is there at once, unless all CPUs are taken.
const TRIAL: Duration = Duration::from_millis(20);

/// Longer than the part that is read: the innermost calls stand first, and a woken sleeper's system call within the first dozen.
pub const TEXT: usize = 2048;

/// Where a thread is that is neither asleep nor gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// On a CPU.
    OnCpu,
    /// In the run queue since it lost its CPU, outside of any system call.
    Preempted,
    /// In the run queue: it lost its CPU on its way out of a system call, which is where a thread that wakes another is pushed off.
    Leaving,
    /// In the run queue: it slept in `futex(2)` and was woken, or went to sleep just now.
    WokenFromFutex,
    /// In the run queue within another system call: woken from a sleep there, or pushed off its CPU while it worked there.
    InSystemCall,
}

/// Whether this process may read kernel stacks, and they say where a thread is. Found out once.
pub fn readable() -> bool {
    static READABLE: OnceLock<bool> = OnceLock::new();
    *READABLE.get_or_init(|| std::fs::read("/proc/thread-self/stack").is_ok_and(|text| !text.is_empty()) && running_threads_have_none())
}

/// Watches a thread that runs until it is told to stop.
fn running_threads_have_none() -> bool {
    let (tell, told) = mpsc::channel::<PathBuf>();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let runner = std::thread::Builder::new().name("gilprof-trial".into()).spawn(move || {
        if let Ok(own) = std::fs::read_link("/proc/thread-self") {
            let _ = tell.send(own);
        }
        while !stopped.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    });
    let began = Instant::now();
    let none = told.recv_timeout(TRIAL).is_ok_and(|own| {
        let stack = PathBuf::from("/proc").join(own).join("stack");
        let seen = || std::fs::read(&stack).is_ok_and(|text| text.is_empty());
        std::iter::repeat_with(seen).take_while(|_| began.elapsed() < TRIAL).any(|none| none)
    });
    stop.store(true, Ordering::Relaxed);
    runner.is_ok_and(|runner| runner.join().is_ok()) && none
}

/// Understands the file's text: a line a call, the innermost first, as in `[<0>] futex_wait+0x6a/0x110`. `None` where it names no call.
pub fn parse(text: &[u8]) -> Option<Whereabouts> {
    use Whereabouts::{InSystemCall, Leaving, OnCpu, Preempted, WokenFromFutex};
    let text = std::str::from_utf8(text).ok()?;
    let mut calls = text.lines().filter_map(|line| line.strip_prefix("[<")?.split_once(">] ")).map(|(_, call)| call).peekable();
    let Some(innermost) = calls.peek().copied() else { return text.trim().is_empty().then_some(OnCpu) };
    let leaves = innermost.contains("exit_to_user_mode");
    let (mut system_call, mut futex, mut wakes) = (false, false, false);
    for call in calls {
        system_call |= call.starts_with("do_syscall_64") || call.starts_with("entry_SYSCALL");
        futex |= call.contains("futex_wait") || call.starts_with("do_futex");
        wakes |= call.contains("futex_wake");
    }
    Some(match (system_call, leaves || wakes, futex) {
        (false, true, _) => Preempted,
        (true, true, _) => Leaving,
        (_, false, true) => WokenFromFutex,
        (_, false, false) => InSystemCall,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(calls: &[&str]) -> Option<Whereabouts> {
        parse(calls.iter().map(|call| format!("[<0>] {call}+0x10/0x1a0\n")).collect::<String>().as_bytes())
    }

    #[test]
    fn the_stacks_that_kernels_show() {
        let syscall = ["do_syscall_64", "entry_SYSCALL_64_after_hwframe"];
        let with = |calls: &[&'static str]| of(&[calls, &syscall].concat());
        assert_eq!(of(&[]), Some(Whereabouts::OnCpu));
        assert_eq!(of(&["irqentry_exit_to_user_mode", "asm_sysvec_apic_timer_interrupt"]), Some(Whereabouts::Preempted));
        assert_eq!(with(&["exit_to_user_mode_loop"]), Some(Whereabouts::Leaving));
        assert_eq!(with(&["syscall_exit_to_user_mode"]), Some(Whereabouts::Leaving));
        assert_eq!(
            with(&["futex_wait_queue", "__futex_wait", "futex_wait", "do_futex", "__x64_sys_futex"]),
            Some(Whereabouts::WokenFromFutex)
        );
        assert_eq!(with(&["futex_wait_queue_me", "futex_wait", "do_futex", "__se_sys_futex"]), Some(Whereabouts::WokenFromFutex));
        assert_eq!(with(&["preempt_schedule_irq", "futex_wake", "do_futex", "__x64_sys_futex"]), Some(Whereabouts::Leaving));
        assert_eq!(with(&["hrtimer_nanosleep", "common_nsleep", "__x64_sys_clock_nanosleep"]), Some(Whereabouts::InSystemCall));
        assert_eq!(of(&["ret_from_fork_asm"]), Some(Whereabouts::InSystemCall));
        assert_eq!(parse(b"0xffff\n"), None);
    }

    #[test]
    fn a_thread_on_a_cpu_has_none() {
        if readable() {
            // Its own stack, read by itself, is the exception: it is in the middle of the read.
            let own = std::fs::read("/proc/thread-self/stack").unwrap();
            assert_eq!(parse(&own), Some(Whereabouts::InSystemCall));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
