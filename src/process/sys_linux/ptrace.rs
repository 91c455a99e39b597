//! ptrace(2): stops one thread of another process for a moment. Only for `--freeze-holder`.
//!
//! All requests for a thread must come from the thread of gilprof that seized it. When that thread
//! exits, the kernel detaches the other one, whatever state it is in.

use crate::ids::Tid;
use std::io;

fn ptrace(request: libc::c_uint, tid: Tid, data: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: the callers pass what each request takes as data: a number, or a live siginfo_t. None
    // of them uses the address.
    match unsafe { libc::ptrace(request, tid.0, std::ptr::null_mut::<libc::c_void>(), data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Becomes the tracer of a thread, which runs on. A thread that exits stops first.
pub fn seize(tid: Tid) -> io::Result<()> {
    ptrace(libc::PTRACE_SEIZE, tid, libc::PTRACE_O_TRACEEXIT as usize as *mut _)
}

/// Asks a seized thread to stop.
pub fn interrupt(tid: Tid) -> io::Result<()> {
    ptrace(libc::PTRACE_INTERRUPT, tid, std::ptr::null_mut())
}

/// Why a seized thread stands; `None` while it does not.
fn stop(tid: Tid) -> Option<libc::siginfo_t> {
    // SAFETY: siginfo_t is plain data, for which zeros are valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    ptrace(libc::PTRACE_GETSIGINFO, tid, (&raw mut info).cast()).is_ok().then_some(info)
}

/// Whether a seized thread stands.
pub fn is_stopped(tid: Tid) -> bool {
    stop(tid).is_some()
}

/// Lets a stopped thread run on without a tracer. If it was about to receive a signal, it does.
pub fn detach(tid: Tid) -> io::Result<()> {
    // The kernel gives its own stops the number of the event in the upper bits of the code.
    let signal = stop(tid).filter(|info| info.si_code >> 8 <= 0).map_or(0, |info| info.si_signo);
    ptrace(libc::PTRACE_DETACH, tid, signal as usize as *mut _)
}
