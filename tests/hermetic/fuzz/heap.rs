//! Counts the allocations of each thread, to find inputs that make a parser allocate too much.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// A single request beyond this fails, so that the process ends at once instead of using up the
/// machine's memory. Rust then prints `memory allocation of … bytes failed`.
const ABSURD: usize = 8 << 30;

thread_local! {
    // Without a destructor and with a constant first value, so that the allocator may use them at
    // any time.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, with a count per thread. A block that one thread allocates and another
/// frees makes both counts wrong; parsers start no threads.
pub struct Counting;

// SAFETY: every call goes unchanged to the system's allocator; the counts are plain numbers of this
// thread and allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        if layout.size() > ABSURD {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        if layout.size() > ABSURD {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `System`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `System`.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if both blocks existed at once, as they do when the block has to move.
        count(size as isize);
        count(-(layout.size() as isize));
        if size > ABSURD {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `System`.
        unsafe { System.realloc(at, layout, size) }
    }
}

fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// The most bytes that `work` had on this thread's heap at a time, in addition to earlier ones.
pub fn peak_of<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let before = LIVE.with(Cell::get);
    PEAK.with(|peak| peak.set(before));
    let result = work();
    (result, usize::try_from(PEAK.with(Cell::get) - before).unwrap_or(0))
}
