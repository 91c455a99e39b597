//! The programs in the kernel, on this process itself.

use super::*;
use crate::sample::{CpuRun, OffCpu};
use std::time::Duration;

/// A thread's runs follow each other, and its sleeps are seen.
#[test]
fn own_sleeps_are_seen() {
    let mut events = match KernelEvents::open(1000.0) {
        Ok(events) => events,
        Err(why) => return eprintln!("skipped: own_sleeps_are_seen: {why}"),
    };
    let own = Pid(std::process::id() as i32);
    events.watch(own, &TargetConfig::default()).unwrap();
    let (tid, began) = std::thread::spawn(|| {
        let began = crate::process::sys_linux::monotonic();
        (0..5).for_each(|_| std::thread::sleep(Duration::from_millis(2)));
        let link = std::fs::read_link("/proc/thread-self").unwrap();
        (Tid(link.file_name().unwrap().to_str().unwrap().parse().unwrap()), began)
    })
    .join()
    .unwrap();
    let mut runs: Vec<CpuRun> = Vec::new();
    let mut drained = |events: &mut KernelEvents| {
        events.drain(&mut |pid, of, record| {
            if let (Record::Run(run, _), true) = (record, (pid, of) == (own, tid)) {
                runs.push(run);
            }
        });
        runs.last().is_some_and(|run| run.off == OffCpu::Exited)
    };
    // `join` returns before the thread's last switch.
    for _ in 0..200 {
        if drained(&mut events) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(runs.iter().filter(|run| run.off == OffCpu::Syscall).count() >= 5, "{runs:#?}");
    assert_eq!(runs.last().unwrap().off, OffCpu::Exited);
    assert!(runs.first().unwrap().begin <= began);
    for pair in runs.windows(2) {
        assert_eq!(pair[0].number + 1, pair[1].number);
        assert!(pair[0].end <= pair[1].begin, "{pair:?}");
        if pair[0].off == OffCpu::Syscall {
            let wakeup = pair[1].wakeup.unwrap();
            assert!(pair[0].end <= wakeup.at && wakeup.at <= pair[1].begin && !wakeup.by_peer, "{pair:?}");
        }
    }
    let cost = events.cost().unwrap();
    assert!(cost.events as usize >= runs.len() && cost.time > Nanos::ZERO, "{cost:?}");
    assert_eq!(events.lost(), Some(0));
    let mut there = Vec::new();
    events.now(&mut |pid, tid, _| there.push((pid, tid)));
    assert!(!there.is_empty(), "other threads of this process run tests");
    assert!(!there.contains(&(own, tid)), "it has ended");
    events.forget(own);
    events.now(&mut |pid, tid, now| panic!("{pid} {tid} {now:?} after forget"));
}
