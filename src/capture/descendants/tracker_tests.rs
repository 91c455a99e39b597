//! The tracker on process trees made by hand.

use super::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

const TARGET: i32 = 100;

/// A process made by hand.
#[derive(Clone, Debug)]
struct Made {
    parent: i32,
    cpu: CpuTicks,
    executable: &'static str,
    python: Option<bool>,
}

#[derive(Clone, Default)]
struct Tree(Rc<RefCell<HashMap<i32, Made>>>);

impl Tree {
    /// A target at tick 50 that has used ten ticks.
    fn new() -> Tree {
        let tree = Tree::default();
        tree.start(TARGET, 1, 10, "/bin/app");
        tree
    }

    fn start(&self, pid: i32, parent: i32, start: u64, executable: &'static str) {
        let python = (!executable.is_empty()).then(|| executable.contains("python"));
        let cpu = CpuTicks { start: StartTime(start), parent: Pid(parent), own: 0, reaped: 0 };
        self.0.borrow_mut().insert(pid, Made { parent, cpu, executable, python });
    }

    fn burn(&self, pid: i32, ticks: u64) {
        self.0.borrow_mut().get_mut(&pid).unwrap().cpu.own += ticks;
    }

    fn exec(&self, pid: i32, executable: &'static str) {
        let mut all = self.0.borrow_mut();
        let made = all.get_mut(&pid).unwrap();
        (made.executable, made.python) = (executable, Some(executable.contains("python")));
    }

    /// Ends a process, whose parent waits for it.
    fn reap(&self, pid: i32) {
        let ended = self.0.borrow_mut().remove(&pid).unwrap();
        let mut all = self.0.borrow_mut();
        all.get_mut(&ended.parent).unwrap().cpu.reaped += ended.cpu.own + ended.cpu.reaped;
    }

    fn tracker(&self) -> DescendantTracker<Tree> {
        DescendantTracker::new(Pid(TARGET), self.clone())
    }
}

impl ProcessSource for Tree {
    fn children(&self, pid: Pid) -> Vec<Pid> {
        self.0.borrow().iter().filter(|(_, made)| made.parent == pid.0).map(|(&pid, _)| Pid(pid)).collect()
    }
    fn cpu(&self, pid: Pid) -> Option<CpuTicks> {
        self.0.borrow().get(&pid.0).map(|made| CpuTicks { parent: Pid(made.parent), ..made.cpu })
    }
    fn executable(&self, pid: Pid) -> Option<String> {
        self.0.borrow().get(&pid.0).map(|made| made.executable.to_string()).filter(|path| !path.is_empty())
    }
    fn is_python(&self, pid: Pid) -> Option<bool> {
        self.0.borrow().get(&pid.0)?.python
    }
    fn command(&self, pid: Pid) -> String {
        format!("command {pid}")
    }
    fn now(&self) -> Option<u64> {
        Some(50)
    }
}

fn ticks(time: Nanos) -> u64 {
    time.as_nanos() / proc_info::TICK.as_nanos()
}

/// Ticks of the target, of Python, of other programs, of unknown ones.
fn sums(tracker: &DescendantTracker<Tree>) -> [u64; 4] {
    let cpu = tracker.cpu().unwrap();
    [cpu.own, cpu.python, cpu.other, cpu.unknown].map(ticks)
}

#[test]
fn only_time_in_the_window_counts_and_grandchildren_count() {
    let tree = Tree::new();
    tree.start(101, TARGET, 20, "/usr/bin/python3");
    tree.burn(TARGET, 7);
    tree.burn(101, 500);
    let mut tracker = tree.tracker();
    assert_eq!(tracker.cpu(), None);
    assert!(tracker.poll());
    assert_eq!(sums(&tracker), [0; 4]);
    tree.burn(TARGET, 3);
    tree.burn(101, 40);
    // These start after the first poll.
    tree.start(102, 101, 60, "/usr/bin/python3");
    tree.start(103, 102, 61, "/usr/bin/cc");
    tree.burn(102, 20);
    tree.burn(103, 9);
    assert!(tracker.poll());
    assert_eq!(sums(&tracker), [3, 60, 9, 0]);
    let cpu = tracker.cpu().unwrap();
    assert_eq!((cpu.python_processes, cpu.other_processes), (2, 1));
    let largest: Vec<(i32, ProcessKind, u64)> = cpu.largest.iter().map(|d| (d.pid, d.kind, ticks(d.cpu))).collect();
    assert_eq!(largest, [(101, ProcessKind::Python, 40), (102, ProcessKind::Python, 20), (103, ProcessKind::Other, 9)]);
}

#[test]
fn processes_that_end_keep_their_time_and_are_not_counted_twice() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    tree.start(101, TARGET, 60, "/usr/bin/python3");
    tree.start(102, 101, 60, "/usr/bin/cc");
    tree.burn(101, 40);
    tree.burn(102, 30);
    tracker.poll();
    tree.reap(102);
    tree.burn(101, 5);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 45, 30, 0]);
    tree.reap(101);
    assert!(tracker.poll());
    assert_eq!(sums(&tracker), [0, 45, 30, 0]);
    assert!(tracker.cpu().unwrap().largest.iter().all(|descendant| descendant.ended));
    assert!(!tracker.poll(), "no descendants are left");
}

#[test]
fn what_no_poll_saw_is_unknown() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    tree.start(101, TARGET, 60, "/usr/bin/python3");
    tree.burn(101, 25);
    tree.reap(101);
    assert!(tracker.poll());
    assert_eq!(sums(&tracker), [0, 0, 0, 25]);
    // A zombie has its times, and no files.
    tree.start(102, TARGET, 61, "");
    tree.burn(102, 10);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 0, 0, 35]);
}

#[test]
fn a_child_is_what_it_executes() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    // Forked by a Python of another name.
    tree.start(101, TARGET, 60, "/bin/app");
    tree.burn(101, 4);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 4, 0, 0]);
    tree.exec(101, "/usr/bin/cc");
    tree.burn(101, 30);
    tracker.poll();
    tree.exec(101, "/usr/bin/python3");
    tree.burn(101, 5);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 9, 30, 0]);
    assert_eq!(tracker.cpu().unwrap().largest[0].kind, ProcessKind::Other);
}

#[test]
fn an_orphan_is_followed_and_a_reused_pid_is_another_process() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    tree.start(101, TARGET, 60, "/usr/bin/python3");
    tree.start(102, 101, 60, "/usr/bin/python3");
    tracker.poll();
    // The parent ends, and nobody waited for it; init adopts the child.
    tree.0.borrow_mut().remove(&101);
    tree.0.borrow_mut().get_mut(&102).unwrap().parent = 1;
    tree.burn(102, 12);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 12, 0, 0]);
    // Init waits for the child, so its time does not stand for that of one that no poll saw.
    tree.start(103, TARGET, 65, "/usr/bin/python3");
    tree.burn(103, 10);
    tree.reap(103);
    tree.0.borrow_mut().remove(&102);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 12, 0, 10]);
    tree.start(102, 1, 70, "/usr/bin/python3");
    tree.burn(102, 99);
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 12, 0, 10]);
}

#[test]
fn a_parent_that_ends_hands_on_what_it_gained() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    tree.start(101, TARGET, 60, "/usr/bin/python3");
    // Its child's id is lower: ids start again from the bottom.
    tree.start(51, 101, 61, "/usr/bin/cc");
    tree.burn(101, 4);
    tree.burn(51, 30);
    tracker.poll();
    tree.start(52, 101, 62, "/usr/bin/cc");
    tree.burn(52, 7);
    [52, 51, 101].into_iter().for_each(|pid| tree.reap(pid));
    tracker.poll();
    assert_eq!(sums(&tracker), [0, 4, 30, 7], "the child that no poll saw is unknown");
}

#[test]
fn a_target_that_is_gone_keeps_its_times() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    tree.burn(TARGET, 8);
    tracker.poll();
    tree.0.borrow_mut().clear();
    assert!(!tracker.poll());
    assert_eq!(sums(&tracker), [8, 0, 0, 0]);
}

#[test]
fn bounds_hold_in_a_deep_and_a_wide_tree() {
    let tree = Tree::new();
    let mut tracker = tree.tracker();
    tracker.poll();
    (0..40).for_each(|n| tree.start(200 + n, if n == 0 { TARGET } else { 199 + n }, 60, "/usr/bin/python3"));
    tracker.poll();
    assert_eq!(tracker.tracked.len(), usize::from(MAX_DEPTH));
    (0..2000).for_each(|n| tree.start(1000 + n, TARGET, 60, "/usr/bin/python3"));
    (0..2000).for_each(|n| tree.burn(1000 + n, 1));
    tracker.poll();
    assert_eq!(tracker.tracked.len(), MAX_PROCESSES);
    assert_eq!(tracker.cpu().unwrap().largest.len(), MAX_LISTED);
}
