//! Instructions of one sample of a recorded process, counted by valgrind.

use crate::support::{self, recorded};
use gilprof::profile::{CoalescingSink, ProfileBuilder};
use gilprof::units::Nanos;

/// Instructions of one sample of a recorded process with three busy threads, in this build
/// (`profile.dev`): the counted number and some percent more. A change that needs more states the
/// new number here.
const INSTRUCTIONS: [(&str, u64); 2] = [("3.9-pyenv-cpu", 34_000), ("3.15-debian-sid-cpu", 34_000)];
/// What incremental compilation adds. Cargo says by this variable that there is none, as in CI.
const INCREMENTAL: u64 = 2_500;

#[test]
fn a_sample_takes_no_more_instructions_than_before() {
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        support::skip("instructions of a sample: valgrind is not installed");
        return;
    }
    let more = if std::env::var("CARGO_INCREMENTAL").is_ok_and(|set| set == "0") { 0 } else { INCREMENTAL };
    for (name, most) in INSTRUCTIONS.map(|(name, most)| (name, most + more)) {
        let (few, many) = (instructions(name, 100), instructions(name, 1100));
        let each = (many - few) / 1000;
        eprintln!("{name}: {each} instructions a sample");
        assert!(each > 500 && each <= most, "{name}: {each} instructions a sample, of {most} at most");
    }
}

/// Instructions of this test program when it takes so many samples, its start included.
fn instructions(name: &str, samples: u64) -> u64 {
    let mut valgrind = std::process::Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    valgrind
        .args(["--ignored", "--exact", "sample_cost::replayed"])
        .env("GILPROF_TEST_RECORDING", name)
        .env("GILPROF_TEST_SAMPLES", samples.to_string());
    let output = valgrind.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{text}")).1;
    count.trim().parse().unwrap()
}

#[test]
#[ignore = "for valgrind, which counts its instructions"]
fn replayed() {
    let var = |name| std::env::var(name).unwrap();
    let (name, count): (String, u64) = (var("GILPROF_TEST_RECORDING"), var("GILPROF_TEST_SAMPLES").parse().unwrap());
    let recording = recorded::recorded().into_iter().find(|sample| sample.name == name).unwrap().recording;
    let source = Box::new(gilprof::process::replay::ReplayTarget::from_dump(&recording));
    let mut builder = CoalescingSink::new(ProfileBuilder::new());
    let (_, mut sampler) = gilprof::capture::recorded_sample::replay(&recording, source, &mut builder).unwrap();
    for n in 0..count {
        sampler.sample(Nanos::from_millis(1000 + n), Nanos::from_millis(1000 + n), &mut builder).unwrap();
    }
}
