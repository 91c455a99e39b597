//! What can stop a program as a whole, and how it goes on.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What stopped a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopCause {
    /// SIGSTOP, Ctrl-Z or another stop signal.
    Signal,
    /// A tracer: a debugger, strace, a profiler that stops the program. `None` if it is not known
    /// which: it is in another PID namespace, or gone.
    Tracer(Option<Tracer>),
    /// The freezer of its cgroup.
    Cgroup {
        /// The cgroup that was frozen, as a directory.
        directory: String,
        /// The command that thaws it.
        thaw: String,
    },
}

/// A process that traces another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tracer {
    /// Its process id.
    pub pid: i32,
    /// The kernel's name of it.
    pub name: String,
}

/// How long one cause stopped the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stop {
    /// The cause.
    pub cause: StopCause,
    /// Time in which the program as a whole stood still. Zero if only single threads did.
    pub seconds: f64,
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopCause::Signal => f.write_str("stopped by a signal (SIGSTOP, Ctrl-Z)"),
            StopCause::Tracer(Some(tracer)) => write!(f, "stopped by {tracer}, which traces it"),
            StopCause::Tracer(None) => f.write_str("stopped by a tracer (a debugger or another profiler)"),
            StopCause::Cgroup { directory, .. } => write!(f, "frozen by its cgroup {directory}"),
        }
    }
}

impl fmt::Display for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl StopCause {
    /// What lets the process go on: a command, or what to do with the tracer.
    pub fn remedy(&self, pid: i32) -> String {
        match self {
            StopCause::Signal => format!("kill -CONT {pid}"),
            StopCause::Tracer(Some(tracer)) => format!("end {tracer}, or let it detach"),
            StopCause::Tracer(None) => "end the tracer, or let it detach".into(),
            StopCause::Cgroup { thaw, .. } => format!("{thaw} (or docker unpause, systemctl thaw)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signal_is_undone_by_a_signal() {
        let gdb = StopCause::Tracer(Some(Tracer { pid: 7, name: "gdb".into() }));
        let frozen = StopCause::Cgroup { directory: "/cg/x".into(), thaw: "echo 0 > /cg/x/cgroup.freeze".into() };
        assert_eq!(StopCause::Signal.remedy(3), "kill -CONT 3");
        assert_eq!(
            (gdb.to_string().as_str(), gdb.remedy(3).as_str()),
            ("stopped by gdb (pid 7), which traces it", "end gdb (pid 7), or let it detach")
        );
        assert!(frozen.to_string().ends_with("cgroup /cg/x") && frozen.remedy(3).starts_with("echo 0 > /cg/x/cgroup.freeze"));
        for cause in [gdb, frozen, StopCause::Tracer(None)] {
            assert!(!cause.remedy(3).contains("CONT"), "{cause:?}");
            let text = serde_json::to_string(&cause).unwrap();
            assert_eq!(serde_json::from_str::<StopCause>(&text).unwrap(), cause);
        }
    }
}
