//! Folded stacks, flamegraphs and dumps.

use super::golden;
use gilprof::ids::Tid;
use gilprof::output::collapsed::{self, FlameInput, FlameMode, FlameRow, GroupBy};
use gilprof::output::{dump, flamegraph, sanitize};
use gilprof::sample::{Evidence, Frame, Function, Stack, StackStatus, State, StateTimes, TargetInfo, ThreadSnapshot};
use proptest::prelude::*;
use std::sync::Arc;

const MODES: [FlameMode; 3] = [FlameMode::Holding, FlameMode::Waiting, FlameMode::Wall];

fn stack(names: &[&str], status: StackStatus) -> Stack {
    let frame = |(n, name): (usize, &&str)| Frame {
        function: Arc::new(Function { name: name.to_string(), file: "/srv/app.py".into(), first_line: 10 * n as u32 }),
        line: 10 * n as u32 + 4,
    };
    Stack { frames: names.iter().enumerate().map(frame).collect(), status }
}

fn split(parts: &[(State, f64)]) -> StateTimes {
    let mut times = StateTimes::default();
    parts.iter().for_each(|&(state, ms)| times.add(state, ms * 1e6));
    times
}

/// Four threads that together show every mark.
fn profile() -> Vec<(&'static str, Stack, StateTimes)> {
    use State::*;
    vec![
        ("worker-0", stack(&["main", "burn"], StackStatus::Complete), split(&[(HoldingPython, 300.0), (Waiting, 600.0)])),
        (
            "worker-1",
            stack(&["main", "burn"], StackStatus::Complete),
            split(&[(HoldingPython, 100.0), (HoldingNative, 150.0), (Waiting, 650.0)]),
        ),
        ("worker-1", stack(&["main", "log;me\n"], StackStatus::Complete), split(&[(HoldingBlocked, 50.0), (Lock, 40.0), (Unknown, 10.0)])),
        ("worker-2", stack(&["main", "tick"], StackStatus::Torn), split(&[(HoldingStarved, 20.0), (Starved, 5.0), (Native, 75.0)])),
        ("worker-2", stack(&["deep"], StackStatus::Truncated), split(&[(HoldingPython, 25.0), (Io, 25.0)])),
        ("zstd", Stack::empty(), split(&[(Native, 400.0), (HoldingPython, 0.0001)])),
    ]
}

fn input(rows: &[(&'static str, Stack, StateTimes)], mode: FlameMode, group_by: GroupBy) -> FlameInput<'static> {
    let rows =
        rows.to_vec().leak().iter().map(|(thread, stack, times)| FlameRow { process: None, thread, tid: None, stack, times }).collect();
    FlameInput {
        title: "app.py, pid 4242".into(),
        subtitle: "5.0 s, 4 996 samples".into(),
        seconds: 5.0,
        mode,
        group_by,
        rows,
        waits: Vec::new(),
    }
}

/// Names that differ only in white space, names that several threads have, and no name.
#[test]
fn threads_stay_apart() {
    let (stack, times) = (stack(&["f"], StackStatus::Complete), split(&[(State::HoldingPython, 1.0)]));
    let names = [
        ("a", None),
        ("a ", None),
        ("\u{a0}a", None),
        (" ", None),
        ("", None),
        (" # ", None),
        ("#a ", None),
        ("b", Some(1)),
        ("b", Some(2)),
    ];
    let rows = names.map(|(thread, tid)| FlameRow { process: None, thread, tid, stack: &stack, times: &times });
    let lines = |group_by| -> Vec<String> {
        let input = FlameInput { rows: rows.to_vec(), ..FlameInput::empty(FlameMode::Holding, group_by) };
        collapsed::fold(&input).into_keys().map(|line| line.split(';').next().unwrap().to_owned()).collect()
    };
    let apart = ["?", "\\x20#\\x20", "\\x20", "\\x23a\\x20", "\\xa0a", "a", "a\\x20", "b [1]", "b [2]"];
    assert_eq!(lines(GroupBy::Thread), apart);
    assert_eq!(lines(GroupBy::ThreadName), [&apart[..7], &["b"]].concat());
}

#[test]
fn folded_stacks_match_their_golden_file() {
    golden("holding.folded", &collapsed::render(&input(&profile(), FlameMode::Holding, GroupBy::Nothing)));
    golden("waiting.folded", &collapsed::render(&input(&profile(), FlameMode::Waiting, GroupBy::Nothing)));
    golden("wall.folded", &collapsed::render(&input(&profile(), FlameMode::Wall, GroupBy::Thread)));
}

#[test]
fn folded_keeps_all_time() {
    let folded = collapsed::fold(&input(&profile(), FlameMode::Wall, GroupBy::Nothing));
    assert_eq!(folded.values().sum::<u64>(), 2_450_000);
    let holding = collapsed::fold(&input(&profile(), FlameMode::Holding, GroupBy::Nothing));
    assert_eq!(holding.values().sum::<u64>(), 645_000);
}

/// Width in weight, and fill, of the frame whose title begins with `frame`.
fn rectangle(svg: &str, frame: &str) -> (u64, String) {
    let at = svg.find(&format!("<title>{frame} (")).unwrap_or_else(|| panic!("no frame {frame}"));
    let attribute = |name: &str| {
        let tail = &svg[at..][svg[at..].find(&format!("{name}=\"")).unwrap() + name.len() + 2..];
        tail[..tail.find('"').unwrap()].to_string()
    };
    (attribute("fg:w").parse().unwrap(), attribute("fill"))
}

#[test]
fn widths_are_weights_and_colours_are_states() {
    let svg = flamegraph::render(&input(&profile(), FlameMode::Wall, GroupBy::Nothing)).unwrap();
    well_formed(&svg);
    assert_eq!(rectangle(&svg, "main (app.py)").0, 2_000_000);
    assert_eq!(rectangle(&svg, "[waiting]"), (1_250_000, "rgb(204,121,167)".into()));
    assert_eq!(rectangle(&svg, "[holding (native)]"), (150_000, "rgb(240,228,66)".into()));
    let holding = flamegraph::render(&input(&profile(), FlameMode::Holding, GroupBy::Thread)).unwrap();
    well_formed(&holding);
    assert_eq!(rectangle(&holding, "[in C call]").0, 150_000);
    assert_eq!(rectangle(&holding, "[asleep with the GIL]"), (50_000, "rgb(213,94,0)".into()));
    assert_eq!(rectangle(&holding, "worker-1").0, 300_000);
    for word in ["Time holding the GIL: app.py, pid 4242", "5.0 s, 4 996 samples", "microseconds"] {
        assert!(holding.contains(word), "{word}");
    }
    assert_eq!(holding, flamegraph::render(&input(&profile(), FlameMode::Holding, GroupBy::Thread)).unwrap());
}

#[test]
fn an_empty_picture_says_so_and_is_no_error() {
    for mode in MODES {
        let svg = flamegraph::render(&FlameInput { title: "<&]]>\u{1}".into(), ..input(&[], mode, GroupBy::Nothing) }).unwrap();
        well_formed(&svg);
        assert!(svg.contains("No"), "{svg}");
        assert_eq!(collapsed::render(&input(&[], mode, GroupBy::Nothing)), "");
    }
}

/// As much of XML as is needed to find a tag that does not close, a bare `<` or `&`, and a
/// character that may not occur.
fn well_formed(svg: &str) {
    assert!(!svg.chars().any(|c| (c != '\n' && c.is_control() && c != '\t' && c != '\r') || "\u{fffe}\u{ffff}".contains(c)));
    let mut open: Vec<&str> = Vec::new();
    let mut rest = svg;
    while let Some(at) = rest.find('<') {
        assert_text(&rest[..at]);
        rest = &rest[at..];
        let (start, end) = match rest {
            r if r.starts_with("<![CDATA[") => (9, "]]>"),
            r if r.starts_with("<!--") => (4, "-->"),
            _ => (1, ">"),
        };
        let length = start + rest[start..].find(end).expect("a tag that does not end");
        let tag = rest[start..length].trim_end_matches('/');
        match rest.as_bytes()[1] {
            b'!' | b'?' => {}
            b'/' => assert_eq!(open.pop(), Some(rest[2..length].trim()), "closes what is not open"),
            _ if rest[..length].ends_with('/') => assert_text(tag),
            _ => open.push(tag.split_whitespace().next().unwrap()),
        }
        rest = &rest[length + end.len()..];
    }
    assert!(open.is_empty(), "{open:?}");
}

fn assert_text(text: &str) {
    for after in text.split('&').skip(1) {
        assert!(after.find(';').is_some_and(|end| (1..=6).contains(&end)), "a bare & before {after:?}");
    }
}

fn views() -> Vec<ThreadSnapshot> {
    let view = |tid, name: &str, state, evidence, stack: Stack| ThreadSnapshot {
        tid: Tid(tid),
        name: name.into(),
        python: name != "zstd",
        state,
        evidence,
        stack: Arc::new(stack),
    };
    let mut no_line = stack(&["main", "burn"], StackStatus::Torn);
    no_line.frames[1].line = 0;
    vec![
        view(4242, "MainThread", State::Io, Evidence::Syscall, stack(&["main", "wait"], StackStatus::Complete)),
        view(4243, "worker-0", State::HoldingPython, Evidence::GilHolder, no_line),
        view(4244, "\x1b[2J\nThread 1", State::Waiting, Evidence::GilFutex, stack(&["burn\n"], StackStatus::Truncated)),
        view(4245, "newborn", State::Waiting, Evidence::GilRequested, Stack::empty()),
        view(4246, "zstd", State::Unknown, Evidence::Unread, Stack::empty()),
    ]
}

fn target() -> TargetInfo {
    let command = ["python", "app.py", "a\nb"].map(String::from).to_vec();
    TargetInfo {
        pid: 4242,
        python: "3.11.7".into(),
        executable: "/usr/bin/python3.11".into(),
        command,
        gil_enabled: true,
        ..TargetInfo::default()
    }
}

#[test]
fn dumps_match_their_golden_files() {
    golden("dump.txt", &dump::text(&target(), &views(), false));
    golden("dump.colour.txt", &dump::text(&target(), &views(), true));
    golden("dump.json", &dump::to_json(&target(), &views()).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn hostile_frames_stay_in_their_frame(name in any::<String>(), evil in "[\u{1b}\n; #0-9&<>\"\\]\u{fffe}-]{0,40}") {
        for name in [name, evil] {
            let stack = stack(&[&name, "leaf"], StackStatus::Complete);
            let times = split(&[(State::HoldingPython, 1.0), (State::Waiting, 2.0)]);
            let rows = vec![FlameRow { process: None, thread: &name, tid: None, stack: &stack, times: &times }];
            for (mode, group_by, depth) in [(FlameMode::Holding, GroupBy::Thread, 3), (FlameMode::Wall, GroupBy::Nothing, 3)] {
                let input = FlameInput { title: name.clone(), subtitle: name.clone(), seconds: 1.0, mode, group_by, rows: rows.clone(), waits: Vec::new() };
                let text = collapsed::render(&input);
                for line in text.lines() {
                    prop_assert_eq!(line.split(';').count(), depth);
                    prop_assert!(!line.chars().any(sanitize::is_hostile));
                    prop_assert!(line.rsplit_once(' ').unwrap().1.parse::<u64>().is_ok());
                }
                let svg = flamegraph::render(&input).unwrap();
                well_formed(&svg);
                prop_assert_eq!(rectangle(&svg, "all").0, if mode == FlameMode::Wall { 3000 } else { 1000 });
            }
            let view = ThreadSnapshot { tid: Tid(1), name: name.clone(), python: true, state: State::Io, evidence: Evidence::Syscall, stack: Arc::new(stack) };
            prop_assert_eq!(dump::text(&target(), &[view], false).lines().count(), 6);
        }
    }
}
