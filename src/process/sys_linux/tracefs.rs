//! A private tracefs: mounted nowhere, visible to no other process, gone with its descriptor.
//!
//! `fsopen` and `fsmount` (Linux 5.2) create a mount that is attached to no directory of any
//! namespace, so that nothing on the machine changes. This needs CAP_SYS_ADMIN, like every mount.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

/// `FSCONFIG_CMD_CREATE` of fsconfig(2).
const CREATE: libc::c_uint = 6;

/// A tracefs that only this process can reach.
#[derive(Debug)]
pub struct Detached(OwnedFd);

impl Detached {
    /// Creates one.
    pub fn mount() -> io::Result<Detached> {
        // SAFETY: the name is a NUL-terminated string; the flags are plain numbers.
        let context = owned_fd(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), 0) })?;
        let none = std::ptr::null::<libc::c_char>();
        // SAFETY: this command takes neither a key nor a value; the descriptor is open.
        let made = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) };
        if made != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: takes an open descriptor and plain numbers.
        owned_fd(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), 0, 0) }).map(Detached)
    }

    /// A path to its root, valid as long as this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The result of a system call as a descriptor.
pub(super) fn owned_fd(answer: libc::c_long) -> io::Result<OwnedFd> {
    match i32::try_from(answer) {
        // SAFETY: the kernel has just returned this descriptor, and no other code knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
