//! Instructions that one look at a recorded process takes, counted by valgrind.

use crate::support::{self, recorded};
use gilprof::profile::ProfileBuilder;
use gilprof::units::Nanos;

/// Instructions of one look at a recorded process with three busy threads, as this build (`profile.dev`) makes it: what was counted, and a
/// fifth more. A change that needs more should know it, and say so here.
const INSTRUCTIONS: [(&str, u64); 2] = [("3.9-pyenv-cpu", 30_600), ("3.15-debian-sid-cpu", 31_500)];

#[test]
fn a_look_takes_no_more_instructions_than_it_did() {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        support::skip("instructions of a look: valgrind is not installed");
        return;
    }
    for (name, most) in INSTRUCTIONS {
        let (few, many) = (instructions(name, 100), instructions(name, 1100));
        let each = (many - few) / 1000;
        eprintln!("{name}: {each} instructions a look");
        assert!(each > 500 && each <= most, "{name}: {each} instructions a look, of {most} at most");
    }
}

/// Of this very program making so many looks, its start included.
fn instructions(name: &str, samples: u64) -> u64 {
    let mut valgrind = std::process::Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    valgrind.args(["--ignored", "--exact", "sample_cost::replayed"]).env("GILPROF_LOOK", name).env("GILPROF_LOOKS", samples.to_string());
    let output = valgrind.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let count = said.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{said}")).1;
    count.trim().parse().unwrap()
}

#[test]
#[ignore = "for valgrind, which counts what it does"]
fn replayed() {
    let var = |name| std::env::var(name).unwrap();
    let (name, count): (String, u64) = (var("GILPROF_LOOK"), var("GILPROF_LOOKS").parse().unwrap());
    let recording = recorded::recorded().into_iter().find(|look| look.name == name).unwrap().recording;
    let source = Box::new(gilprof::process::replay::ReplayTarget::from_dump(&recording));
    let mut builder = ProfileBuilder::new();
    let (_, mut sampler) = gilprof::capture::recorded_sample::replay(&recording, source, &mut builder).unwrap();
    for n in 0..count {
        sampler.sample(Nanos::from_millis(1000 + n), Nanos::from_millis(1000 + n), &mut builder).unwrap();
    }
}
