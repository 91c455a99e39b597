//! The CPU time of other programs than the test, gilprof and the target. On a busy machine, threads
//! lack CPU.

use std::time::Instant;

/// CPU time used until now, in clock ticks.
pub struct Load {
    at: Instant,
    machine: u64,
    ours: u64,
}

impl Load {
    /// The current figures, for a live target.
    pub fn now(target: i32) -> Load {
        // The time of this process, of its ended children (gilprof), and of the target.
        let ours = process("self", 4) + process(&target.to_string(), 2);
        Load { at: Instant::now(), machine: machine(), ours }
    }

    /// Cores that other programs have used since `before`, on average.
    pub fn others_since(&self, before: &Load) -> f64 {
        let ticks = (self.machine - before.machine).saturating_sub(self.ours - before.ours) as f64;
        ticks / 100.0 / (self.at - before.at).as_secs_f64() // USER_HZ is 100 on every Linux
    }
}

/// Busy time of all CPUs: user, nice, system, irq, softirq, steal.
fn machine() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap();
    let words: Vec<u64> = stat.lines().next().unwrap().split_ascii_whitespace().skip(1).map(|w| w.parse().unwrap()).collect();
    [0, 1, 2, 5, 6, 7].iter().filter_map(|&i| words.get(i)).sum()
}

/// User and system time of a process, and with four `fields` those of its ended children.
fn process(pid: &str, fields: usize) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let words = stat.rsplit(')').next().unwrap().split_ascii_whitespace().skip(11).take(fields);
    words.map(|w| w.parse::<u64>().unwrap()).sum()
}
