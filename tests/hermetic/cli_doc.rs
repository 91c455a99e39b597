//! `docs/cli.md` against the command line: each command has its section, each section names exactly
//! that command's options with their defaults and possible values, and the table of exit codes is
//! complete.

use crate::support;
use clap::{Arg, Command, CommandFactory};
use gilprof::cli::{args::Cli, exit};
use gilprof::gate::evaluate::gate_exit;
use std::collections::{BTreeMap, BTreeSet};

/// The lines below each heading, by the heading's text.
fn sections(document: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut out = BTreeMap::new();
    let mut heading = "";
    for line in document.lines() {
        match line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')) {
            Some(text) => heading = text,
            None => out.entry(heading).or_insert_with(Vec::new).push(line),
        }
    }
    out
}

/// The rows of options below a heading, by long name, with those of the sections that it refers to.
fn options<'a>(sections: &BTreeMap<&str, Vec<&'a str>>, heading: &str) -> BTreeMap<&'a str, &'a str> {
    let lines = sections.get(heading).unwrap_or_else(|| panic!("docs/cli.md has no section {heading:?}"));
    let mut out: BTreeMap<&str, &str> = lines.iter().filter_map(|line| Some((long(line)?, *line))).collect();
    for (shared, link) in
        [("Measuring options", "[measuring options](#measuring-options)"), ("Output options", "[output options](#output-options)")]
    {
        // A row may point there too; only a sentence takes the options over.
        if lines.iter().any(|line| line.contains(link) && !line.starts_with('|')) {
            out.extend(options(sections, shared));
        }
    }
    out
}

/// `pid` of "| `-p`, `--pid PID` | …".
fn long(row: &str) -> Option<&str> {
    let first = row.strip_prefix("| ")?.split(" | ").next()?;
    let (_, name) = first.split_once("`--")?;
    name.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().filter(|name| !name.is_empty())
}

/// What a row leaves out of what clap knows.
fn missing(arg: &Arg, row: &str) -> Vec<String> {
    let takes_value = arg.get_action().takes_values();
    let values = arg.get_possible_values().into_iter().filter(|_| takes_value).map(|value| format!("`{}`", value.get_name()));
    let defaults = arg.get_default_values().iter().filter(|_| takes_value).map(|value| format!("`{}`", value.to_string_lossy()));
    let short = arg.get_short().map(|short| format!("`-{short}`, "));
    values.chain(defaults).chain(short).filter(|wanted| !row.contains(wanted.as_str())).collect()
}

fn commands(cli: &Command) -> impl Iterator<Item = &Command> {
    cli.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Where the document and these commands differ.
fn faults(cli: &Command, document: &str) -> Vec<String> {
    let sections = sections(document);
    let mut out = Vec::new();
    for command in commands(cli) {
        let heading = format!("gilprof {}", command.get_name());
        let documented = options(&sections, &heading);
        let mut defined = BTreeSet::new();
        for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            let Some(name) = arg.get_long() else { continue };
            defined.insert(name);
            match documented.get(name) {
                None => out.push(format!("{heading}: --{name} is not documented")),
                Some(row) => out.extend(missing(arg, row).iter().map(|what| format!("{heading}: --{name}: the row lacks {what}"))),
            }
        }
        let unknown = documented.keys().filter(|name| !defined.contains(*name));
        out.extend(unknown.map(|name| format!("{heading}: there is no option --{name}")));
    }
    let known: BTreeSet<String> = commands(cli).map(|command| format!("gilprof {}", command.get_name())).collect();
    let headings = sections.keys().filter(|heading| heading.starts_with("gilprof ") && !known.contains(**heading));
    out.extend(headings.map(|heading| format!("there is no command {heading:?}")));
    out
}

fn document() -> String {
    std::fs::read_to_string(support::repository().join("docs/cli.md")).unwrap()
}

fn cli() -> Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

#[test]
fn every_option_is_documented_and_no_other() {
    assert_eq!(faults(&cli(), &document()), [""; 0]);
}

#[test]
fn a_missing_a_wrong_and_an_old_option_are_found() {
    let document = document();
    for (from, to, found) in [
        ("`--by-thread`", "`--per-thread`", "gilprof diff: --by-thread is not documented"),
        ("`--by-thread`", "`--per-thread`", "gilprof diff: there is no option --per-thread"),
        ("| `10s` |", "| `5s` |", "gilprof attach: --duration: the row lacks `10s`"),
        ("`text`, or `json` ([gilprof.dump/1]", "`text` ([gilprof.dump/1]", "gilprof dump: --format: the row lacks `json`"),
        ("## Exit codes\n", "## gilprof watch\n", "there is no command \"gilprof watch\""),
    ] {
        let faults = faults(&cli(), &document.replace(from, to));
        assert!(faults.iter().any(|fault| fault == found), "{found}: {faults:#?}");
    }
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let document = document();
    let rows = &sections(&document)["Exit codes"];
    let code = |row: &&str| row.strip_prefix("| ")?.split(" | ").next()?.parse::<u8>().ok();
    let documented: Vec<u8> = rows.iter().filter_map(code).collect();
    assert_eq!(documented, exit::TABLE.map(|exit| exit.code));
}

/// The tables of both documents are the program's; the help and the comment of the shell script
/// have every code.
#[test]
fn the_exit_codes_of_the_gate_are_those_of_the_program() {
    let read = |file: &str| std::fs::read_to_string(support::repository().join(file)).unwrap();
    let rows: Vec<String> = gate_exit::TABLE.iter().map(|(code, when)| format!("| {code} | {when} |")).collect();
    for (file, heading) in [("docs/cli.md", "Exit codes of gilprof gate"), ("docs/gate.md", "Exit codes")] {
        let document = read(file);
        let is_row = |line: &&&str| line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(sections(&document)[heading].iter().filter(is_row).copied().collect::<Vec<&str>>(), rows, "{file}");
    }
    let help = support::gilprof(&["gate", "--help"]).stdout;
    for text in [String::from_utf8(help).unwrap(), read("examples/ci/gate.sh")] {
        let codes = text.split("xit code").skip(1).collect::<String>();
        let numbers: Vec<u8> = codes.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        assert!(gate_exit::TABLE.iter().all(|(code, _)| numbers.contains(code)), "{text}");
    }
}

#[test]
fn a_pid_needs_no_duration() {
    let help = String::from_utf8(support::gilprof(&["gate", "--help"]).stdout).unwrap();
    assert!(help.contains("--pid PID | RECORDING") && help.contains("10s with --pid"), "{help}");
    assert!(!document().contains("needs `--duration`"));
}

/// Formats of `--format` that clap does not list as possible values, and endings of `-o`.
#[test]
fn the_formats_of_the_gate_and_the_endings_of_files_are_documented() {
    let document = document();
    let refused = |args: &[&str]| String::from_utf8(support::gilprof(args).stderr).unwrap();
    let formats = refused(&["gate", "--format", "x"]);
    let formats = formats.split("a format is one of ").nth(1).unwrap().split(", and").next().unwrap().split(", ");
    let endings = refused(&["report", "-o", "x.unknown", "x.gilprof"]);
    let endings = endings.split([' ', ',', '\n', '(', ')']).filter(|word| word.starts_with('.') && word.len() > 2);
    let wanted: Vec<String> = formats.chain(endings).map(|word| format!("`{word}`")).collect();
    assert!(wanted.len() >= 7 + 9, "{wanted:?}");
    let absent: Vec<&String> = wanted.iter().filter(|word| !document.contains(word.as_str())).collect();
    assert!(absent.is_empty(), "{absent:?}");
}
