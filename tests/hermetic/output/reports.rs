//! Reports made by hand, for the tests of the formats.

use gilprof::analysis::report::*;
use gilprof::analysis::service::report::{ProcessRow, ServiceReport};
use gilprof::sample::Resolver;

pub fn states(s: [f64; 7]) -> States {
    States { holding: s[0], waiting: s[1], native: s[2], starved: s[3], lock: s[4], io: s[5], unknown: s[6] }
}

pub fn thread(tid: i32, name: &str, cpu: f64, s: [f64; 7], h: [f64; 4]) -> Thread {
    Thread {
        tid,
        name: name.into(),
        python: true,
        gil: None,
        seconds: 10.0,
        cpu,
        states: states(s),
        holding: Holding { python: h[0], native: h[1], blocked: h[2], starved: h[3] },
        hold_ms: Some(Quantiles { mean: 5.1, p50: 5.1, p99: 9.8, max: 14.2, estimated: true, resolution_ms: Some(1.0), at_most: false }),
        wait_ms: None,
        acquisitions_per_s: 66.0,
        waits: None,
    }
}

pub fn function(name: &str, file: &str, line: u32, holding: f64, waiting: f64, inflicted: f64) -> FunctionRow {
    FunctionRow {
        name: name.into(),
        file: file.into(),
        line,
        holding,
        holding_native: holding / 10.0,
        holding_blocked: 0.0,
        waiting,
        inflicted_wait: inflicted,
        native: 0.002,
        lock: 0.0,
        io: 0.0,
        hot_line: line + 2,
        called_from: None,
    }
}

pub fn place(name: &str, file: &str, line: u32) -> Place {
    Place { name: name.into(), file: file.into(), line, called_from: None }
}

fn target() -> Target {
    Target {
        pid: 4242,
        parent: None,
        role: None,
        python: "3.11.7".into(),
        executable: "/usr/bin/python3.11".into(),
        command: ["python3", "-u", "/srv/app.py", "--port", "80"].map(String::from).to_vec(),
        free_threaded: false,
        gil_enabled: true,
        interpreters: 1,
        cpus: 2.0,
        switch_interval_us: Some(5000),
    }
}

/// A saturated program: three pure-Python workers.
pub fn saturated() -> Report {
    let estimate = |estimate, low, high| Some(Estimate { estimate, low, high });
    Report {
        schema: SCHEMA,
        gilprof: "0.1.0",
        target: target(),
        window: Window {
            begin_ns: 0,
            seconds: 10.0,
            rate_hz: 1000.0,
            samples: 9996,
            missed: 4,
            torn: 3,
            failed: 0,
            profiler_cpu: 0.021,
            exact: false,
            engine: Engine::Samples,
            engine_reason: None,
            resolver: Some(Resolver::KernelStack),
            events: None,
            lost_events: None,
            stopped_seconds: None,
            idle_cpus: None,
        },
        gil: Gil {
            busy: 0.993,
            contended: 0.98,
            waiters_mean: 1.9,
            switches_per_s: Some(201.4),
            hold_ms: Some(Quantiles {
                mean: 5.1,
                p50: 5.1,
                p99: 9.8,
                max: 14.2,
                estimated: true,
                resolution_ms: Some(1.0),
                at_most: false,
            }),
            wait_ms: Some(Quantiles {
                mean: 10.1,
                p50: 10.1,
                p99: 21.0,
                max: 40.3,
                estimated: true,
                resolution_ms: Some(1.0),
                at_most: false,
            }),
        },
        gils: vec![],
        threads: vec![
            thread(4242, "MainThread", 0.0004, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0], [0.0; 4]),
            thread(4243, "worker-0", 0.334, [0.334, 0.656, 0.003, 0.007, 0.0, 0.0, 0.0], [0.3, 0.034, 0.0, 0.0]),
            thread(4244, "worker-1", 0.33, [0.333, 0.667, 0.0, 0.0, 0.0, 0.0, 0.0], [0.333, 0.0, 0.0, 0.0]),
            thread(4245, "ThreadPoolExecutor-0_12", 0.2, [0.33, 0.6, 0.0, 0.0, 0.03, 0.0, 0.0], [0.13, 0.0, 0.2, 0.0]),
            Thread { python: false, ..thread(4246, "zstd", 0.5, [0.0, 0.0, 0.5, 0.02, 0.48, 0.0, 0.0], [0.0; 4]) },
        ],
        functions: vec![
            function("burn", "/srv/app.py", 12, 0.97, 1.9, 1.9),
            function("Server.handle_the_request_of_a_client", "/srv/lib/handlers_of_requests.py", 1200, 0.012, 0.02, 0.03),
            FunctionRow {
                called_from: Some(Caller { name: "idle".into(), file: "/srv/app.py".into(), line: 40, call_line: 44 }),
                ..function("Condition.wait", "/usr/lib/python3.11/threading.py", 288, 0.0, 0.0, 0.0)
            },
        ],
        blame: vec![
            Blame { waiter: place("burn", "/srv/app.py", 12), holder: Some(place("burn", "/srv/app.py", 12)), seconds: 18.2 },
            Blame { waiter: place("burn", "/srv/app.py", 12), holder: None, seconds: 0.4 },
        ],
        children: None,
        verdict: Verdict {
            code: Code::SwitchToProcesses,
            headline: "3 threads wait for the GIL 66 % of their time, 97 % of it behind burn (app.py:12).".into(),
            confidence: Confidence::High,
            speedup: Speedup {
                processes: estimate(1.95, 1.85, 2.0),
                free_threading: estimate(1.8, 1.6, 1.9),
                release_in_native: None,
                by_group: Vec::new(),
            },
            gil_saturates_at: Some(1.0),
            gil_saturates_at_interval: None,
            because: vec!["the GIL is held 99 % of the time, 90 % of that in Python code on the CPU".into()],
            next_steps: vec![
                "run burn (app.py:12) in a ProcessPoolExecutor; moving data between processes is not counted in the gain".into()
            ],
            sketch: Vec::new(),
            sketches: Vec::new(),
        },
        findings: vec![Finding {
            code: Code::BlockedHoldingGil,
            severity: Severity::Medium,
            evidence: "ThreadPoolExecutor-0_12 sleeps with the GIL 20 % of its time in flush (log.py:8)".into(),
            advice: "flush the log in a thread of its own".into(),
        }],
        what_if: Vec::new(),
        warnings: vec!["the machine was busy: 12 % of the time of threads was spent queueing for a core".into()],
    }
}

/// A free-threaded program that does nothing.
pub fn unknown() -> Report {
    let mut report = saturated();
    report.target.gil_enabled = false;
    report.target.free_threaded = true;
    report.target.command.clear();
    report.threads = vec![
        thread(1, "", f64::NAN, [f64::NAN; 7], [f64::NAN; 4]),
        thread(2, "half", 0.5, [0.5, 0., 0., 0., 0., 0., 0.], [0.5, 0., 0., 0.]),
    ];
    report.functions.clear();
    report.blame.clear();
    report.findings.clear();
    report.warnings.clear();
    report.gil = Gil::default();
    report.verdict.code = Code::GilDisabled;
    report.verdict.headline = "The GIL is switched off.".into();
    report.verdict.speedup = Speedup::default();
    report.verdict.gil_saturates_at = None;
    report.verdict.because.clear();
    report.verdict.next_steps.clear();
    report
}

/// Forty threads and three GILs.
pub fn crowd() -> Report {
    let mut report = saturated();
    let worker = |n: i32| thread(5000 + n, &format!("pool-{n}"), 0.02, [0.02, 0.3, 0.0, 0.0, 0.0, 0.68, 0.0], [0.02, 0.0, 0.0, 0.0]);
    report.threads = (0..40).map(worker).collect();
    report.gils = vec![report.gil.clone(), Gil::default(), Gil { switches_per_s: Some(3.0), ..Gil::default() }];
    report.target.switch_interval_us = None;
    report.functions = (0..14).map(|n| function(&format!("f{n}"), "m.py", n + 1, 0.05, 0.1, 0.2)).collect();
    report.warnings = (0..13).map(|n| format!("warning {n}")).collect();
    let child = |pid, kind, cores| ChildProcess { pid, command: "python worker.py".into(), kind, cores, ended: pid > 6001 };
    report.children = Some(Children {
        attach_command: String::new(),
        own_cores: 0.8,
        python_cores: 0.3,
        other_cores: 0.1,
        unknown_cores: 0.0,
        python_processes: 1,
        other_processes: 1,
        processes: vec![child(6001, ProcessKind::Python, 0.3), child(6002, ProcessKind::Other, 0.1)],
    });
    report
}

/// A process of the service below.
fn member(pid: i32, parent: i32, role: ProcessRole) -> Report {
    let mut report = saturated();
    report.target = Target { pid, parent: Some(parent), role: Some(role), ..report.target };
    report
}

/// A master with two workers, of which one waits, and what is said of all three.
pub fn service() -> (ServiceReport, Vec<Report>) {
    let mut master = member(4242, 1, ProcessRole::Master);
    master.verdict = Verdict { code: Code::Idle, headline: "Idle: nothing ran during the measurement.".into(), ..unknown().verdict };
    let mut calm = member(4250, 4242, ProcessRole::Worker);
    calm.verdict.code = Code::KeepThreads;
    let reports = vec![master, member(4249, 4242, ProcessRole::Worker), calm];
    let row = |report: usize, depth, busy, waiting, cpu| ProcessRow {
        pid: reports[report].target.pid,
        parent: reports[report].target.parent,
        depth,
        role: reports[report].target.role.unwrap(),
        report,
        helper: None,
        processes: 1,
        seconds: 10.0,
        threads: 4.0,
        busy,
        waiting,
        cpu,
        verdict: reports[report].verdict.code,
    };
    let group = ProcessRow { pid: 4260, processes: 37, seconds: 11.1, threads: 1.5, ..row(2, 1, 0.6, 0.02, 0.61) };
    let table = vec![row(0, 0, 0.0, 0.0, 0.004), row(1, 1, 0.99, 0.664, 0.98), row(2, 1, 0.1, 0.001, 0.12), group];
    let gain = Estimate { estimate: 1.7, low: 1.5, high: 1.9 };
    let verdict = Verdict {
        code: Code::SwitchToProcesses,
        headline: "Switch to processes: 8 workers of 2 threads would be about 1.7x faster (1.5 - 1.9) on these 8 cores.".into(),
        speedup: Speedup { processes: Some(gain), ..Speedup::default() },
        gil_saturates_at: None,
        gil_saturates_at_interval: None,
        because: vec!["4 workers, each with 4 threads that wait for the GIL 60 % of their time.".into()],
        next_steps: vec!["Start 8 workers of 2 threads in place of 4 workers with 4 threads each.".into()],
        sketch: Vec::new(),
        sketches: Vec::new(),
        ..reports[1].verdict.clone()
    };
    let what_if = vec![WhatIf { question: "workers=8,threads=2".into(), gain: Some(gain), note: "the work of all workers".into() }];
    let roles = reports.iter().filter_map(|report| report.target.role).collect();
    let service = ServiceReport {
        verdict,
        processes: 40,
        measured_share: Some(0.93),
        refused: Vec::new(),
        unmeasured_python_cores: Some(0.0),
        other_cores: Some(0.12),
        table,
        what_if,
        roles,
        most_waiting: vec![1],
    };
    (service, reports)
}
