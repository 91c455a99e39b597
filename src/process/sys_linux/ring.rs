//! The consumer's end of a BPF ring buffer: records of all CPUs in one order, read without a system
//! call.
//!
//! The ring has two positions that only grow: the kernel advances the producer's, gilprof the
//! consumer's. The kernel maps the data twice in a row, so that a record never wraps. No value that
//! the kernel writes there is trusted beyond the ring's own size.

use super::bpf::Map;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Flag in a record's header: being written.
const BUSY: u32 = 1 << 31;
/// Flag in a record's header: discarded by its writer.
const DISCARDED: u32 = 1 << 30;
/// Bytes before each record.
const HEADER: u64 = 8;

/// A mapped ring.
#[derive(Debug)]
pub struct Ring {
    consumer: MappedRegion,
    producer: MappedRegion,
    page: usize,
    size: u64,
}

/// Pages that stay mapped until dropped.
#[derive(Debug)]
struct MappedRegion {
    at: *mut libc::c_void,
    len: usize,
}

impl MappedRegion {
    fn new(map: &Map, from: usize, len: usize, protection: libc::c_int) -> io::Result<MappedRegion> {
        let offset = from as libc::off_t;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory in use.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, map.fd(), offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(MappedRegion { at, len })
    }
}

impl Drop for MappedRegion {
    fn drop(&mut self) {
        // SAFETY: `at` and `len` are those of a mapping that belongs to `self` alone and that
        // nothing refers to any more.
        unsafe { libc::munmap(self.at, self.len) };
    }
}

impl Ring {
    /// Maps the ring of a [`super::bpf::MapKind::Ring`] map made with `size` bytes.
    pub fn map(map: &Map, size: usize) -> io::Result<Ring> {
        // SAFETY: sysconf takes a plain number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let consumer = MappedRegion::new(map, 0, page, libc::PROT_READ | libc::PROT_WRITE)?;
        let producer = MappedRegion::new(map, page, page + 2 * size, libc::PROT_READ)?;
        Ok(Ring { consumer, producer, page, size: size as u64 })
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first page is mapped for writing as long as `self` lives and begins with the
        // consumer's position. Only this process writes that position; the kernel only reads it.
        unsafe { &*self.consumer.at.cast::<AtomicU64>() }
    }

    fn produced(&self) -> u64 {
        // SAFETY: the mapping begins with the producer's position, a u64 that the kernel writes; a
        // page is aligned.
        unsafe { &*self.producer.at.cast::<AtomicU64>() }.load(Ordering::Acquire)
    }

    /// Passes each finished record of at most `N` bytes to `take`, oldest first; longer records are
    /// skipped. Stops at the records that existed when it began, so that a fast writer cannot keep
    /// it busy.
    pub fn drain<const N: usize>(&mut self, take: &mut dyn FnMut(&[u8])) {
        let mut at = self.consumed().load(Ordering::Relaxed);
        let end = self.produced();
        while at < end {
            // `at` is a multiple of 8 and masked, so a header lies inside the data.
            let place = self.page + (at & (self.size - 1)) as usize;
            // SAFETY: `place` + 8 lies inside the mapping, whose data part is `2 * size` long;
            // headers are aligned to 8.
            let header = unsafe { &*self.producer.at.cast::<u8>().add(place).cast::<AtomicU32>() }.load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let len = u64::from(header & !DISCARDED);
            if len > self.size {
                // Not a valid ring: skip everything rather than read out of bounds.
                at = end;
                break;
            }
            if header & DISCARDED == 0 && len as usize <= N {
                let mut record = [0u8; N];
                // SAFETY: the record's `len` bytes begin after its header and lie inside the
                // doubled data: `place` is below `page + size` and `len` is at most `size`. The
                // kernel does not overwrite them before the consumer's position has passed them.
                unsafe {
                    let from = self.producer.at.cast::<u8>().add(place + HEADER as usize);
                    std::ptr::copy_nonoverlapping(from, record.as_mut_ptr(), len as usize);
                }
                take(&record[..len as usize]);
            }
            at += (len + HEADER).next_multiple_of(8);
        }
        self.consumed().store(at, Ordering::Release);
    }
}
