//! Classifies a runnable thread by its kernel stack: `/proc/PID/task/TID/stack`, which only root
//! may read.
//!
//! A thread on a CPU has no stack that another process could read; the stack of a thread in the run
//! queue shows how it got there. This does not hold on every kernel: some show the stack that a
//! running thread had when it was last switched out, which is indistinguishable from the stack of a
//! thread that waits now. aarch64 always does, so the file is not used there. x86-64 does if it is
//! built with frame pointers, so no stack is trusted before a thread without a stack has been seen.

use crate::sample::RunnableState;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::OnceLock;

/// Stacks that are read in the search for a thread on a CPU. A holder of the GIL is nearly always
/// on one.
const MAX_TRIALS: u32 = 2000;

static PROVEN: AtomicBool = AtomicBool::new(false);
static TRIALS: AtomicU32 = AtomicU32::new(0);

/// Longer than the part that is needed: the innermost calls come first, and the system call of a
/// woken sleeper is within the first dozen.
pub const TEXT_LEN: usize = 2048;

/// Whether this process may read kernel stacks, and may still prove that they are current.
pub fn readable() -> bool {
    static READABLE: OnceLock<bool> = OnceLock::new();
    let read = || std::fs::read("/proc/thread-self/stack").is_ok_and(|text| !text.is_empty());
    let allowed = *READABLE.get_or_init(|| cfg!(target_arch = "x86_64") && read());
    allowed && (proven() || TRIALS.load(Ordering::Relaxed) < MAX_TRIALS)
}

/// Whether a thread without a stack has been seen, which proves that this kernel shows no stale
/// ones.
pub fn proven() -> bool {
    PROVEN.load(Ordering::Relaxed)
}

/// The state from a live thread's file, once such files are trusted.
pub fn once_proven(state: RunnableState) -> Option<RunnableState> {
    if state == RunnableState::OnCpu {
        PROVEN.store(true, Ordering::Relaxed);
    } else if !proven() {
        TRIALS.fetch_add(1, Ordering::Relaxed);
    }
    proven().then_some(state)
}

/// Parses the text of the file: one call per line, the innermost first, as in `[<0>]
/// futex_wait+0x6a/0x110`. `None` if it names no call.
pub fn parse(text: &[u8]) -> Option<RunnableState> {
    use RunnableState::{InSystemCall, LeavingSyscall, OnCpu, Preempted, WokenFromFutex};
    let text = std::str::from_utf8(text).ok()?;
    let mut calls = text.lines().filter_map(|line| line.strip_prefix("[<")?.split_once(">] ")).map(|(_, call)| call).peekable();
    let Some(innermost) = calls.peek().copied() else { return text.trim().is_empty().then_some(OnCpu) };
    let exits = innermost.contains("exit_to_user_mode");
    let (mut system_call, mut futex, mut wakes) = (false, false, false);
    for call in calls {
        system_call |= call.starts_with("do_syscall_64") || call.starts_with("entry_SYSCALL");
        futex |= call.contains("futex_wait") || call.starts_with("do_futex");
        wakes |= call.contains("futex_wake");
    }
    Some(match (system_call, exits || wakes, futex) {
        (false, true, _) => Preempted,
        (true, true, _) => LeavingSyscall,
        (_, false, true) => WokenFromFutex,
        (_, false, false) => InSystemCall,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(calls: &[&str]) -> Option<RunnableState> {
        parse(calls.iter().map(|call| format!("[<0>] {call}+0x10/0x1a0\n")).collect::<String>().as_bytes())
    }

    #[test]
    fn stacks_of_known_kernels() {
        let syscall = ["do_syscall_64", "entry_SYSCALL_64_after_hwframe"];
        let with = |calls: &[&'static str]| of(&[calls, &syscall].concat());
        assert_eq!(of(&[]), Some(RunnableState::OnCpu));
        assert_eq!(of(&["irqentry_exit_to_user_mode", "asm_sysvec_apic_timer_interrupt"]), Some(RunnableState::Preempted));
        assert_eq!(with(&["exit_to_user_mode_loop"]), Some(RunnableState::LeavingSyscall));
        assert_eq!(with(&["syscall_exit_to_user_mode"]), Some(RunnableState::LeavingSyscall));
        assert_eq!(
            with(&["futex_wait_queue", "__futex_wait", "futex_wait", "do_futex", "__x64_sys_futex"]),
            Some(RunnableState::WokenFromFutex)
        );
        assert_eq!(with(&["futex_wait_queue_me", "futex_wait", "do_futex", "__se_sys_futex"]), Some(RunnableState::WokenFromFutex));
        assert_eq!(with(&["preempt_schedule_irq", "futex_wake", "do_futex", "__x64_sys_futex"]), Some(RunnableState::LeavingSyscall));
        assert_eq!(with(&["hrtimer_nanosleep", "common_nsleep", "__x64_sys_clock_nanosleep"]), Some(RunnableState::InSystemCall));
        assert_eq!(of(&["ret_from_fork_asm"]), Some(RunnableState::InSystemCall));
        assert_eq!(parse(b"0xffff\n"), None);
    }

    #[test]
    fn no_stack_is_trusted_before_a_thread_without_one_is_seen() {
        // Another test of this process may have proved it already.
        if !proven() {
            assert_eq!(once_proven(RunnableState::Preempted), None);
        }
        assert_eq!(once_proven(RunnableState::OnCpu), Some(RunnableState::OnCpu));
        assert_eq!(once_proven(RunnableState::Preempted), Some(RunnableState::Preempted));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
