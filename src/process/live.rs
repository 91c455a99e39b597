//! A live process's memory, by `process_vm_readv`: never stops the target, never writes to it.
//!
//! One of the three places that may be `unsafe`. It refuses nothing but what the kernel refuses; bounds and plausibility are the callers' matter.

use super::memory::{Memory, Part, ReadError};
use super::procfs::carrier;
use crate::ids::{Addr, Pid};
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};

/// Ranges per system call. The kernel takes up to 1024; more than this is rare and goes in several calls.
const BATCH: usize = 256;

/// The memory of one live process.
#[derive(Debug)]
pub struct LiveMemory {
    pid: Pid,
    /// The thread through which it is read: the main thread, until that ends alone.
    through: AtomicI32,
}

impl LiveMemory {
    /// The memory of `pid`. Nothing is checked until the first read.
    pub fn new(pid: Pid) -> LiveMemory {
        LiveMemory { pid, through: AtomicI32::new(pid.0) }
    }

    /// Whose memory it is.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// One system call over at most `BATCH` ranges; the number of bytes that came, counted in the order of the ranges.
    fn readv(&self, local: &mut [libc::iovec], remote: &[libc::iovec]) -> io::Result<usize> {
        // SAFETY: every local iovec was made from a live `&mut [u8]` of exactly its length, held by the caller for the whole call;
        // the remote ones are only numbers to the kernel, which checks them against the other process.
        let n = unsafe {
            libc::process_vm_readv(
                self.through.load(Ordering::Relaxed),
                local.as_mut_ptr(),
                local.len() as libc::c_ulong,
                remote.as_ptr(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// After the thread that was read through has ended: whether there is another.
    fn another_way(&self) -> bool {
        let now = carrier(self.pid);
        self.through.swap(now.0, Ordering::Relaxed) != now.0
    }

    fn read_some(&self, parts: &mut [Part<'_>]) -> Result<(), ReadError> {
        const NONE: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let (mut local, mut remote) = ([NONE; BATCH], [NONE; BATCH]);
        let mut next = 0;
        // Every turn settles at least one part or moves on to another thread, of which there are ever fewer, so that the loop ends.
        while next < parts.len() {
            let rest = &mut parts[next..];
            let count = rest.len().min(BATCH);
            for (i, part) in rest.iter_mut().take(count).enumerate() {
                local[i] = libc::iovec { iov_base: part.into.as_mut_ptr().cast(), iov_len: part.into.len() };
                remote[i] = libc::iovec { iov_base: part.at.0 as *mut libc::c_void, iov_len: part.into.len() };
            }
            let mut came = match self.readv(&mut local[..count], &remote[..count]) {
                Ok(n) => n,
                Err(e) => match e.raw_os_error() {
                    Some(libc::ESRCH) if self.another_way() => continue,
                    Some(libc::ESRCH) => return Err(ReadError::Gone),
                    // A seccomp filter may say that there is no such call.
                    Some(libc::EPERM | libc::ENOSYS) => return Err(ReadError::Refused),
                    _ => 0,
                },
            };
            let mut settled = 0;
            for part in rest.iter_mut().take(count) {
                settled += 1;
                part.ok = came >= part.into.len();
                if !part.ok {
                    break;
                }
                came -= part.into.len();
            }
            next += settled;
        }
        Ok(())
    }
}

impl Memory for LiveMemory {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        let len = into.len();
        let mut parts = [Part::new(at, into)];
        self.read_some(&mut parts)?;
        if parts[0].ok {
            Ok(())
        } else {
            Err(ReadError::Unmapped { at, len })
        }
    }

    fn read_batch(&self, parts: &mut [Part<'_>]) -> Result<(), ReadError> {
        self.read_some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> LiveMemory {
        LiveMemory::new(Pid(std::process::id() as i32))
    }

    #[test]
    fn a_bad_part_does_not_spoil_the_others() {
        let (a, b) = ([1u8; 16], [2u8; 16]);
        let (mut x, mut bad, mut y) = ([0; 16], [0; 16], [0; 16]);
        let mut parts =
            [Part::new(Addr(a.as_ptr() as u64), &mut x), Part::new(Addr(8), &mut bad), Part::new(Addr(b.as_ptr() as u64), &mut y)];
        own().read_batch(&mut parts).unwrap();
        assert_eq!([parts[0].ok, parts[1].ok, parts[2].ok], [true, false, true]);
        assert_eq!((x, y), (a, b));
    }

    #[test]
    fn more_ranges_than_one_call_takes() {
        let source: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let mut into = vec![0u8; 1000];
        let base = source.as_ptr() as u64;
        let mut parts: Vec<Part<'_>> = into.chunks_mut(1).enumerate().map(|(i, c)| Part::new(Addr(base + i as u64), c)).collect();
        own().read_batch(&mut parts).unwrap();
        assert!(parts.iter().all(|p| p.ok));
        assert_eq!(into, source);
    }

    #[test]
    fn nobody_there() {
        let gone = LiveMemory::new(Pid(i32::MAX - 1)).read(Addr(4096), &mut [0; 4]);
        assert_eq!(gone, Err(ReadError::Gone));
    }
}
