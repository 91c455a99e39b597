//! Whether a process still runs the program that gilprof found in it. `exec` replaces the program
//! under the same pid.
//!
//! Addresses do not show this. An interpreter that is not position-independent (Debian's) is mapped
//! at the same addresses with the same version after `exec`. gilprof would then apply cached code
//! objects of the old program to the new one.

use crate::ids::{Addr, Pid};
use crate::process::proc_info::live_task;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The address space of one program in one process.
#[derive(Debug)]
pub struct AddressSpace {
    memory: Option<File>,
    at: Addr,
}

impl AddressSpace {
    /// The address space that the process has now. `at` is an address that is mapped in it.
    pub fn open(pid: Pid, at: Addr) -> AddressSpace {
        AddressSpace { memory: File::open(format!("/proc/{}/mem", live_task(pid))).ok(), at }
    }

    /// Whether this address space is gone: the process has ended, or it runs another program. False
    /// where that is unknown.
    pub fn is_replaced(&self) -> bool {
        // An open `/proc/PID/mem` stays with the address space that it was opened on. A read
        // returns no bytes once no process uses that address space any more.
        self.memory.as_ref().is_some_and(|memory| matches!(memory.read_at(&mut [0], self.at.0), Ok(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::maps::Maps;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn exec_replaces_the_address_space() {
        let mut child = Command::new("sh").args(["-c", "read go; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let pid = Pid(child.id() as i32);
        let first = Maps::from_pid(pid).unwrap().mappings.iter().find(|m| m.readable).unwrap().start;
        let shell = AddressSpace::open(pid, first);
        assert!(!shell.is_replaced());
        // `read` takes one byte at a time, so the second line is for `cat`. Its echo shows that
        // `cat` runs.
        to.write_all(b"go\nhello\n").unwrap();
        from.read_line(&mut String::new()).unwrap();
        assert!(shell.is_replaced());
        drop(to);
        child.wait().unwrap();
        assert!(shell.is_replaced());
        assert!(!AddressSpace::open(pid, first).is_replaced(), "unknown counts as not replaced");
    }
}
