//! The two small kernel programs of exact mode, written as instructions: nothing is compiled,
//! neither at build time nor later.
//!
//! The first runs at the entry of futex(2). It checks that the thread belongs to the target and
//! that the address is inside one of its GILs. Only then does it write a record and, for a wait,
//! mark the thread with its GIL. The second runs at the exit of futex(2) and writes a record for
//! marked threads. So threads of other programs cost the kernel one comparison, the target's other
//! locks cost a few more, and neither produces a record.
//!
//! Each record carries the GIL's `last_holder` and `switch_number` at that moment, read from the
//! calling thread's memory: no other evidence shows which thread has taken the GIL. Both are zero
//! if they cannot be read (helper 112 never waits for a page).
//!
//! The programs identify the process by its id in its own PID namespace together with that
//! namespace (device and inode of `/proc/PID/ns/pid`), which works in containers too (helper 120,
//! Linux 5.7). Both programs always return 1: a 0 would hide the event from other users of the
//! tracepoint. A 0 of another program does not keep these from running.

use std::collections::HashMap;

/// GILs traced at once; more are rare, and their waits are sampled.
pub const MAX_GILS: usize = 32;
/// Bytes of a record: time, address or return value, `last_holder`, `switch_number` (8 each),
/// thread id, operation (4 each).
pub const RECORD_LEN: usize = 40;
/// Bytes of a mark, the entry for a thread in a wait: where the traced part of its GIL begins.
pub const MARK_LEN: usize = 8;
/// The operation in an exit's record.
pub const EXIT: u32 = u32::MAX;

/// The process whose futex calls are traced, and the offsets of the fields.
#[derive(Clone, Copy, Debug)]
pub struct TracedProcess {
    /// Device of its PID namespace.
    pub dev: u64,
    /// Inode of its PID namespace.
    pub inode: u64,
    /// Its process id there.
    pub tgid: i32,
    /// The traced fields of a GIL.
    pub gil: GilFields,
    /// Offset of the address in the entry's record.
    pub uaddr: i16,
    /// Offset of the operation in the entry's record.
    pub op: i16,
    /// Offset of the return value in the exit's record.
    pub ret: i16,
}

/// The part of a GIL that holds the futexes, and the offsets of other fields relative to that part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GilFields {
    /// Length of the part.
    pub len: i32,
    /// Offset of `last_holder`.
    pub last_holder: i32,
    /// Offset of `switch_number`.
    pub switch_number: i32,
}

/// Descriptors of the maps that the programs share.
#[derive(Clone, Copy, Debug)]
pub struct MapFds {
    /// One value: where the traced part of each GIL begins, zero after the last.
    pub gils: i32,
    /// Threads in a wait.
    pub marks: i32,
    /// One value: the number of records lost because the ring was full.
    pub lost: i32,
    /// The ring of records.
    pub ring: i32,
}

mod helper {
    pub const MAP_LOOKUP: i32 = 1;
    pub const MAP_UPDATE: i32 = 2;
    pub const MAP_DELETE: i32 = 3;
    pub const KTIME: i32 = 5;
    pub const READ_USER: i32 = 112;
    pub const NS_PID_TGID: i32 = 120;
    pub const RING_OUTPUT: i32 = 130;
}

// Offsets on the program's own stack, below its frame pointer.
const PID: i16 = -8;
const TGID: i16 = -4;
const SCRATCH: i16 = -12;
const MARKED: i16 = -64;
const AT_TIME: i16 = -56;
const AT_WORD: i16 = -48;
const AT_LAST_HOLDER: i16 = -40;
const AT_SWITCH_NUMBER: i16 = -32;
const AT_PID: i16 = -24;
const AT_OP: i16 = -20;
const FRAME: u8 = 10;

/// FUTEX_WAIT and FUTEX_WAIT_BITSET, without the flags.
const WAITS: [i32; 2] = [0, 9];
const OP_MASK: i32 = 0x7f;
/// `BPF_RB_NO_WAKEUP`: gilprof polls the ring.
const NO_WAKEUP: i32 = 1;

/// The program for `sys_enter_futex`.
pub fn enter(target: &TracedProcess, maps: &MapFds) -> Vec<u64> {
    let mut a = Asm::default();
    a.mov(6, 1);
    a.exit_unless_target(target);
    a.lookup(maps.gils, SCRATCH);
    a.jump_if(Jump::Equal, 0, 0, "out");
    a.load64(7, 6, target.uaddr);
    for gil in 0..MAX_GILS as i16 {
        a.load64(1, 0, 8 * gil);
        a.jump_if(Jump::Equal, 1, 0, "out");
        a.mov(2, 7);
        a.sub(2, 1);
        a.jump_if(Jump::Below, 2, target.gil.len, "inside");
    }
    a.jump("out");
    a.label("inside");
    a.mov(9, 1);
    a.load64(8, 6, target.op);
    a.store64(AT_WORD, 7);
    a.store32(AT_OP, 8);
    a.and(8, OP_MASK);
    for wait in WAITS {
        a.jump_if(Jump::Equal, 8, wait, "mark");
    }
    a.jump("send");
    a.label("mark");
    a.store64(MARKED, 9);
    a.map(1, maps.marks);
    a.local(2, PID);
    a.local(3, MARKED);
    a.set(4, 0);
    a.call(helper::MAP_UPDATE);
    a.label("send");
    a.send(target, maps);
    a.finish()
}

/// The program for `sys_exit_futex`.
pub fn exit(target: &TracedProcess, maps: &MapFds) -> Vec<u64> {
    let mut a = Asm::default();
    a.mov(6, 1);
    a.exit_unless_target(target);
    a.lookup(maps.marks, PID);
    a.jump_if(Jump::Equal, 0, 0, "out");
    a.load64(9, 0, 0);
    a.map(1, maps.marks);
    a.local(2, PID);
    a.call(helper::MAP_DELETE);
    a.load64(7, 6, target.ret);
    a.store64(AT_WORD, 7);
    a.set(8, -1);
    a.store32(AT_OP, 8);
    a.send(target, maps);
    a.finish()
}

#[derive(Clone, Copy)]
enum Jump {
    Equal = 0x15,
    NotEqual = 0x55,
    Below = 0xa5,
}

/// An assembler for the few instructions needed. A jump may refer to a label that comes later.
#[derive(Default)]
struct Asm {
    code: Vec<u64>,
    labels: HashMap<&'static str, usize>,
    jumps: Vec<(usize, &'static str)>,
}

impl Asm {
    fn put(&mut self, opcode: u8, to: u8, from: u8, offset: i16, number: i32) {
        let registers = u64::from(from & 15) << 12 | u64::from(to & 15) << 8;
        self.code.push(u64::from(number as u32) << 32 | u64::from(offset as u16) << 16 | registers | u64::from(opcode));
    }

    fn mov(&mut self, to: u8, from: u8) {
        self.put(0xbf, to, from, 0, 0);
    }

    fn set(&mut self, to: u8, number: i32) {
        self.put(0xb7, to, 0, 0, number);
    }

    fn add(&mut self, to: u8, number: i32) {
        self.put(0x07, to, 0, 0, number);
    }

    fn sub(&mut self, to: u8, from: u8) {
        self.put(0x1f, to, from, 0, 0);
    }

    fn and(&mut self, to: u8, number: i32) {
        self.put(0x57, to, 0, 0, number);
    }

    /// The address of a place on the stack.
    fn local(&mut self, to: u8, place: i16) {
        self.mov(to, FRAME);
        self.add(to, place.into());
    }

    fn load64(&mut self, to: u8, base: u8, offset: i16) {
        self.put(0x79, to, base, offset, 0);
    }

    fn load32(&mut self, to: u8, place: i16) {
        self.put(0x61, to, FRAME, place, 0);
    }

    fn store64(&mut self, place: i16, from: u8) {
        self.put(0x7b, FRAME, from, place, 0);
    }

    fn store32(&mut self, place: i16, from: u8) {
        self.put(0x63, FRAME, from, place, 0);
    }

    fn zero32(&mut self, place: i16) {
        self.put(0x62, FRAME, 0, place, 0);
    }

    fn wide(&mut self, to: u8, kind: u8, number: u64) {
        self.put(0x18, to, kind, 0, number as u32 as i32);
        self.put(0, 0, 0, 0, (number >> 32) as u32 as i32);
    }

    /// A map, by its descriptor.
    fn map(&mut self, to: u8, fd: i32) {
        self.wide(to, 1, fd as u32 as u64);
    }

    fn call(&mut self, helper: i32) {
        self.put(0x85, 0, 0, 0, helper);
    }

    fn jump(&mut self, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.put(0x05, 0, 0, 0, 0);
    }

    fn jump_if(&mut self, when: Jump, register: u8, number: i32, label: &'static str) {
        self.jumps.push((self.code.len(), label));
        self.put(when as u8, register, 0, 0, number);
    }

    fn label(&mut self, name: &'static str) {
        self.labels.insert(name, self.code.len());
    }

    /// Leaves the thread's id at `PID` and a zero at `SCRATCH`; exits for other processes.
    fn exit_unless_target(&mut self, target: &TracedProcess) {
        self.wide(1, 0, target.dev);
        self.wide(2, 0, target.inode);
        self.local(3, PID);
        self.set(4, 8);
        self.call(helper::NS_PID_TGID);
        self.jump_if(Jump::NotEqual, 0, 0, "out");
        self.load32(1, TGID);
        self.jump_if(Jump::NotEqual, 1, target.tgid, "out");
        self.zero32(SCRATCH);
    }

    fn lookup(&mut self, map: i32, key: i16) {
        self.map(1, map);
        self.local(2, key);
        self.call(helper::MAP_LOOKUP);
    }

    /// Reads a word of the thread's memory, `offset` bytes from the address in register 9.
    fn read_user(&mut self, place: i16, offset: i32) {
        self.local(1, place);
        self.set(2, 8);
        self.mov(3, 9);
        self.add(3, offset);
        self.call(helper::READ_USER);
    }

    /// Writes the record, whose word and operation are in place, with register 9 at the GIL; counts
    /// it as lost if the ring is full.
    fn send(&mut self, target: &TracedProcess, maps: &MapFds) {
        self.read_user(AT_LAST_HOLDER, target.gil.last_holder);
        self.read_user(AT_SWITCH_NUMBER, target.gil.switch_number);
        self.load32(1, PID);
        self.store32(AT_PID, 1);
        self.call(helper::KTIME);
        self.store64(AT_TIME, 0);
        self.map(1, maps.ring);
        self.local(2, AT_TIME);
        self.set(3, RECORD_LEN as i32);
        self.set(4, NO_WAKEUP);
        self.call(helper::RING_OUTPUT);
        self.jump_if(Jump::Equal, 0, 0, "out");
        self.zero32(SCRATCH);
        self.lookup(maps.lost, SCRATCH);
        self.jump_if(Jump::Equal, 0, 0, "out");
        self.set(1, 1);
        // Atomic add of 64 bits.
        self.put(0xdb, 0, 1, 0, 0);
    }

    fn finish(mut self) -> Vec<u64> {
        self.label("out");
        self.set(0, 1);
        self.put(0x95, 0, 0, 0, 0);
        for (at, label) in std::mem::take(&mut self.jumps) {
            let to = self.labels.get(label).copied().unwrap_or(at);
            let distance = (to as i64 - at as i64 - 1) as i16;
            self.code[at] |= u64::from(distance as u16) << 16;
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_leads_forward_and_stays_inside() {
        let gil = GilFields { len: 176, last_holder: -24, switch_number: -8 };
        let target = TracedProcess { dev: 4, inode: 0xeffffffc, tgid: 42, gil, uaddr: 16, op: 24, ret: 16 };
        let maps = MapFds { gils: 3, marks: 4, lost: 5, ring: 6 };
        for code in [enter(&target, &maps), exit(&target, &maps)] {
            let jumps = code.iter().enumerate().filter(|(_, i)| matches!(*i & 0xff, 0x05 | 0x15 | 0x55 | 0xa5));
            let mut count = 0;
            for (at, instruction) in jumps {
                let distance = (instruction >> 16) as i16;
                assert!(distance >= 0 && at + 1 + (distance as usize) < code.len(), "at {at}: {distance}");
                count += 1;
            }
            assert!(count >= 4 && code.len() < 4096, "{count} jumps in {} instructions", code.len());
            assert_eq!(code.last(), Some(&0x95));
        }
    }
}
