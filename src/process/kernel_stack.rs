//! Where a runnable thread is, by its kernel stack: `/proc/PID/task/TID/stack`, which only root may read.
//!
//! A thread on a CPU has no stack that others could read; of one in the run queue it says how it came there. Not on every kernel: some show the
//! stack that a running thread had when it was last switched out, which cannot be told from one that waits now. aarch64 always does, so it is not
//! asked there; x86-64 does when it is built with frame pointers, so nothing is believed before some thread has been seen without a stack.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::OnceLock;

/// So many stacks are read in the hope that one is of a thread on a CPU. A holder of the GIL is there nearly always.
const MAX_TRIALS: u32 = 2000;

static PROVEN: AtomicBool = AtomicBool::new(false);
static TRIALS: AtomicU32 = AtomicU32::new(0);

/// Longer than the part that is read: the innermost calls stand first, and a woken sleeper's system call within the first dozen.
pub const TEXT_LEN: usize = 2048;

/// Where a thread is that is neither asleep nor gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelStackState {
    /// On a CPU.
    OnCpu,
    /// In the run queue since it lost its CPU, outside of any system call.
    Preempted,
    /// In the run queue: it lost its CPU on its way out of a system call, which is where a thread that wakes another is pushed off.
    LeavingSyscall,
    /// In the run queue: it slept in `futex(2)` and was woken, or went to sleep just now.
    WokenFromFutex,
    /// In the run queue within another system call: woken from a sleep there, or pushed off its CPU while it worked there.
    InSystemCall,
}

/// Whether this process may read kernel stacks, and it is not hopeless that they tell of running threads.
pub fn readable() -> bool {
    static READABLE: OnceLock<bool> = OnceLock::new();
    let read = || std::fs::read("/proc/thread-self/stack").is_ok_and(|text| !text.is_empty());
    let allowed = *READABLE.get_or_init(|| cfg!(target_arch = "x86_64") && read());
    allowed && (proven() || TRIALS.load(Ordering::Relaxed) < MAX_TRIALS)
}

/// Whether a thread has been seen without a stack, so that this kernel does not show stale ones.
pub fn proven() -> bool {
    PROVEN.load(Ordering::Relaxed)
}

/// What a live thread's file says, once that may be believed.
pub fn once_proven(state: KernelStackState) -> Option<KernelStackState> {
    if state == KernelStackState::OnCpu {
        PROVEN.store(true, Ordering::Relaxed);
    } else if !proven() {
        TRIALS.fetch_add(1, Ordering::Relaxed);
    }
    proven().then_some(state)
}

/// Understands the file's text: a line a call, the innermost first, as in `[<0>] futex_wait+0x6a/0x110`. `None` where it names no call.
pub fn parse(text: &[u8]) -> Option<KernelStackState> {
    use KernelStackState::{InSystemCall, LeavingSyscall, OnCpu, Preempted, WokenFromFutex};
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

    fn of(calls: &[&str]) -> Option<KernelStackState> {
        parse(calls.iter().map(|call| format!("[<0>] {call}+0x10/0x1a0\n")).collect::<String>().as_bytes())
    }

    #[test]
    fn the_stacks_that_kernels_show() {
        let syscall = ["do_syscall_64", "entry_SYSCALL_64_after_hwframe"];
        let with = |calls: &[&'static str]| of(&[calls, &syscall].concat());
        assert_eq!(of(&[]), Some(KernelStackState::OnCpu));
        assert_eq!(of(&["irqentry_exit_to_user_mode", "asm_sysvec_apic_timer_interrupt"]), Some(KernelStackState::Preempted));
        assert_eq!(with(&["exit_to_user_mode_loop"]), Some(KernelStackState::LeavingSyscall));
        assert_eq!(with(&["syscall_exit_to_user_mode"]), Some(KernelStackState::LeavingSyscall));
        assert_eq!(
            with(&["futex_wait_queue", "__futex_wait", "futex_wait", "do_futex", "__x64_sys_futex"]),
            Some(KernelStackState::WokenFromFutex)
        );
        assert_eq!(with(&["futex_wait_queue_me", "futex_wait", "do_futex", "__se_sys_futex"]), Some(KernelStackState::WokenFromFutex));
        assert_eq!(with(&["preempt_schedule_irq", "futex_wake", "do_futex", "__x64_sys_futex"]), Some(KernelStackState::LeavingSyscall));
        assert_eq!(with(&["hrtimer_nanosleep", "common_nsleep", "__x64_sys_clock_nanosleep"]), Some(KernelStackState::InSystemCall));
        assert_eq!(of(&["ret_from_fork_asm"]), Some(KernelStackState::InSystemCall));
        assert_eq!(parse(b"0xffff\n"), None);
    }

    #[test]
    fn nothing_is_believed_before_a_thread_had_no_stack() {
        // Another test of this process may have shown it already.
        if !proven() {
            assert_eq!(once_proven(KernelStackState::Preempted), None);
        }
        assert_eq!(once_proven(KernelStackState::OnCpu), Some(KernelStackState::OnCpu));
        assert_eq!(once_proven(KernelStackState::Preempted), Some(KernelStackState::Preempted));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
