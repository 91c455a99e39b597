//! What the gate leaves in its files: the formats, and errors of the gate itself. No file of an
//! earlier build may be taken for a result.

use super::scenes::{golden, sleep, Scene};
use crate::support::cli::Finished;
use crate::support::gate::{outcome, Folder};

#[test]
fn each_format_to_its_file() {
    let folder = Folder::new("gate-formats");
    let formats = ["json=o.json", "junit=o.xml", "sarif=o.sarif", "markdown=o.md", "github=o.txt", "human=o.human"];
    let mut args = vec!["--max", "gil.busy <= 0%"];
    formats.iter().for_each(|format| args.extend(["--format", format]));
    let file = golden(&folder);
    args.push(&file);
    folder.gate(&args).ended(1, &[]).printed(&["FAIL", "✗ gil.busy <= 0%"]);
    assert_eq!(outcome(&folder.read("o.json"))["exit_code"], 1);
    assert_eq!(outcome(&folder.read("o.sarif"))["version"], "2.1.0");
    for (name, words) in [("o.xml", "<testsuites "), ("o.md", "The check is broken"), ("o.txt", "::error"), ("o.human", "✗ gil.busy")] {
        assert!(folder.read(name).contains(words), "{name}: {}", folder.read(name));
    }
}

/// Runs a gate that ends without checks, beside a file of last night and one that is new.
#[track_caller]
fn both_files_say_why(folder: &Folder, args: &[&str], code: i32, why: &str) {
    folder.put("old.xml", "<testsuites errors=\"0\" green, and longer than anything else ");
    let _ = std::fs::remove_file(folder.0.join("new.json"));
    let output = folder.gate(&[&["--format", "junit=old.xml", "--format", "json=new.json"], args].concat());
    output.ended(code, &[]).printed(&["NOT CHECKED", why]);
    assert!(folder.read("old.xml").contains("<error message=") && !folder.read("old.xml").contains("green"), "{}", folder.read("old.xml"));
    let outcome = outcome(&folder.read("new.json"));
    assert!(outcome["exit_code"] == code && outcome["error"].as_str().unwrap().contains(why), "{outcome:#}");
}

#[test]
fn every_error_is_written_to_the_files() {
    let folder = Folder::new("gate-errors");
    let file = golden(&folder);
    let slower = Scene::new().with(|_, window| window.rate_hz = 500.0).write(&folder, "slower.gilprof");
    let idle = Scene::new().in_states(sleep).write(&folder, "idle.gilprof");
    folder.put("empty.json", "{}");
    folder.put("other.json", "{\"schema\": \"gilprof.baseline/0\"}");
    let limit = ["--max", "gil.busy <= 100%"];
    let with = |more: &[&'static str], files: &[&str]| -> Vec<String> {
        [&limit[..], more, files].concat().into_iter().map(String::from).collect()
    };
    let without_limit = ["--baseline", "b.json", "--update-baseline", &idle].map(String::from).to_vec();
    for (args, code, why) in [
        (with(&[], &[&file, &slower]), 3, "the sampling rate was 1000 Hz and is 500 Hz"),
        (without_limit, 3, "cannot make a baseline of these runs"),
        (with(&["--baseline", "nowhere/b.json", "--update-baseline"], &[&file]), 2, "failed to write the baseline nowhere/b.json"),
        (with(&["--baseline", "none.json"], &[&file]), 2, "--update-baseline"),
        (with(&["--baseline", "empty.json"], &[&file]), 2, "not a baseline written by gilprof"),
        (with(&["--baseline", "other.json"], &[&file]), 3, "gilprof.baseline/0"),
        (with(&[], &["nothing.gilprof"]), 4, "nothing.gilprof"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        both_files_say_why(&folder, &args, code, why);
    }
    assert!(!folder.0.join("b.json").exists());
}

#[test]
fn limits_are_not_enforced_while_a_baseline_is_made() {
    let folder = Folder::new("gate-update");
    let file = golden(&folder);
    let gate =
        |baseline: &str, more: &[&str]| folder.gate(&[&["--max", "gil.busy <= 0%", "--baseline", baseline][..], more, &[&file]].concat());
    let update = ["--update-baseline"];
    gate("b.json", &update).ended(0, &[]).printed(&[
        "WARN Wrote the baseline b.json (1 run). The check only warns: gil.busy",
        "! gil.busy <= 0%",
        "all of the interval is above the limit",
        "limits are shown but not enforced while a baseline is made",
    ]);
    gate("b.json", &[]).ended(1, &[]).printed(&["FAIL", "✗ gil.busy <= 0%"]);
    gate("nowhere/b.json", &update).ended(2, &[]).printed(&["NOT CHECKED", "failed to write the baseline nowhere/b.json"]);
}

#[test]
fn an_output_that_cannot_be_written_does_not_hide_the_result() {
    let folder = Folder::new("gate-full-disk");
    let file = golden(&folder);
    let gate = |limit: &str| -> Finished { folder.gate(&["--max", limit, "--format", "human", "--format", "json=/dev/full", &file]) };
    gate("gil.busy <= 0%").ended(1, &["failed to write /dev/full"]).printed(&["FAIL"]);
    gate("gil.busy <= 100%").ended(2, &["failed to write /dev/full"]).printed(&["PASS"]);
}
