//! Arguments that the command line refuses before it searches for a process, and the text of
//! `--help`.

use crate::support::{self, cli, scratch};
use cli::{as_nobody, gilprof, Running};
use std::path::Path;

#[test]
fn numbers_that_are_none_or_out_of_range() {
    let table: &[(&[&str], &str)] = &[
        (&["attach", "--pid", "abc"], "a process id is a positive number"),
        (&["attach", "--pid", "0"], "a process id is a positive number"),
        (&["attach", "--pid", "-7"], "a process id is a positive number"),
        (&["dump", "--pid", "99999999999"], "a process id is a positive number"),
        (&["attach", "--pid", "1", "--rate", "fast"], "a rate is a number of samples per second"),
        (&["attach", "--pid", "1", "--rate", "0"], "a rate is between 1 and 20000"),
        (&["attach", "--pid", "1", "--rate", "-5"], "a rate is between 1 and 20000"),
        (&["attach", "--pid", "1", "--rate", "1e9"], "a rate is between 1 and 20000"),
        (&["attach", "--pid", "1", "--duration", "long"], "a duration is a number with a unit"),
        (&["attach", "--pid", "1", "--duration", "-1s"], "a duration is a number with a unit"),
        (&["attach", "--pid", "1", "--duration", "5y"], "a duration is a number with a unit"),
        (&["attach", "--pid", "1", "--duration", "1ms"], "a duration is at least 10ms"),
        (&["attach", "--pid", "1", "--duration", "9999h"], "a duration is at most a week"),
        (&["attach", "--pid", "1", "--duration", "1s", "--rate", "1"], "the window is too short for samples 1.0 s apart"),
        (&["run", "--rate", "x", "--", "true"], "a rate is a number of samples per second"),
        (&["attach", "--pid", "1", "--format", "xml"], "possible values: text, json"),
        (&["attach", "--pid", "1", "--flame", "x"], "possible values: holding, waiting, native, wall, blame]"),
        (&["attach"], "--pid <PID>"),
        (&["run"], "CMD"),
        (&["profile"], "unrecognized subcommand 'profile'"),
        (&[], "Usage: gilprof <COMMAND>"),
    ];
    for (args, words) in table {
        let output = gilprof(args);
        assert!(output.out.is_empty(), "{args:?}: {output:?}");
        output.ended(2, &[words]);
    }
}

#[test]
fn outputs_are_tried_before_anything_else() {
    let folder = scratch("outputs");
    std::fs::create_dir_all(folder.join("folder.svg")).unwrap();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    const ENDINGS: [&str; 6] = [
        "use an ending of .gilprof (recording), .html (page for a browser), .svg (flamegraph),",
        ".json (report)",
        ".folded, .folded.txt or .collapsed (folded stacks), .pb.gz or .pprof (pprof)",
        ".speedscope.json",
        ".firefox.json or .firefox.json.gz (Firefox Profiler)",
        ".pftrace or .perfetto-trace (Perfetto)",
    ];
    // No process has this pid: the error about the files comes first.
    let table = [
        (path("missing/x.svg"), 10, &["missing/x.svg: No such file or directory"][..]),
        (path("folder.svg"), 10, &["folder.svg: Is a directory"]),
        (path("x.pdf"), 2, &ENDINGS),
        (path("noending"), 2, &ENDINGS),
    ];
    for (bad, code, words) in table {
        let good = path("good.json");
        gilprof(&["attach", "--pid", "2147483647", "-o", &good, "-o", &bad]).ended(code, words);
        gilprof(&["run", "-o", &good, "-o", &bad, "--", "touch", &path("started")]).ended(code, words);
        assert!(!Path::new(&good).exists() && !Path::new(&path("started")).exists());
    }
    gilprof(&["attach", "--pid", "2147483647", "-o", &path("good.svg")]).ended(3, &[]);
    assert!(!Path::new(&path("good.svg")).exists(), "made for nothing");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_is_not_ours_to_write() {
    let file = scratch("read-only.json");
    std::fs::write(&file, "before").unwrap();
    let mut rights = std::fs::metadata(&file).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&file, rights).unwrap();
    let args = ["attach", "--pid", "2147483647", "-o", file.to_str().unwrap()];
    let command = if support::is_root() { as_nobody(&args) } else { Some(support::gilprof_command(&args)) };
    if let Some(command) = command {
        Running::spawn(command).end().ended(10, &["Permission denied"]);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "before");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn help_is_short_and_has_an_example() {
    for command in ["attach", "run", "dump"] {
        let (long, short) = (gilprof(&[command, "--help"]), gilprof(&[command, "-h"]));
        long.ended(0, &[]).printed(&["Usage: gilprof", "Options:", &format!("Example:\n  gilprof {command} ")]);
        assert_eq!(long.out, short.out);
        assert!(long.out.lines().count() <= 30 && long.out.lines().all(|line| line.chars().count() <= 100), "{}", long.out);
    }
    let top = gilprof(&["top", "--help"]);
    top.ended(0, &[]).printed(&["Usage: gilprof top", "Examples:\n  gilprof top\n"]);
    assert!(top.out.lines().count() <= 30 && top.out.lines().all(|line| line.chars().count() <= 100), "{}", top.out);
    gilprof(&["--help"]).ended(0, &[]).printed(&["attach", "run", "dump", "Examples:\n  gilprof attach --pid 4242\n"]);
    gilprof(&["--version"]).ended(0, &[]).printed(&[concat!("gilprof ", env!("CARGO_PKG_VERSION"))]);
}
