//! The CPUs of a program that nothing uses: what it could have in addition, without taking any from
//! other programs.

use super::affinity::CpuSet;
use super::procfs::read_text;
use super::sys_linux;
use crate::ids::Tid;
use crate::units::Nanos;

/// One tick of `/proc/stat`: `USER_HZ` is 100 on all machines that Linux runs on (proc_stat(5)).
const TICK: Nanos = Nanos::from_millis(10);

/// The time that some CPUs were idle, since a start.
#[derive(Debug)]
pub struct IdleCpus {
    cpus: CpuSet,
    /// The time on the monotonic clock, and the idle time then.
    start: (Nanos, Nanos),
}

impl IdleCpus {
    /// Starts to measure the CPUs that a thread may use; `None` if they or their time cannot be
    /// read.
    pub fn start(tid: Tid) -> Option<IdleCpus> {
        let cpus = CpuSet::of_thread(tid)?;
        let start = (sys_linux::monotonic(), idle_time(&read_text("/proc/stat").ok()?, &cpus)?);
        Some(IdleCpus { cpus, start })
    }

    /// How many of these CPUs have been idle since the start, on average; `None` if no time has
    /// passed, or it cannot be read any more.
    pub fn mean(&self) -> Option<f64> {
        let idle = idle_time(&read_text("/proc/stat").ok()?, &self.cpus)?.saturating_since(self.start.1);
        let passed = sys_linux::monotonic().saturating_since(self.start.0);
        (passed > Nanos::ZERO).then(|| idle.as_secs_f64() / passed.as_secs_f64())
    }
}

/// The sum of idle and iowait of these CPUs; `None` if a line is not as expected, or there is none.
fn idle_time(stat: &str, cpus: &CpuSet) -> Option<Nanos> {
    let (mut ticks, mut seen) = (0_u64, false);
    for line in stat.lines().filter(|line| line.starts_with("cpu")) {
        let mut fields = line.split_ascii_whitespace();
        // The first line is the sum of all.
        let Ok(cpu) = fields.next()?.strip_prefix("cpu")?.parse::<usize>() else { continue };
        if !cpus.contains(cpu) {
            continue;
        }
        let mut times = fields.skip(3).map(|field| field.parse::<u64>().ok());
        ticks = ticks.checked_add(times.next()??)?.checked_add(times.next()??)?;
        seen = true;
    }
    seen.then(|| Nanos::from_nanos(ticks.saturating_mul(TICK.as_nanos())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "cpu  9 9 9 9 9 9 9 0 0 0\ncpu0 1 2 3 100 20 0 0 0 0 0\ncpu1 1 2 3 1000 0 0 0 0 0 0\nintr 5 cpu\nctxt 7\n";

    fn set(mask: u64) -> CpuSet {
        CpuSet::from_words(vec![mask])
    }

    #[test]
    fn idle_and_iowait_of_the_given_cpus_are_summed() {
        assert_eq!(idle_time(STAT, &set(0b01)), Some(Nanos::from_millis(1200)));
        assert_eq!(idle_time(STAT, &set(0b11)), Some(Nanos::from_millis(11_200)));
        assert_eq!(idle_time(STAT, &set(0b100)), None);
        assert_eq!(idle_time("cpu0 1 2 3\n", &set(1)), None);
        assert_eq!(idle_time(&format!("cpu0 1 2 3 {} 1\n", u64::MAX), &set(1)), None);
    }

    #[test]
    fn the_idle_time_of_this_machine_is_read() {
        // The monotonic clock and the idle time both begin when the machine starts. One tick more
        // or less is nothing then.
        let own = IdleCpus::start(Tid(std::process::id() as i32)).unwrap();
        let (cpus, since_boot) = (f64::from(own.cpus.count()), IdleCpus { start: (Nanos::ZERO, Nanos::ZERO), ..own });
        let mean = since_boot.mean().unwrap();
        assert!(mean > 0.0 && mean <= cpus * 1.01, "{mean} of {cpus}");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "(cpu[0-9]{0,20}( [0-9]{0,20}){0,6}\n|.{0,30}\n){0,5}") {
            idle_time(&text, &set(u64::MAX));
        }
    }
}
