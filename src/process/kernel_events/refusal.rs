//! Why the kernel gives no events, in one sentence, with what helps.

use crate::process::procfs::{read_text, Status};
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

/// The oldest Linux whose programs may read the registers of a system call.
const OLDEST: (u32, u32) = (5, 15);
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
pub(super) const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why the kernel gives no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoKernelEvents {
    /// The step, after "failed to".
    pub step: &'static str,
    /// What is missing.
    pub missing: Missing,
}

/// What the kernel's events need and do not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The kernel is older than 5.15: its release.
    NewerKernel(String),
    /// The kernel has no description of its own types.
    Btf,
    /// The process has neither root's rights nor the two capabilities.
    Capabilities,
    /// The kernel is locked down.
    Unlocked,
    /// A seccomp filter, as containers have, refuses the call.
    Seccomp,
    /// Something else: the error.
    Other(String),
}

impl NoKernelEvents {
    /// The cause of an error, as far as the machine shows it.
    pub(super) fn new(step: &'static str, error: &(dyn Error + 'static)) -> NoKernelEvents {
        let refused = matches!(errno(error), Some(libc::EPERM | libc::EACCES | libc::ENOSYS));
        let facts = KernelFacts::here();
        NoKernelEvents { step, missing: facts.missing(refused).unwrap_or_else(|| Missing::Other(sentence(error))) }
    }
}

/// The error with its causes, as one line.
fn sentence(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    // The verifier's log has a line for each instruction; the last ones have the reason.
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [first, .., before, last] => format!("{first} … {before}; {last}"),
        few => few.join("; "),
    }
}

fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let own = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    own.or_else(|| errno(error.source()?))
}

/// What decides which cause an error has.
struct KernelFacts {
    release: String,
    has_btf: bool,
    capabilities: Option<u64>,
    lockdown: String,
    has_seccomp: bool,
}

impl KernelFacts {
    fn here() -> KernelFacts {
        let status = Status::own().ok();
        KernelFacts {
            release: read_text("/proc/sys/kernel/osrelease").unwrap_or_default().trim().into(),
            has_btf: File::open(BTF).is_ok_and(|mut file| file.read(&mut [0]).is_ok_and(|bytes| bytes > 0)),
            capabilities: status.as_ref().and_then(|status| status.bits("CapEff")),
            lockdown: read_text("/sys/kernel/security/lockdown").unwrap_or_default(),
            has_seccomp: status.and_then(|status| status.number("Seccomp")).is_some_and(|mode| mode != 0),
        }
    }

    fn missing(&self, refused: bool) -> Option<Missing> {
        let mut parts = self.release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
        if let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) {
            if (major, minor) < OLDEST {
                return Some(Missing::NewerKernel(self.release.clone()));
            }
        }
        if !self.has_btf {
            return Some(Missing::Btf);
        }
        if !refused {
            return None;
        }
        let has = |cap: u32| self.capabilities.is_none_or(|bits| bits >> cap & 1 == 1);
        if !(has(CAP_SYS_ADMIN) || has(CAP_BPF) && has(CAP_PERFMON)) {
            return Some(Missing::Capabilities);
        }
        if self.lockdown.contains("[confidentiality]") {
            return Some(Missing::Unlocked);
        }
        self.has_seccomp.then_some(Missing::Seccomp)
    }
}

impl fmt::Display for NoKernelEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step;
        match &self.missing {
            Missing::NewerKernel(release) => {
                write!(f, "kernel events need Linux {}.{}, and this is {release}: see `uname -r`", OLDEST.0, OLDEST.1)
            }
            Missing::Btf => write!(
                f,
                "kernel events need a kernel with BTF (CONFIG_DEBUG_INFO_BTF), and {BTF} is missing or cannot be read: see `ls -l {BTF}` \
                 and `grep BTF /boot/config-$(uname -r)`"
            ),
            Missing::Capabilities => write!(
                f,
                "failed to {step}: kernel events need root, or CAP_BPF and CAP_PERFMON: run with sudo, or \
                 `sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep` on gilprof"
            ),
            Missing::Unlocked => write!(
                f,
                "failed to {step}: the kernel is locked down for confidentiality, which forbids kernel events: see \
                 `cat /sys/kernel/security/lockdown`"
            ),
            Missing::Seccomp => write!(
                f,
                "failed to {step}: a seccomp filter refuses bpf(2) or perf_event_open(2), as in most containers: run gilprof on the \
                 host, or start the container with `--security-opt seccomp=unconfined --cap-add BPF --cap-add PERFMON`"
            ),
            Missing::Other(error) => write!(f, "failed to {step}: {error}"),
        }
    }
}

impl Error for NoKernelEvents {}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> KernelFacts {
        let lockdown = "[none] integrity confidentiality".into();
        KernelFacts { release: "6.18.44-fc".into(), has_btf: true, capabilities: Some(u64::MAX), lockdown, has_seccomp: false }
    }

    #[test]
    fn each_cause_is_distinguished() {
        assert_eq!(facts().missing(true), None);
        assert_eq!(KernelFacts { has_seccomp: true, ..facts() }.missing(true), Some(Missing::Seccomp));
        assert_eq!(KernelFacts { has_seccomp: true, ..facts() }.missing(false), None, "the filter did not refuse");
        let locked = || "none integrity [confidentiality]".into();
        assert_eq!(KernelFacts { lockdown: locked(), ..facts() }.missing(true), Some(Missing::Unlocked));
        for (bits, missing) in [(0, true), (1 << 39, true), (1 << 38, true), (3 << 38, false), (1 << 21, false)] {
            let found = KernelFacts { capabilities: Some(bits), ..facts() }.missing(true);
            assert_eq!(found, missing.then_some(Missing::Capabilities), "{bits:#x}");
        }
        assert_eq!(KernelFacts { has_btf: false, ..facts() }.missing(true), Some(Missing::Btf));
        for (release, old) in [("5.14.21-generic", true), ("5.15.0", false), ("4.19", true), ("6.1.0-rc1+", false), ("?", false)] {
            let found = KernelFacts { release: release.into(), ..facts() }.missing(false);
            assert_eq!(found, old.then(|| Missing::NewerKernel(release.into())));
        }
    }

    #[test]
    fn a_refusal_names_what_helps() {
        let text = |missing| NoKernelEvents { step: "load the programs", missing }.to_string();
        assert!(text(Missing::Capabilities).contains("setcap cap_bpf,cap_perfmon"));
        assert!(text(Missing::Btf).contains(BTF) && text(Missing::Unlocked).contains("lockdown"));
        let log = io::Error::other("refused\n1: (85) call\n\nR1 invalid\nprocessed 3 insns\n");
        assert_eq!(sentence(&log), "refused … R1 invalid; processed 3 insns");
        assert_eq!(errno(&io::Error::from_raw_os_error(libc::EPERM)), Some(libc::EPERM));
    }
}
