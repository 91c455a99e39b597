//! bpf(2), as far as a small tracing program needs it: creating maps, loading a program, attaching
//! it to a tracepoint.
//!
//! This module does not know what the programs do. The kernel verifies every program before it
//! runs: it refuses a wrong program, which therefore cannot do harm.

use super::tracefs::owned_fd;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TYPE_TRACEPOINT: u32 = 5;
const PERF_TYPE_TRACEPOINT: u32 = 2;
/// `PERF_EVENT_IOC_SET_BPF`: `_IOW('$', 8, u32)`.
const SET_BPF: libc::c_ulong = 0x4004_2408;
const FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// Kinds of maps, by the kernel's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Key to value.
    Hash = 1,
    /// Values by index.
    Array = 2,
    /// One ring of records for all CPUs (Linux 5.8).
    Ring = 27,
}

/// The part of `union bpf_attr` that is used here, in 64-bit words; the rest is zero, which means
/// the default.
type Attr = [u64; 16];

fn bpf(command: libc::c_int, attr: &Attr) -> libc::c_long {
    // SAFETY: `attr` is live and has the given size. The callers below put pointers into it only to
    // live buffers, whose lengths the kernel knows from the description of the map or program.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), std::mem::size_of::<Attr>()) }
}

/// Two consecutive 32-bit fields as one word.
fn pair(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]])
}

/// A map.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    value: usize,
}

impl Map {
    /// Creates a map. Keys are 32 bits, except in a ring, which has neither keys nor values and
    /// whose `entries` are its bytes.
    pub fn create(kind: MapKind, value: usize, entries: u32) -> io::Result<Map> {
        let (key, value_size) = if kind == MapKind::Ring { (0, 0) } else { (4, value as u32) };
        let mut attr = Attr::default();
        attr[0] = pair(kind as u32, key);
        attr[1] = pair(value_size, entries);
        Ok(Map { fd: owned_fd(bpf(MAP_CREATE, &attr))?, value })
    }

    /// Its descriptor, by which a program refers to it.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// Sets a value; it must have the size that the map was created for.
    pub fn set(&self, key: u32, value: &[u64]) -> io::Result<()> {
        self.fits(std::mem::size_of_val(value))?;
        check(bpf(MAP_UPDATE_ELEM, &self.element(&key, value.as_ptr() as u64)))
    }

    /// Reads a value of one word.
    pub fn get(&self, key: u32) -> io::Result<u64> {
        self.fits(8)?;
        let mut value = 0u64;
        check(bpf(MAP_LOOKUP_ELEM, &self.element(&key, &mut value as *mut u64 as u64))).map(|()| value)
    }

    fn fits(&self, len: usize) -> io::Result<()> {
        if len == self.value {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::InvalidInput))
        }
    }

    fn element(&self, key: &u32, value: u64) -> Attr {
        let mut attr = Attr::default();
        attr[0] = pair(self.fd() as u32, 0);
        attr[1] = key as *const u32 as u64;
        attr[2] = value;
        attr
    }
}

fn check(answer: libc::c_long) -> io::Result<()> {
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A loaded program.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Loads a program for tracepoints. Some helpers require a licence that is compatible with the
    /// GPL, so the programs are under both. The error is the kernel's; `EACCES` and `EINVAL` mean
    /// that its verifier refused the program.
    pub fn load(instructions: &[u64]) -> io::Result<Program> {
        let mut attr = Attr::default();
        attr[0] = pair(PROG_TYPE_TRACEPOINT, instructions.len() as u32);
        attr[1] = instructions.as_ptr() as u64;
        attr[2] = c"Dual MIT/GPL".as_ptr() as u64;
        owned_fd(bpf(PROG_LOAD, &attr)).map(Program)
    }
}

/// A program that runs at every hit of a tracepoint, on all CPUs, until this is dropped.
#[derive(Debug)]
pub struct Attachment {
    _event: OwnedFd,
}

/// The first 112 bytes of `struct perf_event_attr` (`PERF_ATTR_SIZE_VER5`), in 64-bit words.
type PerfAttr = [u64; 14];

impl Attachment {
    /// Attaches a program. The perf event is only the handle: it stays disabled and has no buffer,
    /// so that no CPU spends time on it.
    pub fn new(program: &Program, tracepoint: u64) -> io::Result<Attachment> {
        let mut attr = PerfAttr::default();
        attr[0] = pair(PERF_TYPE_TRACEPOINT, std::mem::size_of::<PerfAttr>() as u32);
        attr[1] = tracepoint;
        attr[2] = 1; // sample_period
        attr[5] = 1; // disabled
        let (all_processes, cpu, no_group) = (-1 as libc::c_int, 0 as libc::c_int, -1 as libc::c_int);
        // SAFETY: `attr` is live and contains its own size; the other arguments are plain numbers.
        let event =
            owned_fd(unsafe { libc::syscall(libc::SYS_perf_event_open, attr.as_ptr(), all_processes, cpu, no_group, FLAG_FD_CLOEXEC) })?;
        // SAFETY: both descriptors are open; the request takes a plain number.
        let set = unsafe { libc::ioctl(event.as_raw_fd(), SET_BPF as _, program.0.as_raw_fd()) };
        check(set.into()).map(|()| Attachment { _event: event })
    }
}
