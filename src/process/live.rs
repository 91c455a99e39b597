//! A live process's memory, by `process_vm_readv`: never stops the target, never writes to it.
//!
//! One of the three places that may be `unsafe`. It refuses only what the kernel refuses; bounds
//! and plausibility are checked by the callers.

use super::memory::{Memory, Part, ReadError};
use super::procfs::live_task;
use crate::ids::{Addr, Pid};
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, Ordering};

/// Ranges per system call: as many as the kernel takes (UIO_MAXIOV). A longer batch is split.
const BATCH: usize = 1024;

/// The memory of one live process.
#[derive(Debug)]
pub struct LiveMemory {
    pid: Pid,
    /// The thread that the memory is read through: the main thread, until that exits alone.
    via_task: AtomicI32,
}

impl LiveMemory {
    /// The memory of `pid`. Nothing is checked until the first read.
    pub fn new(pid: Pid) -> LiveMemory {
        LiveMemory { pid, via_task: AtomicI32::new(pid.0) }
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Makes one system call over at most `BATCH` ranges. Returns the number of bytes read, counted
    /// in the order of the ranges.
    fn readv(&self, parts: &[Part], into: &mut [u8]) -> io::Result<usize> {
        const ROOM: MaybeUninit<libc::iovec> = MaybeUninit::uninit();
        let mut remote = [ROOM; BATCH];
        for (place, part) in remote.iter_mut().zip(parts) {
            place.write(libc::iovec { iov_base: part.at.0 as *mut libc::c_void, iov_len: part.len });
        }
        let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        // SAFETY: `local` is a live `&mut [u8]` of exactly its length. The first
        // `parts.len().min(BATCH)` of `remote` have just been written. To the kernel they are only
        // numbers, which it checks against the other process, and it writes no more than `local`
        // has room for.
        let n = unsafe {
            libc::process_vm_readv(
                self.via_task.load(Ordering::Relaxed),
                &local,
                1,
                remote.as_ptr().cast(),
                parts.len().min(BATCH) as libc::c_ulong,
                0,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Switches to another thread after the current one has exited. Returns whether there was one.
    fn switch_task(&self) -> bool {
        let now = live_task(self.pid);
        self.via_task.swap(now.0, Ordering::Relaxed) != now.0
    }

    fn read_some(&self, mut parts: &mut [Part], mut into: &mut [u8]) -> Result<(), ReadError> {
        parts.iter_mut().for_each(|part| part.ok = false);
        // Every iteration finishes at least one part or moves on to another thread. The threads
        // only become fewer, so the loop ends.
        while !parts.is_empty() {
            let mut wanted = 0;
            let count = parts.iter().take(BATCH).take_while(|part| fits(&mut wanted, part.len, into.len())).count();
            if count == 0 {
                return Ok(());
            }
            let mut bytes_read = match self.readv(&parts[..count], &mut into[..wanted]) {
                Ok(n) => n,
                Err(e) => match e.raw_os_error() {
                    Some(libc::ESRCH) if self.switch_task() => continue,
                    Some(libc::ESRCH) => return Err(ReadError::Gone),
                    // A seccomp filter may pretend that the call does not exist.
                    Some(libc::EPERM | libc::ENOSYS) => return Err(ReadError::Refused),
                    _ => 0,
                },
            };
            let (mut done, mut place) = (0, 0);
            for part in parts.iter_mut().take(count) {
                done += 1;
                place += part.len;
                part.ok = bytes_read >= part.len;
                if !part.ok {
                    break;
                }
                bytes_read -= part.len;
            }
            parts = &mut parts[done..];
            into = &mut into[place..];
        }
        Ok(())
    }
}

/// Whether `len` more bytes still fit into `room`; if so, adds them to `sum`.
fn fits(sum: &mut usize, len: usize, room: usize) -> bool {
    let more = sum.saturating_add(len);
    let fits = more <= room;
    if fits {
        *sum = more;
    }
    fits
}

impl Memory for LiveMemory {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        let len = into.len();
        let mut parts = [Part::new(at, len)];
        self.read_some(&mut parts, into)?;
        if parts[0].ok {
            Ok(())
        } else {
            Err(ReadError::Unmapped { at, len })
        }
    }

    fn read_batch(&self, parts: &mut [Part], into: &mut [u8]) -> Result<(), ReadError> {
        self.read_some(parts, into)
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
        let mut parts = [Part::new(Addr(a.as_ptr() as u64), 16), Part::new(Addr(8), 16), Part::new(Addr(b.as_ptr() as u64), 16)];
        let mut bytes = [0; 48];
        own().read_batch(&mut parts, &mut bytes).unwrap();
        assert_eq!(parts.map(|part| part.ok), [true, false, true]);
        assert_eq!((&bytes[..16], &bytes[32..]), (a.as_slice(), b.as_slice()));
    }

    #[test]
    fn more_ranges_than_one_call_takes() {
        let source: Vec<u8> = (0..=255).cycle().take(3000).collect();
        let mut into = vec![0u8; 3000];
        let base = source.as_ptr() as u64;
        let mut parts: Vec<Part> = (0..3000).map(|i| Part::new(Addr(base + i), 1)).collect();
        own().read_batch(&mut parts, &mut into).unwrap();
        assert!(parts.iter().all(|p| p.ok));
        assert_eq!(into, source);
    }

    #[test]
    fn a_part_without_room_is_not_read() {
        let source = [7u8; 64];
        let part = Part::new(Addr(source.as_ptr() as u64), 24);
        let (mut parts, mut into) = ([part, part, part], [0; 50]);
        own().read_batch(&mut parts, &mut into).unwrap();
        assert_eq!((parts.map(|p| p.ok), into[47], into[48]), ([true, true, false], 7, 0));
        let mut parts = [Part::new(part.at, usize::MAX), part];
        own().read_batch(&mut parts, &mut into).unwrap();
        assert_eq!(parts.map(|p| p.ok), [false, false]);
    }

    #[test]
    fn a_missing_process_is_gone() {
        let gone = LiveMemory::new(Pid(i32::MAX - 1)).read(Addr(4096), &mut [0; 4]);
        assert_eq!(gone, Err(ReadError::Gone));
    }
}
