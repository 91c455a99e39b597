//! Services made of constructed processes, through the whole analysis.

use super::report::ServiceReport;
use super::service;
use crate::analysis::report::{Code, Confidence, ProcessRole, Report};
use crate::analysis::report_in_service;
use crate::analysis::testing::{children, Scene};
use crate::analysis::what_if::Question;
use crate::profile::Profile;
use crate::sample::{DescendantCpu, ProcessKind};
use crate::units::Nanos;

/// A process of the service.
struct Process {
    pid: i32,
    parent: i32,
    command: Vec<String>,
    /// When it was first measured, and for how many milliseconds.
    begin: u64,
    samples: u64,
    descendants: Option<DescendantCpu>,
    run: fn(u64) -> Vec<&'static str>,
}

fn process(pid: i32, parent: i32, run: fn(u64) -> Vec<&'static str>) -> Process {
    let command = ["python3", "/srv/app.py"].map(String::from).to_vec();
    Process { pid, parent, command, begin: 0, samples: 3000, descendants: None, run }
}

impl Process {
    fn command(self, command: &[&str]) -> Process {
        Process { command: command.iter().map(|word| (*word).to_string()).collect(), ..self }
    }

    fn between(self, begin: u64, end: u64) -> Process {
        Process { begin, samples: end - begin, ..self }
    }

    fn measure(&self, cores: f64, idle: f64) -> Profile {
        let scene = Scene::new(cores).with(|target, window| {
            target.pid = self.pid;
            target.parent = Some(self.parent);
            target.command = self.command.clone();
            window.begin = Nanos::from_millis(1_000 + self.begin);
            window.idle_cpus = Some(idle);
            window.descendants = self.descendants.clone();
        });
        scene.run(self.samples, self.run)
    }
}

fn measured(cores: f64, idle: f64, processes: &[Process]) -> Vec<(Profile, Report)> {
    let profiles = processes.iter().map(|process| process.measure(cores, idle));
    profiles.map(|profile| (profile.clone(), report_in_service(&profile, &[]))).collect()
}

fn asked(cores: f64, idle: f64, processes: &[Process], questions: &[&str]) -> ServiceReport {
    let all = measured(cores, idle, processes);
    let questions: Vec<Question> = questions.iter().map(|text| Question::parse(text).unwrap()).collect();
    let of: Vec<(&Profile, &Report)> = all.iter().map(|(profile, report)| (profile, report)).collect();
    service(&of, &questions)
}

fn verdict(cores: f64, idle: f64, processes: &[Process]) -> ServiceReport {
    asked(cores, idle, processes, &[])
}

/// The processes 10 to 13 of one master.
fn workers(count: i32, run: fn(u64) -> Vec<&'static str>) -> Vec<Process> {
    let master = process(1, 0, |_| vec!["I accept"]);
    std::iter::once(master).chain((10..10 + count).map(|pid| process(pid, 1, run))).collect()
}

/// Four threads take turns at the GIL.
const TURNS: fn(u64) -> Vec<&'static str> = |t| {
    let mut all = vec!["I accept", "W burn", "W burn", "W burn", "W burn"];
    all[1 + (t / 5 % 4) as usize] = "P burn";
    all
};
const BURNS: fn(u64) -> Vec<&'static str> = |_| vec!["P burn"];
const SERVES: fn(u64) -> Vec<&'static str> = |t| match t % 20 {
    0 => vec!["I accept", "P serve", "I recv"],
    10 => vec!["I accept", "I recv", "P serve"],
    _ => vec!["I accept", "I recv", "I recv"],
};

#[test]
fn contended_threads_need_more_workers_with_fewer_threads() {
    let s = verdict(8.0, 4.0, &workers(4, TURNS));
    assert_eq!((s.verdict.code, s.verdict.confidence), (Code::SwitchToProcesses, Confidence::High), "{:?}", s.verdict);
    assert_eq!(s.verdict.headline, "Switch to processes: 8 workers of 2 threads would be about 2.0x faster (1.9 - 2.5) on these 8 cores.");
    assert_eq!(
        s.verdict.because[0],
        "4 workers, each with 4 threads that wait for the GIL 75 % of their time, 100 % of that while burn (app.py:12) holds it."
    );
    assert!(
        s.verdict.next_steps[0].starts_with("Start 8 workers of 2 threads in place of 4 workers with 4 threads each;"),
        "{:?}",
        s.verdict
    );
    let one = verdict(2.0, 1.0, &workers(1, TURNS));
    assert!(
        one.verdict.headline.starts_with("Switch to processes: 2 workers of 2 threads would be about 2.0x faster"),
        "{:?}",
        one.verdict
    );
    assert!(one.verdict.because[0].starts_with("The worker 10 has 4 threads that wait"), "{:?}", one.verdict);
}

#[test]
fn workers_that_compute_side_by_side_are_left_alone() {
    let s = verdict(4.0, 2.0, &workers(2, BURNS));
    assert_eq!(s.verdict.headline, "Already parallel: it runs in processes already and that pays: nobody waits.");
    assert!(s.verdict.next_steps[0].contains("About 2 cores are free"), "{:?}", s.verdict);
    assert!(s.verdict.speedup.processes.is_none() && s.most_waiting.is_empty());
    let full = verdict(2.0, 0.0, &workers(2, TURNS));
    assert_eq!(full.verdict.code, Code::AlreadyParallel, "{:?}", full.verdict);
    assert!(full.verdict.headline.contains("more workers would find no core"), "{:?}", full.verdict);
}

#[test]
fn more_computing_workers_than_cores_are_too_many() {
    let first = |t: u64| if t.is_multiple_of(2) { vec!["P burn"] } else { vec!["X burn"] };
    let second = |t: u64| if t.is_multiple_of(2) { vec!["X burn"] } else { vec!["P burn"] };
    let mut all = workers(2, first);
    all.extend([process(20, 1, second), process(21, 1, second)]);
    let s = asked(2.0, 0.0, &all, &["workers=2"]);
    assert_eq!(s.verdict.headline, "Too many workers: 4 want a core at the same time, and there are 2 cores.");
    assert_eq!(s.verdict.code, Code::CpuStarved);
    assert!(s.verdict.next_steps[0].starts_with("Start fewer workers: 2 workers can use all of the 2 cores"), "{:?}", s.verdict);
    let gain = s.what_if[0].gain.unwrap();
    assert!((gain.estimate - 1.0).abs() < 0.1, "{gain:?}");
    // The same without a core because of others.
    let starved = |t: u64| if t.is_multiple_of(4) { vec!["P burn"] } else { vec!["X burn"] };
    let s = asked(2.0, 0.0, &workers(2, starved), &["workers=4"]);
    assert!(s.verdict.code == Code::CpuStarved && s.verdict.headline.starts_with("Short of CPU"), "{:?}", s.verdict);
    assert!(s.what_if[0].gain.is_none());
}

#[test]
fn one_hot_worker_is_named_and_balanced() {
    let mut all = workers(3, |t| if t.is_multiple_of(50) { vec!["P burn"] } else { vec!["I accept"] });
    all.push(process(13, 1, BURNS));
    let s = verdict(4.0, 2.5, &all);
    assert!(s.verdict.headline.starts_with("One hot worker: process 13 does 94 % of the work of 4 workers"), "{:?}", s.verdict);
    assert_eq!(s.verdict.code, Code::Serial);
    assert!(s.verdict.next_steps[0].starts_with("Balance the workers: find out what sends the work to 13 (app.py)"), "{:?}", s.verdict);
    all.pop();
    all.push(process(13, 1, TURNS));
    let s = verdict(4.0, 2.5, &all);
    assert_eq!(s.verdict.code, Code::SwitchToProcesses);
    assert!(s.verdict.because.iter().any(|fact| fact.starts_with("Its 4 threads in 4 processes would do ")), "{:?}", s.verdict);
}

#[test]
fn sleeping_workers_are_kept() {
    let s = verdict(2.0, 1.5, &workers(4, SERVES));
    assert_eq!(s.verdict.code, Code::KeepThreads, "{:?}", s.verdict);
    let bursts = |t: u64| {
        if t.is_multiple_of(20) {
            vec!["I accept", "P serve"]
        } else if t % 20 < 3 {
            vec!["I accept", "S recv"]
        } else {
            vec!["I accept", "I recv"]
        }
    };
    assert_eq!(verdict(2.0, 0.0, &workers(4, bursts)).verdict.code, Code::KeepThreads, "bursts that meet on a core do not limit");
    assert!(s.verdict.headline.starts_with("Keep threads: the 4 workers mostly wait for the outside world"), "{:?}", s.verdict);
}

#[test]
fn a_master_that_computes_is_named_with_its_function() {
    let mut all = workers(2, |t| if t.is_multiple_of(20) { vec!["P work"] } else { vec!["I recv"] });
    all[0] = process(1, 0, |_| vec!["P split"]);
    let s = verdict(4.0, 2.5, &all);
    assert_eq!(s.verdict.code, Code::Serial);
    assert_eq!(s.verdict.headline, "The master computes: process 1 does 91 % of the work, in split (app.py:12).");
    assert!(s.verdict.next_steps[0].contains("what split (app.py:12) does"), "{:?}", s.verdict);
}

#[test]
fn in_a_mixed_service_only_the_contended_workers_are_split() {
    let mut all = workers(1, TURNS);
    all.push(process(11, 1, |t| if t.is_multiple_of(5) { vec!["I accept", "P fetch"] } else { vec!["I accept", "I recv"] }));
    let s = verdict(4.0, 2.5, &all);
    assert_eq!(s.verdict.code, Code::SwitchToProcesses, "{:?}", s.verdict);
    assert!(
        s.verdict.headline.starts_with("Switch to processes: 4 workers of 1 thread in place of 1 of 2 would be about"),
        "{:?}",
        s.verdict
    );
    assert!(s.verdict.because[1].starts_with("This is about 10. The other workers (11) do something else"), "{:?}", s.verdict);
}

#[test]
fn work_that_was_not_measured_is_not_judged() {
    let with = |own: u64, rows: &[(i32, ProcessKind, u64, bool)]| {
        let mut all = workers(1, SERVES);
        all[0].descendants = Some(children(own, rows));
        verdict(4.0, 1.0, &all)
    };
    let s = with(30, &[(77, ProcessKind::Other, 6000, false)]);
    assert_eq!((s.verdict.code, s.verdict.headline.contains("not Python")), (Code::Idle, true), "{:?}", s.verdict);
    assert!(s.measured_share.unwrap() < 0.1 && (s.other_cores.unwrap() - 2.0).abs() < 0.01, "{s:?}");
    let s = with(30, &[(77, ProcessKind::Python, 6000, false)]);
    assert_eq!(s.verdict.code, Code::Inconclusive);
    assert!(s.verdict.headline.starts_with("Inconclusive: most of the work is in Python processes"), "{:?}", s.verdict);
    // A part that was not measured is said.
    let mut all = workers(2, BURNS);
    all[0].descendants = Some(children(
        0,
        &[(10, ProcessKind::Python, 3000, false), (11, ProcessKind::Python, 3000, false), (77, ProcessKind::Other, 1500, false)],
    ));
    let s = verdict(4.0, 1.0, &all);
    assert_eq!((s.verdict.code, s.table[0].verdict), (Code::AlreadyParallel, Code::Idle), "the master's children were measured");
    assert!(s.verdict.because.last().unwrap().starts_with("The measured processes used 80 % of the CPU time"), "{:?}", s.verdict);
}

#[test]
fn recordings_of_different_times_are_no_service() {
    let s = verdict(4.0, 2.0, &[process(1, 0, BURNS).between(0, 3000), process(2, 0, BURNS).between(9000, 12_000)]);
    assert_eq!(s.verdict.code, Code::Inconclusive);
    assert!(s.verdict.headline.contains("not measured at the same time"));
}

#[test]
fn one_process_with_its_helpers_has_its_own_verdict() {
    let tracker = ["python3", "-c", "from multiprocessing.resource_tracker import main;main(5)"];
    let s = verdict(2.0, 1.0, &[process(1, 0, TURNS), process(2, 1, |_| vec!["I read"]).command(&tracker)]);
    assert_eq!((s.verdict.code, s.roles.as_slice()), (Code::SwitchToProcesses, &[ProcessRole::Worker, ProcessRole::Helper][..]));
    assert!(s.verdict.next_steps[0].contains("burn (app.py:12)"));
}

#[test]
fn forked_by_a_forkserver_is_a_worker_and_the_forkserver_a_helper() {
    let forkserver = ["python3", "-c", "from multiprocessing.forkserver import main; main(5)"];
    let s = verdict(
        4.0,
        2.0,
        &[
            process(1, 0, |_| vec!["I wait"]),
            process(2, 1, |_| vec!["I read"]).command(&forkserver),
            process(3, 2, BURNS).command(&forkserver),
            process(4, 2, BURNS).command(&forkserver),
        ],
    );
    use ProcessRole::{Helper, Master, Worker};
    assert_eq!(s.roles, [Master, Helper, Worker, Worker]);
    assert_eq!(s.table.iter().map(|row| (row.pid, row.depth)).collect::<Vec<_>>(), [(1, 0), (2, 1), (3, 2), (4, 2)]);
    assert_eq!((s.table[1].helper, s.table[2].helper), (Some("forkserver"), None));
}

#[test]
fn short_lived_workers_are_one_row_with_means_and_follow_each_other() {
    let mut all = vec![process(1, 0, |_| vec!["I wait"])];
    all.extend((0..20).map(|n| process(10 + n, 1, TURNS).between(300 * (n as u64 / 2), 300 * (n as u64 / 2 + 1))));
    let s = asked(4.0, 2.0, &all, &["workers=4,threads=2"]);
    assert_eq!((s.table.len(), s.table[1].processes, s.processes), (2, 20, 21));
    let row = &s.table[1];
    assert!((row.busy - 1.0).abs() < 0.01 && (row.waiting - 0.75).abs() < 0.02 && (row.seconds - 6.0).abs() < 1e-6, "{row:?}");
    assert!(s.what_if[0].note.contains("of which there are 2 with 8 working threads now"), "{:?}", s.what_if);
    assert!((s.what_if[0].gain.unwrap().estimate - 2.0).abs() < 0.15, "{:?}", s.what_if);
    assert!(s.verdict.headline.contains("4 workers of 2 threads"), "{:?}", s.verdict);
}

#[test]
fn an_idle_service_and_parents_in_a_circle_are_no_trouble() {
    let s = verdict(2.0, 2.0, &[process(1, 2, |_| vec!["I wait"]), process(2, 1, |_| vec!["I wait"])]);
    assert_eq!((s.verdict.code, s.table.len()), (Code::Idle, 2));
    let s = verdict(2.0, 2.0, &[process(1, 1, |_| vec!["I wait"]), process(1, 1, |_| vec!["I wait"])]);
    assert_eq!(s.table.len(), 2);
    let s = verdict(2.0, 2.0, &[process(1, 0, BURNS).between(0, 0), process(2, 0, BURNS).between(0, 0)]);
    assert_eq!(s.verdict.code, Code::Inconclusive);
}
