//! What the kernel's programs must know of a Python process, from its layout.

use super::layout::{Anchor, GilLayout, Layout, Position};
use crate::ids::{Addr, GilId};
use crate::process::c_library::{Abi, CLibrary};
use crate::process::elf::Machine;
use crate::process::kernel_events::{FrameOffsets, GilOffsets, TargetConfig, ThreadIdentity, ThreadOffsets};
use crate::units::Nanos;

/// Offset of `_c_head` in musl's `pthread_cond_t`; see `gil_waits`.
const HEAD: u32 = 8;
/// On aarch64 the layout may have glibc's longer mutexes where the C library is musl.
const SHORTER_MUTEX: u32 = 8;

/// The configuration for the GILs of a process.
pub fn kernel_config(layout: &Layout, abi: Abi, gils: &[(GilId, Addr)], stack_interval: Nanos) -> TargetConfig {
    let offset = |field: usize| field as u32;
    let (thread, frame) = (&layout.thread, &layout.frame);
    let (anchor, cframe_frame) = match thread.anchor {
        Anchor::Direct(field) => (field.offset(), None),
        Anchor::CFrame(field, inner) => (field.offset(), Some(offset(inner.offset()))),
    };
    let (position, position_is_int) = match frame.position {
        Position::LastByte(field) | Position::LastUnit(field) => (field.offset(), true),
        Position::Pointer(field) => (field.offset(), false),
    };
    TargetConfig {
        gils: gils.to_vec(),
        gil: gil_offsets(&layout.gil, abi.c_library),
        thread: ThreadOffsets { identity: identity(layout, abi), anchor: offset(anchor), cframe_frame },
        frame: FrameOffsets {
            back: offset(frame.back.offset()),
            code: offset(frame.code.offset()),
            code_mask: frame.code_tag_mask,
            position: offset(position),
            position_is_int,
            owner: frame.owner.map(|owner| (offset(owner.field.offset()), owner.first_not_python)),
        },
        stack_interval_ns: stack_interval.as_nanos(),
    }
}

/// On x86-64 the thread pointer is `pthread_self()`. Elsewhere the distance is private to the C
/// library, so the kernel's id is compared where CPython stores it.
fn identity(layout: &Layout, abi: Abi) -> ThreadIdentity {
    match (abi.machine, layout.thread.native_thread_id) {
        (Machine::Aarch64, Some(field)) => ThreadIdentity::KernelId { field: field.offset() as u32 },
        _ => ThreadIdentity::Pthread { field: layout.thread.thread_id.offset() as u32, from_thread_pointer: 0 },
    }
}

fn gil_offsets(gil: &GilLayout, c_library: CLibrary) -> GilOffsets {
    let spans = [gil.cond, gil.mutex, gil.switch_cond, gil.switch_mutex];
    let list_heads = match c_library {
        CLibrary::Glibc => [0; 3],
        CLibrary::Musl => [gil.cond.offset + HEAD, gil.switch_cond.offset + HEAD, 0],
        CLibrary::Unknown => {
            [gil.cond.offset + HEAD, gil.switch_cond.offset + HEAD, (gil.switch_cond.offset + HEAD).saturating_sub(SHORTER_MUTEX)]
        }
    };
    GilOffsets {
        locked: gil.locked.offset() as u32,
        last_holder: gil.last_holder.offset() as u32,
        switch_number: gil.switch_number.offset() as u32,
        waits_begin: spans.iter().map(|span| span.offset).min().unwrap_or(0),
        waits_end: spans.iter().map(|span| span.offset.saturating_add(span.len)).max().unwrap_or(0),
        switch_begin: gil.switch_cond.offset,
        list_heads,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::layout::{for_version, LayoutTable, Minor};

    #[test]
    fn fields_are_those_of_the_layout() {
        let Some(LayoutTable::Complete(layout)) = for_version(Minor(3, 12)) else { panic!("3.12 has a whole table") };
        let abi = |machine, c_library| Abi { machine, c_library };
        let config = |abi| kernel_config(layout, abi, &[(GilId(0), Addr(0x1000))], Nanos::from_millis(1));
        let glibc = config(abi(Machine::X86_64, CLibrary::Glibc));
        assert_eq!((glibc.gil.waits_begin, glibc.gil.waits_end, glibc.gil.list_heads), (32, 208, [0; 3]));
        assert_eq!((glibc.thread.anchor, glibc.thread.cframe_frame), (56, Some(0)));
        assert_eq!(glibc.thread.identity, ThreadIdentity::Pthread { field: 136, from_thread_pointer: 0 });
        assert_eq!((glibc.frame.position_is_int, glibc.frame.owner), (false, Some((70, 3))));
        assert_eq!(config(abi(Machine::X86_64, CLibrary::Musl)).gil.list_heads, [40, 128, 0]);
        let arm = config(abi(Machine::Aarch64, CLibrary::Glibc));
        assert_eq!(arm.thread.identity, ThreadIdentity::KernelId { field: 144 });
    }
}
