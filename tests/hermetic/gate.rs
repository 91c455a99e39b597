//! `gilprof gate` on a recording made by hand: its exit codes, formats and baselines. The unit
//! tests in src/gate cover its decisions.

mod doubts;
mod outputs;
mod scenes;

use crate::support::cli::Finished;
use crate::support::gate::{outcome, Folder};
use crate::support::schema::assert_valid;
use scenes::golden;
use serde_json::json;

/// The stdout contains these texts, across line breaks.
#[track_caller]
fn printed(output: &Finished, words: &[&str]) {
    let text = output.out.split_whitespace().collect::<Vec<_>>().join(" ");
    words.iter().for_each(|wanted| assert!(text.contains(wanted), "{wanted:?} is not in {output:#?}"));
}

#[test]
fn usage_is_code_2() {
    let folder = Folder::new("gate-usage");
    folder.put("bad.toml", "[gate]\nmax = [\"waitings <= 2%\"]");
    let some = ["--max", "waiting <= 20%"];
    for (args, words) in [
        (&["--max", "waitings <= 20%", "x.gilprof"][..], "no metric"),
        (&["--max", "waiting <= 20ms", "x.gilprof"], "no unit \"ms\""),
        (&["--max-regression", "waiting", "x.gilprof"], "a colon"),
        (&["--format", "yaml", "x.gilprof"], "human, json, junit"),
        (&["--format", "json=", "x.gilprof"], "a path is missing"),
        (&["x.gilprof"], "nothing to check"),
        (&some[..], "nothing to measure"),
        (&["--max", "waiting <= 20%", "--pid", "1", "x.gilprof"], "only one of"),
        (&["--max-regression", "waiting: +1pp", "x.gilprof"], "--baseline FILE"),
        (&["--update-baseline", "x.gilprof"], "--baseline FILE"),
        (&["--limits", "none.toml", "x.gilprof"], "gilprof gate --init"),
        (&["--limits", "bad.toml", "x.gilprof"], "there is no metric \"waitings\""),
        (&["--max", "waiting <= 20%", "--format", "json", "--format", "junit", "x.gilprof"], "only one format can be printed"),
        (&["--max", "waiting <= 20%", "--format", "json=nowhere/x.json", "x.gilprof"], "failed to write nowhere/x.json"),
        (&["--max", "waiting <= 20%", "--runs", "0", "x.gilprof"], "0"),
        // Options of the command are not gilprof's.
        (&["--max", "waiting <= 20%", "sh", "b.sh"], "`--` is missing before the command: gilprof gate … -- sh b.sh"),
        (&["-m", "waiting <= 20%", "-n", "3", "sh", "b.sh", "--seconds", "3"], "gilprof gate … -- sh b.sh --seconds 3"),
        (&["--max=waiting <= 20%", "--exact", "sh", "-m", "b"], "gilprof gate … -- sh -m b"),
        (&["--max", "waiting <= 20%", "b.py"], "gilprof gate … -- python3 b.py"),
    ] {
        folder.gate(args).ended(2, &[words]);
    }
}

#[test]
fn a_file_to_begin_with() {
    let folder = Folder::new("gate-init");
    folder.gate(&["--init"]).ended(0, &["wrote gilprof.toml"]);
    folder.gate(&["--init"]).ended(2, &["is there already"]);
    // The file is read without an option, and its content is checked.
    let output = folder.gate(&["--format", "json", &golden(&folder)]);
    let outcome = outcome(&output.out);
    assert_eq!(outcome["checks"][0]["expression"], "waiting <= 30%", "{outcome:#}");
}

#[test]
fn unreadable_recordings_are_code_4() {
    let folder = Folder::new("gate-unmeasured");
    let limit = ["--max", "waiting <= 20%"];
    let with = |more: &[&'static str]| folder.gate(&[&limit[..], more].concat());
    with(&["nothing.gilprof"]).ended(4, &[]).printed(&["NOT CHECKED", "nothing.gilprof"]);
    with(&["--pid", "999999999"]).ended(4, &[]).printed(&["no process with pid 999999999"]);
    with(&["--", "/nowhere/program"]).ended(4, &["failed to start /nowhere/program"]);
    with(&["--", "true"]).ended(4, &["before gilprof saw any Python"]);
}

/// Whatever its exit code is, it is not one of the gate's verdicts.
#[test]
fn a_command_that_fails_by_itself_is_code_5() {
    let folder = Folder::new("gate-command");
    for (script, exit_code, signal, how, passed_on) in [
        ("exit 1", Some(1), None, "the command ended with exit code 1: it failed by itself", 1),
        ("exit 3", Some(3), None, "the command ended with exit code 3: it failed by itself", 3),
        ("kill -9 $$", None, Some(9), "the command was ended by signal 9 (SIGKILL): it failed by itself", 137),
        // gilprof passes the signal on.
        ("kill -TERM $PPID; while :; do :; done", None, Some(15), "interrupted: the command was ended by signal 15 (SIGTERM)", 143),
    ] {
        let gate = |code: i32, more: &[&str]| {
            let args = ["--max", "waiting <= 20%", "--format", "human", "--format", "json=o.json"];
            folder.gate(&[&args[..], more, &["--", "sh", "-c", script]].concat()).ended(code, &["NOT CHECKED", how]);
            let outcome = assert_valid("gate", folder.read("o.json").as_bytes());
            assert_eq!(outcome["command_failure"], json!({ "exit_code": exit_code, "signal": signal }));
            assert!(outcome["exit_code"] == code && outcome["error"].as_str().unwrap().contains(how), "{outcome:#}");
        };
        gate(if how.starts_with("interrupted") { 130 } else { 5 }, &[]);
        gate(passed_on, &["--pass-exit-code"]);
    }
}

#[test]
fn two_checks_of_one_metric_have_different_names() {
    let folder = Folder::new("gate-names");
    let file = golden(&folder);
    let update = ["--baseline", "b.json", "--update-baseline", &file];
    folder.gate(&update).ended(0, &[]).printed(&["PASS", "Wrote the baseline b.json (1 run)."]);
    let args = ["--baseline", "b.json", "--max-regression", "gil.busy: +5pp", "--max", "gil.busy <= 0%", &file];
    folder.gate(&args).ended(1, &[]).printed(&["1 of 2 checks is broken: gil.busy <= 0%", "✗ gil.busy <= 0% burn ("]);
    let args = ["--max", "gil.busy <= 0%", "--max", "gil.busy <= 1%", "--max", "waiting <= 0% @warn", &file];
    let names = "2 of 3 checks are broken: gil.busy <= 0%, gil.busy <= 1%; 1 of 3 checks only warns: waiting";
    folder.gate(&args).ended(1, &[]).printed(&[names, "✗ gil.busy <= 0% ✗ gil.busy <= 1%"]);
}

#[test]
fn recordings_are_checked_as_runs_are() {
    let folder = Folder::new("gate-recordings");
    let file = golden(&folder);
    let checked = |args: &[&str]| {
        let output = folder.gate(&[&["--format", "json"], args, &[&file]].concat());
        let outcome = outcome(&output.out);
        assert_eq!(outcome["exit_code"].as_i64(), output.status.code().map(i64::from));
        outcome
    };
    let base = checked(&["--max", "gil.busy <= 100%"]);
    assert_eq!(
        (base["verdict"].as_str(), base["exit_code"].as_i64(), base["schema"].as_str()),
        (Some("pass"), Some(0), Some("gilprof.gate/1"))
    );
    assert_eq!(checked(&["--max", "gil.busy <= 0%"])["exit_code"], 1);
    let warned = checked(&["--max", "gil.busy <= 0% @warn"]);
    assert_eq!((warned["exit_code"].as_i64(), warned["verdict"].as_str()), (Some(0), Some("warn")));
    let none = checked(&["--max", "thread(\"nobody\").waiting <= 5%"]);
    assert_eq!((none["exit_code"].as_i64(), none["checks"][0]["measured"].is_null()), (Some(3), true), "{none:#}");
    // A limit of the file holds unless the command line has a limit on the same metric.
    folder.put("gilprof.toml", "[gate]\nmax = [\"gil.busy <= 0%\", \"gil.contended <= 100%\"]");
    assert_eq!(checked(&[])["exit_code"], 1);
    let mild = checked(&["--max", "gil.busy <= 100%"]);
    assert_eq!((mild["exit_code"].as_i64(), mild["checks"].as_array().unwrap().len()), (Some(0), 2), "{mild:#}");
    folder.put("other.toml", "[gate]\nmax = [\"gil.busy <= 100%\"]");
    assert_eq!(checked(&["--limits", "other.toml"])["exit_code"], 0);
}

#[test]
fn baselines_are_written_compared_and_refused() {
    let folder = Folder::new("gate-baselines");
    let file = golden(&folder);
    folder.gate(&["--baseline", "b.json", "--update-baseline", &file]).ended(0, &[]).printed(&["Wrote the baseline b.json (1 run)."]);
    folder.gate(&["--baseline", "b.json", "--max-regression", "gil.busy: +5pp", &file]).ended(0, &[]).printed(&["baseline "]);
    let text = folder.read("b.json");
    // Files of an earlier gilprof have other names of fields.
    let renamed = [("samples", "looks"), ("totals", "wholes"), ("bucket_us", "stretch_us")];
    let old = renamed.iter().fold(text.clone(), |text, (new, old)| {
        let new = format!("\"{new}\":");
        assert!(text.contains(&new), "{new}");
        text.replace(&new, &format!("\"{old}\":"))
    });
    folder.put("old.json", &old);
    folder.gate(&["--baseline", "old.json", "--max-regression", "gil.busy: +5pp", &file]).ended(0, &[]).printed(&["baseline "]);
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from} is not in the baseline: {}", &text[..text.len().min(800)]);
        folder.put("changed.json", &text.replace(from, to));
        folder.gate(&["--baseline", "changed.json", "--max-regression", "gil.busy: +5pp", &file])
    };
    printed(with("\"rate_hz\":1000.0", "\"rate_hz\":500.0").ended(3, &[]), &["the sampling rate was 500 Hz and is 1000 Hz"]);
    printed(with("\"quota\":null", "\"quota\":1.5").ended(3, &[]), &["the CPU quota was 1.50 CPUs and is none"]);
    printed(with("gilprof.baseline/1", "gilprof.baseline/0").ended(3, &[]), &["gilprof.baseline/0", "--update-baseline"]);
    printed(with("\"free_threaded\":false", "\"free_threaded\":true").ended(3, &[]), &["Python's build"]);
    printed(with("\"runs\":[", "\"runs\":[],\"more\":[").ended(2, &[]), &["write it again (--update-baseline)"]);
    // Every limit is checked, also when the comparison fails.
    folder.put("changed.json", &text.replace("\"rate_hz\":1000.0", "\"rate_hz\":500.0"));
    folder.gate(&["--baseline", "changed.json", "--max", "gil.busy <= 0%", &file]).ended(1, &[]);
    // The number of CPUs is known of live measurements only. The baseline gets another number.
    let machine = text.split("\"machine_cpus\":").nth(1).unwrap().split(['}', ',']).next().unwrap();
    let output = with(&format!("\"machine_cpus\":{machine}"), "\"machine_cpus\":512.0");
    printed(output.ended(0, &[]), &["the machine's number of CPUs was 512"]);
}

#[test]
fn a_limit_at_the_measured_value_is_inconclusive_and_a_duration_is_suggested() {
    let folder = Folder::new("gate-straddling");
    let file = golden(&folder);
    let measured = outcome(&folder.gate(&["--format", "json", "--max", "gil.waiters_mean <= 100", &file]).out);
    let value = measured["checks"][0]["measured"]["value"].as_f64().unwrap();
    let limit = format!("gil.waiters_mean <= {value:.6}");
    let output = folder.gate(&["--max", &limit, &file]);
    output.ended(3, &[]).printed(&["INCONCLUSIVE", "the limit is inside the interval"]);
}
