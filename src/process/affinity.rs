//! The CPUs that each thread may use, and how many of them the work of a program can use.
//!
//! An affinity belongs to a thread: `taskset` and a pod's static CPUs set it for all threads, but
//! `os.sched_setaffinity(0, …)` only for the calling one and those that it starts later.

use super::sys_linux;
use crate::ids::Tid;
use crate::units::Nanos;

/// Distinct sets of CPUs that are kept apart. Threads with further sets are left out.
const MAX_SETS: usize = 256;
/// Share of its life for which a thread uses a CPU, from which it counts as working.
const WORKING: f64 = 0.01;

/// A set of CPUs, as the kernel's bit mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(Vec<u64>);

impl CpuSet {
    /// The CPUs that a thread may use; `None` if it has exited.
    pub fn of_thread(tid: Tid) -> Option<CpuSet> {
        sys_linux::affinity(tid).map(CpuSet::from_words)
    }

    pub(super) fn from_words(mut words: Vec<u64>) -> CpuSet {
        words.truncate(words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1));
        CpuSet(words)
    }

    pub(super) fn contains(&self, cpu: usize) -> bool {
        self.0.get(cpu / 64).is_some_and(|word| word & 1 << (cpu % 64) != 0)
    }

    pub(super) fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    fn is_within(&self, other: &CpuSet) -> bool {
        self.0.iter().enumerate().all(|(i, word)| word & !other.0.get(i).copied().unwrap_or(0) == 0)
    }

    fn union(&self, other: &CpuSet) -> CpuSet {
        let word = |set: &CpuSet, i: usize| set.0.get(i).copied().unwrap_or(0);
        CpuSet((0..self.0.len().max(other.0.len())).map(|i| word(self, i) | word(other, i)).collect())
    }
}

/// The threads that worked and may use the same CPUs.
#[derive(Clone, Debug)]
struct SharedSet {
    cpus: CpuSet,
    threads: usize,
    cpu_time: f64,
}

/// The CPUs that the working threads of a program may use.
#[derive(Clone, Debug, Default)]
pub struct WorkingCpus {
    groups: Vec<SharedSet>,
}

impl WorkingCpus {
    /// Adds a thread that used a CPU for `cpu_time` of its `life`.
    pub fn add(&mut self, cpus: &CpuSet, cpu_time: Nanos, life: Nanos) {
        let (cpu_time, life) = (cpu_time.as_nanos() as f64, life.as_nanos() as f64);
        if cpus.count() == 0 || cpu_time <= life * WORKING {
            return;
        }
        match self.groups.iter().position(|group| group.cpus == *cpus) {
            Some(known) => {
                self.groups[known].threads += 1;
                self.groups[known].cpu_time += cpu_time;
            }
            None if self.groups.len() < MAX_SETS => self.groups.push(SharedSet { cpus: cpus.clone(), threads: 1, cpu_time }),
            None => {}
        }
    }

    /// How many CPUs the work can use at once; `None` if no thread worked. Work is done in the
    /// proportions that were measured. So threads that do a share `s` of it on `n` CPUs of their
    /// own, and are more than `n`, limit all of the work to `n / s` CPUs.
    pub fn count(&self) -> Option<u32> {
        let all = self.groups.iter().fold(CpuSet::default(), |all, group| all.union(&group.cpus));
        let total: f64 = self.groups.iter().map(|group| group.cpu_time).sum();
        let limit = |cpus: &CpuSet| {
            let within = || self.groups.iter().filter(|group| group.cpus.is_within(cpus));
            let (threads, used) = (within().map(|group| group.threads).sum::<usize>(), within().map(|group| group.cpu_time).sum::<f64>());
            (threads > cpus.count() as usize).then(|| (f64::from(cpus.count()) * total / used).round() as u32)
        };
        let limits = self.groups.iter().filter_map(|group| limit(&group.cpus)).chain([all.count()]);
        limits.min().filter(|count| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The usable CPUs of threads, each with its mask and its share of a second of CPU time.
    fn usable(threads: &[(u64, f64)]) -> Option<u32> {
        let mut working = WorkingCpus::default();
        for (mask, share) in threads {
            working.add(&CpuSet::from_words(vec![*mask, 0]), Nanos::from_nanos((share * 1e9) as u64), Nanos::from_millis(1000));
        }
        working.count()
    }

    #[test]
    fn threads_that_share_a_cpu_limit_the_work_to_it() {
        assert_eq!(usable(&[(0b11, 0.0), (0b01, 0.5), (0b01, 0.5)]), Some(1), "the main thread may use both, and sleeps");
        assert_eq!(usable(&[(0b11, 0.05), (0b01, 0.45), (0b01, 0.45)]), Some(1), "it works a little");
        assert_eq!(usable(&[(0b11, 0.6), (0b01, 0.2), (0b01, 0.2)]), Some(2), "it does most of the work");
        assert_eq!(usable(&[(0b1111, 0.25); 4]), Some(4));
    }

    #[test]
    fn threads_with_cpus_of_their_own_use_all_of_them() {
        assert_eq!(usable(&[(0b01, 0.4), (0b10, 0.6)]), Some(2));
        assert_eq!(usable(&[(1, 0.1), (2, 0.4), (4, 0.3), (8, 0.2)]), Some(4));
        assert_eq!(usable(&[(1, 0.26), (1, 0.26), (2, 0.24), (2, 0.24)]), Some(2));
        assert_eq!(usable(&[(0b1, 0.5), (0b1110, 0.5)]), Some(4), "one main thread apart from the pool");
    }

    #[test]
    fn without_work_nothing_is_known() {
        assert_eq!(usable(&[]), None);
        assert_eq!(usable(&[(0b11, 0.005), (0, 0.5)]), None);
    }

    #[test]
    fn own_affinity_is_read() {
        let own = CpuSet::of_thread(Tid(std::process::id() as i32)).unwrap();
        assert!(own.count() > 0 && own.is_within(&own));
        assert_eq!(CpuSet::of_thread(Tid(-1)), None);
    }
}
