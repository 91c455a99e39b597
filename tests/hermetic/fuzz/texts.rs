//! Parsers of text: procfs, cgroups, command lines, names of versions. The seeds are texts of a
//! kernel, with neutral names.

use super::harness::Fuzz;
use super::mutate::Mutator;
use gilprof::cli::values::{parse_duration, parse_pid, parse_rate};
use gilprof::gate::baseline::Baseline;
use gilprof::gate::expr::{Limit, Regression};
use gilprof::gate::limits::{Limits, TEMPLATE};
use gilprof::gate::metric::matches;
use gilprof::ids::Addr;
use gilprof::process::maps::Maps;
use gilprof::process::proc_info::{cpu_count, freezer_files, is_frozen, quota_in, stat_field, state_letter, Status, TaskStatus};
use gilprof::process::threads::{parse_schedstat, parse_syscall};
use gilprof::python::version::Version;

const MAPS: &str = "\
55d0c8a00000-55d0c8a01000 r--p 00000000 08:01 1443 /usr/bin/python3.11
55d0c8a01000-55d0c8a02000 r-xp 00001000 08:01 1443 /usr/bin/python3.11
55d0ca1c4000-55d0ca2f8000 rw-p 00000000 00:00 0                          [heap]
7f13a0000000-7f13a0021000 rw-p 00000000 00:00 0 
7f13a4c00000-7f13a4c5b000 r--p 00000000 fe:10 99221 /opt/my apps/lib/libpython3.9.so.1.0 (deleted)
7f13a4c5b000-7f13a4e00000 r-xp 0005b000 fe:10 99221 /opt/my apps/lib/libpython3.9.so.1.0 (deleted)
7f13a5000000-7f13a5001000 rw-s 00000000 00:05 18 /dev/a\\012b
7fffcb94a000-7fffcb96b000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";
const STATUS: &str = "Name:\tpython3: a\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t4242\nNgid:\t0\nPid:\t4242\nPPid:\t1\nTracerPid:\t0\n\
    Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nFDSize:\t64\nGroups:\t4 24 27\nNStgid:\t4242\t7\nNSpid:\t4242\t7\nKthread:\t0\n\
    VmPeak:\t  250312 kB\nThreads:\t4\nSigQ:\t0/63432\nCapEff:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t2\nCpus_allowed:\tf\n\
    Cpus_allowed_list:\t0-3,8\nvoluntary_ctxt_switches:\t150\n";
const STAT: &str = "4242 (py) R 1 (thon) S 1 4242 4242 0 -1 4194304 3116 0 0 0 12 3 0 0 20 0 4 0 98765 256319488 2612 18446744073709551615 1 1 0 0 0 0 0\n";
/// Groups, mounts and the contents of files, separated by a byte of 0x1e.
const CGROUPS: [&str; 4] = [
    "0::/system.slice/app.service\n\x1e30 20 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\x1e150000 100000\n",
    "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n\x1e31 20 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 20 0:28 / /cg2 rw - cgroup2 none rw\n\x1e50000\n",
    "5:freezer:/pod/x\n0::/b/c\n\x1e31 20 0:27 / /cg/my\\040freezer rw - cgroup none rw,freezer\n30 20 0:26 /b /cg2 rw - cgroup2 c rw\n\x1epopulated 1\nfrozen 1\n",
    "0::/../../x\n\x1e30 20 0:26 /a /sys/fs/cgroup rw - cgroup2 c rw\n\x1emax 100000\n",
];

fn seeds<'a>(texts: impl IntoIterator<Item = &'a str>) -> Mutator {
    Mutator::free(texts.into_iter().map(|text| text.as_bytes().to_vec()).collect())
}

/// A cheap parser of text.
fn text<'a>(name: &'static str, from: &[&str], parse: impl Fn(&str) -> bool + 'a) -> Fuzz<'a> {
    let parse = move |_, input: &[u8]| parse(&String::from_utf8_lossy(input));
    Fuzz { name, cost: 1, inputs: seeds(from.iter().copied()), parse: Box::new(parse) }
}

pub fn maps() -> Fuzz<'static> {
    let parse = |_, input: &[u8]| {
        let maps = Maps::parse(input);
        assert!(maps.mappings.iter().all(|mapping| mapping.start < mapping.end));
        if let Some(first) = maps.mappings.first() {
            assert!(maps.of_file(first).count() <= maps.mappings.len() && maps.at(first.start).is_some());
        }
        assert!(maps.at(Addr(u64::MAX)).is_none());
        maps.skipped == 0 && !maps.mappings.is_empty()
    };
    Fuzz { name: "maps", cost: 4, inputs: seeds(std::iter::once(MAPS).chain(MAPS.split_inclusive('\n'))), parse: Box::new(parse) }
}

pub fn status() -> Fuzz<'static> {
    let from: Vec<&str> = std::iter::once(STATUS).chain(STATUS.split_inclusive('\n')).collect();
    text("status", &from, |text| {
        let status = Status::parse(text);
        let known =
            [status.number("Tgid").is_some(), status.bits("CapEff").is_some(), status.state().is_some(), status.kernel_thread().is_some()];
        let numbers = status.numbers("NSpid").len() + status.numbers("Uid").len();
        let stops = TaskStatus::parse(text.as_bytes());
        assert!(stops.is_none_or(|status| status.letter.is_ascii_alphabetic() && status.tracer.is_none_or(|tid| tid.0 > 0)), "{stops:?}");
        known.contains(&true) || numbers > 0
    })
}

pub fn stat() -> Fuzz<'static> {
    text("stat", &[STAT], |text| {
        let fields = (0..60).filter(|&number| stat_field(text, number).is_some()).count();
        assert_eq!(stat_field(text, usize::MAX), None);
        assert!(state_letter(text.as_bytes()).is_none_or(|letter| letter.is_ascii_alphabetic()));
        fields > 0
    })
}

pub fn schedstat() -> Fuzz<'static> {
    let parse = |_, input: &[u8]| parse_schedstat(input).is_some();
    let from = ["56000519 34527596 104\n", "0 0 0\n", "18446744073709551615 1 2\n"];
    Fuzz { name: "schedstat", cost: 1, inputs: seeds(from), parse: Box::new(parse) }
}

pub fn kernel_stack() -> Fuzz<'static> {
    let parse = |_, input: &[u8]| gilprof::process::kernel_stack::parse(input).is_some();
    let from = [
        "",
        "[<0>] irqentry_exit_to_user_mode+0x110/0x1a0\n[<0>] asm_sysvec_apic_timer_interrupt+0x16/0x20\n",
        "[<0>] futex_wait_queue+0x6a/0x90\n[<0>] __futex_wait+0x150/0x1c0\n[<0>] do_futex+0xcb/0x190\n[<0>] do_syscall_64+0x71/0x280\n",
        "[<0>] syscall_exit_to_user_mode+0x1a/0x1c0\n[<0>] entry_SYSCALL_64_after_hwframe+0x76/0x7e\n",
    ];
    Fuzz { name: "kernel stack", cost: 1, inputs: seeds(from), parse: Box::new(parse) }
}

pub fn syscall() -> Fuzz<'static> {
    let parse = |_, input: &[u8]| parse_syscall(input).is_some();
    let from = [
        "running\n",
        "-1 0x7ffc00001000 0x7f0000001000\n",
        "202 0x7eff99f4e6f4 0x89 0x0 0x7eff9930e970 0x0 0xffffffff 0x7eff9930e840 0x7eff998a3f16\n",
        "0 0x0 0x55dbe0b99070 0x1000 0x0 0x0 0x7eff99f4e6e8 0x7fffcb968b80 0x7eff999162ec\n",
    ];
    Fuzz { name: "syscall", cost: 1, inputs: seeds(from), parse: Box::new(parse) }
}

pub fn cgroup() -> Fuzz<'static> {
    text("cgroup", &CGROUPS, |text| {
        let mut parts = text.splitn(3, '\x1e');
        let (groups, mounts, file) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let asked = std::cell::Cell::new(0);
        let quota = quota_in(groups, mounts, &|_| {
            asked.set(asked.get() + 1);
            Some(file.to_owned())
        });
        // At most two files a level and 64 levels a line.
        assert!(asked.get() <= 128 * groups.lines().count(), "{} files", asked.get());
        assert!(quota.is_none_or(|quota| quota >= 0.0), "{quota:?}");
        let files = freezer_files(groups, mounts);
        assert!(files.len() <= groups.lines().count() && files.iter().all(|path| path.split('/').all(|part| part != "..")), "{files:?}");
        let _ = (is_frozen(file.as_bytes(), true), is_frozen(file.as_bytes(), false));
        quota.is_some()
    })
}

pub fn cpu_list() -> Fuzz<'static> {
    text("CPU list", &["0-3,8\n", "0\n", "0-4294967294,5\n", "1,3,5-7\n"], |text| cpu_count(text).is_some_and(|cpus| cpus > 0))
}

pub fn versions() -> Fuzz<'static> {
    let from = [
        "3.11.7",
        "3.14.0rc1+",
        "2.7.18",
        "libpython3.7m.so.1.0",
        "python3.13t",
        "_json.cpython-310-x86_64-linux-gnu.so",
        "\u{f0}\0\u{b}\u{3}",
    ];
    text("versions", &from, |text| {
        let hex = text.bytes().take(8).fold(0, |hex, byte| hex << 8 | u64::from(byte));
        let found = [Version::from_text(text), Version::from_file_name(text), Version::from_hex(hex)];
        found.iter().flatten().for_each(|version| assert!(version.text.starts_with(&version.minor.0.to_string()), "{version:?}"));
        found.iter().any(Option::is_some)
    })
}

pub fn arguments() -> Fuzz<'static> {
    text("arguments", &["500ms", "10s", "1.5 h", "2min", "0", "1000", "4242", "0.1e4"], |text| {
        let rate = parse_rate(text);
        assert!(rate.as_ref().map_or(true, |rate| (1.0..=20_000.0).contains(rate)), "{rate:?}");
        let window = parse_duration(text);
        assert!(window.as_ref().map_or(true, |w| w.0.is_none_or(|w| (0.009..604_801.0).contains(&w.as_secs_f64()))), "{window:?}");
        rate.is_ok() || window.is_ok() || parse_pid(text).is_ok()
    })
}

pub fn limits() -> Fuzz<'static> {
    let from = [
        "waiting <= 20%",
        "gil.busy <= 0.9 @warn",
        "wait_ms.p99 < 25ms",
        "thread(\"worker-*\").waiting >= 30%",
        "function(\"app.py:parse\").inflicted_wait <= 0.5",
        "verdict not in [blocked-holding-gil, latency-victims]",
        "verdict == keep-threads",
        "waiting: +5pp, min 2pp",
        "gil.saturates_at: -1, min .5 @fail",
        "speedup.processes: +10%",
    ];
    text("limits", &from, |text| {
        let (limit, regression) = (Limit::parse(text), Regression::parse(text));
        // The written form of an accepted text is accepted again.
        if let Ok(limit) = &limit {
            assert_eq!(Limit::parse(&limit.to_string()).map(|again| again.to_string()), Ok(limit.to_string()));
        }
        if let Ok(regression) = &regression {
            assert_eq!(Regression::parse(&regression.to_string()).map(|again| again.to_string()), Ok(regression.to_string()));
        }
        assert!(limit.as_ref().err().into_iter().chain(regression.as_ref().err()).all(|error| !error.is_empty()));
        assert!(matches(text, text), "a glob means itself");
        limit.is_ok() || regression.is_ok()
    })
}

pub fn limits_files() -> Fuzz<'static> {
    let parse = |_, input: &[u8]| Limits::parse(&String::from_utf8_lossy(input)).is_ok();
    let from = [
        TEMPLATE,
        "[gate]\nmax = [\"waiting <= 20%\"]\nmax-regression = [\"waiting: +5pp\"]\nruns = 3\nbaseline = \"b.json\"\nrate = 500.0\n",
    ];
    Fuzz { name: "limits' files", cost: 30, inputs: seeds(from), parse: Box::new(parse) }
}

/// A small recording, of no particular program.
const BASELINE: &str = r#"{"schema":"gilprof.baseline/1","gilprof":"0.1.0","fingerprint":{"python":"3.11.7","free_threaded":false,"gil_enabled":true,"cores":2.0,
"quota":null,"rate_hz":1000.0,"exact":false,"switch_interval_us":5000,"cpu_model":"A","machine_cpus":2.0},"runs":[{"seconds":1.0,"samples":1000,"missed":0,
"verdict":"switch-to-processes","confidence":"high","resolution_ms":1.0,"process":{"wholes":[9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0,9.0],
"states":{"waiting":[5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0,5.0]}},"gil":null,"predicted":{"processes":{"estimate":1.9,"low":1.8,
"high":2.0}},"threads":[{"name":"w","shares":{"wholes":[],"states":{}}}],"functions":[{"name":"f","file":"a.py","line":1}],"stretch_us":62500.0}]}"#;

pub fn baselines() -> Fuzz<'static> {
    use gilprof::gate::expr::Regression;
    let regressions: Vec<Regression> =
        ["waiting: +5pp", "wait_ms.p99: +1ms", "thread(\"*\").io: -1pp", "function(\"*\").holding: +10%", "speedup.processes: +1"]
            .iter()
            .map(|text| Regression::parse(text).unwrap())
            .collect();
    let parse = move |_, input: &[u8]| {
        let Ok(baseline) = Baseline::parse(input) else { return false };
        for regression in &regressions {
            let check = gilprof::gate::check::regression(regression, &baseline.runs, &baseline.runs);
            assert!(!check.why.is_empty(), "{check:?}");
        }
        true
    };
    Fuzz { name: "baselines", cost: 30, inputs: seeds([BASELINE]), parse: Box::new(parse) }
}
