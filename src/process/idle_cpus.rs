//! The CPUs of a program that nothing uses: what it could have in addition, without taking any from
//! other programs.

use super::affinity::CpuSet;
use super::procfs::read_text;
use crate::ids::Tid;
use crate::units::Nanos;

/// One tick of `/proc/stat`: `USER_HZ` is 100 on all machines that Linux runs on (proc_stat(5)).
const TICK: Nanos = Nanos::from_millis(10);

/// The time that some CPUs were idle, since a start.
#[derive(Debug)]
pub struct IdleCpus {
    cpus: CpuSet,
    at_start: Nanos,
}

impl IdleCpus {
    /// Starts to measure the CPUs that a thread may use; `None` if they or their time cannot be
    /// read.
    pub fn start(tid: Tid) -> Option<IdleCpus> {
        let cpus = CpuSet::of_thread(tid)?;
        let at_start = idle_time(&read_text("/proc/stat").ok()?, &cpus)?;
        Some(IdleCpus { cpus, at_start })
    }

    /// The idle time of all these CPUs so far.
    pub fn so_far(&self) -> Option<Nanos> {
        Some(idle_time(&read_text("/proc/stat").ok()?, &self.cpus)?.saturating_since(self.at_start))
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
    fn the_idle_time_of_this_machine_grows_no_faster_than_its_cpus() {
        let idle = IdleCpus::start(Tid(std::process::id() as i32)).unwrap();
        assert!(idle.so_far().unwrap() < Nanos::from_millis(3_600_000));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "(cpu[0-9]{0,20}( [0-9]{0,20}){0,6}\n|.{0,30}\n){0,5}") {
            idle_time(&text, &set(u64::MAX));
        }
    }
}
