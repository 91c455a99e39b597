//! Whether a process still runs the program that was found in it: `exec` puts another in its place, under the same pid.
//!
//! Addresses alone do not tell. An interpreter that is not position-independent (Debian's) comes back at the same ones, with the same
//! version, and what was learnt of the old one's code objects would then be told of the new one's.

use crate::ids::{Addr, Pid};
use crate::process::proc_info::live_task;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// One program in one process.
#[derive(Debug)]
pub struct AddressSpace {
    memory: Option<File>,
    at: Addr,
}

impl AddressSpace {
    /// The program that the process runs now; `at` is an address that it has mapped.
    pub fn open(pid: Pid, at: Addr) -> AddressSpace {
        AddressSpace { memory: File::open(format!("/proc/{}/mem", live_task(pid))).ok(), at }
    }

    /// Whether it runs no longer, be it that the process ended or that it runs another program. Unknown is no.
    pub fn is_replaced(&self) -> bool {
        // The file stays with the address space that it was opened on. Once no process uses that any more, there is nothing to read.
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
    fn a_program_is_over_once_another_runs_in_its_place() {
        let mut child = Command::new("sh").args(["-c", "read go; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut to, mut from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let pid = Pid(child.id() as i32);
        let first = Maps::from_pid(pid).unwrap().mappings.iter().find(|m| m.readable).unwrap().start;
        let shell = AddressSpace::open(pid, first);
        assert!(!shell.is_replaced());
        // One byte at a time is what `read` takes, so that the second line is for `cat`, whose echo shows that it runs.
        to.write_all(b"go\nhello\n").unwrap();
        from.read_line(&mut String::new()).unwrap();
        assert!(shell.is_replaced());
        drop(to);
        child.wait().unwrap();
        assert!(shell.is_replaced());
        assert!(!AddressSpace::open(pid, first).is_replaced(), "nothing is known of a process that is gone");
    }
}
