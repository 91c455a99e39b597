//! `gilprof top` in a terminal: every key at both sizes, and a terminal that is as before however
//! it ends. tmux is the terminal.

use crate::harness::newest;
use crate::support::cli::{gilprof, quoted, signal, state, until};
use crate::support::{self, interpreters, Folder, Interpreter, Target};
use crate::{on, once};
use std::path::Path;
use std::process::Command;

pub fn cases(suite: &mut crate::harness::Suite) {
    let here = || newest(interpreters().into_iter().filter(|i| i.root.is_none()).collect());
    on!(
        suite,
        here(),
        [
            every_key_at_both_sizes,
            files_that_keys_write,
            signals_leave_the_terminal_as_it_was,
            a_stop_leaves_the_terminal_as_it_was,
            a_closed_terminal_ends_it,
            what_becomes_of_the_program_is_said,
            processes_of_the_host,
            names_choose_one_process,
            a_window_for_scripts,
        ]
    );
    once!(suite, [an_error_comes_before_the_screen]);
}

/// A tmux server of its own with one shell. Ended when dropped.
struct Terminal {
    folder: Folder,
}

impl Terminal {
    /// `None` and a skip where tmux is missing.
    fn open((columns, rows): (u16, u16)) -> Option<Terminal> {
        if !Command::new("tmux").arg("-V").output().is_ok_and(|out| out.status.success()) {
            support::skip("there is no tmux");
            return None;
        }
        let terminal = Terminal { folder: Folder::new("top") };
        let shell = "env PS1='ready> ' bash --norc --noprofile";
        let (columns, rows) = (columns.to_string(), rows.to_string());
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, shell]);
        terminal.shows("ready>");
        Some(terminal)
    }

    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.folder.path().join("tmux");
        let mut command = Command::new("tmux");
        command.arg("-u").arg("-S").arg(socket).args(args).env_remove("TMUX").env("TERM", "xterm-256color");
        let out = command.current_dir(self.folder.path()).output().unwrap();
        assert!(out.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Starts `gilprof top` with these arguments.
    fn top(&self, args: &str) {
        self.line(&format!("clear; {} top {args}", quoted(env!("CARGO_BIN_EXE_gilprof"))));
    }

    /// A line for the shell.
    fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.press("Enter");
    }

    /// A key, by tmux's name.
    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen shows this text.
    #[track_caller]
    fn shows(&self, text: &str) {
        let mut last = String::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until("", || {
                last = self.screen();
                last.contains(text)
            })
        }));
        assert!(found.is_ok(), "{text:?} was not shown:\n{last}");
    }

    /// Presses a key, and waits until the screen shows this text.
    #[track_caller]
    fn press_shows(&self, key: &str, text: &str) {
        self.press(key);
        self.shows(text);
    }

    /// The pid of the gilprof that the shell runs.
    fn gilprof(&self) -> i32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().to_owned();
        let children = || std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        until("gilprof runs", || !children().trim().is_empty());
        children().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// The modes of the terminal, by `stty -a`.
    fn modes(&self, name: &str) -> String {
        let file = self.folder.path().join(name);
        self.line(&format!("clear; stty -a > {} && echo written {name}", quoted(file.to_str().unwrap())));
        until("stty has written", || std::fs::read_to_string(&file).is_ok_and(|modes| modes.contains("echo")));
        std::fs::read_to_string(&file).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.folder.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

fn every_key_at_both_sizes(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "mixed", &[]);
    for size in SIZES {
        let Some(terminal) = Terminal::open(size) else { return };
        terminal.top(&target.pid().to_string());
        terminal.shows("MainThread");
        for (key, shows) in [
            ("f", "defined at"),
            ("b", "while this holds the GIL"),
            ("i", "time holding the GIL: "),
            ("m", "time waiting for the GIL: "),
            ("m", "wall time of threads: "),
            ("Down", "1 levels above"),
            ("m", "time holding the GIL: "),
            ("Tab", "MainThread"),
            ("BTab", "time holding the GIL: "),
            ("t", "MainThread"),
            ("1", " last 1.0 s"),
            ("a", "since start "),
            ("z", "the figures since the start begin anew"),
            ("0", " of 10.0 s"),
            (">", "nat"),
            ("o", "▲"),
            ("o", "▼"),
            ("Space", " PAUSED, "),
            ("Space", "MainThread"),
            ("?", "a regular expression for thread, function, file"),
            ("x", "MainThread"),
        ] {
            terminal.press_shows(key, shows);
        }
        terminal.tmux(&["send-keys", "-l", "/native"]);
        terminal.shows("filter: native");
        terminal.press_shows("Enter", "/native/ Esc clears");
        assert!(!terminal.screen().contains("MainThread"), "{}", terminal.screen());
        terminal.press_shows("Escape", "MainThread");
        terminal.press_shows("C-z", "ready>");
        terminal.line("fg");
        terminal.shows("MainThread");
        terminal.press_shows("C-l", "MainThread");
        terminal.press_shows("q", "ready>");
    }
}

fn files_that_keys_write(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "mixed", &[]);
    let Some(terminal) = Terminal::open((200, 50)) else { return };
    terminal.top(&format!("--pid {}", target.pid()));
    terminal.shows("MainThread");
    let file = |ending: &str| terminal.folder.path().join(format!("gilprof-{}-1.{ending}", target.pid()));
    terminal.press_shows("r", " RECORDING ");
    terminal.press_shows("w", &format!("wrote {}", file("html").display()));
    terminal.press_shows("d", &format!("wrote {}", file("txt").display()));
    terminal.press_shows("r", &format!("wrote {}", file("gilprof").display()));
    terminal.press_shows("a", "since start ");
    terminal.press_shows("w", &format!("wrote {}", file("json").display()));
    terminal.press_shows("q", "ready>");
    let read = |ending: &str| std::fs::read_to_string(file(ending)).unwrap();
    assert!(read("html").starts_with("<!doctype html>") && read("txt").contains("native-held"));
    let report: serde_json::Value = serde_json::from_str(&read("json")).unwrap();
    assert_eq!(report["schema"], "gilprof.report/1");
    let recorded = gilprof(&["report", file("gilprof").to_str().unwrap(), "--format", "json"]);
    let threads = recorded.ended(0, &[]).report()["threads"].as_array().unwrap().iter().filter(|t| t["name"] == "native-held").count();
    assert_eq!(threads, 1, "threads from before the recording have their names");
}

fn signals_leave_the_terminal_as_it_was(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let Some(terminal) = Terminal::open((80, 24)) else { return };
    let before = terminal.modes("before");
    for number in [libc::SIGTERM; 10].into_iter().chain([libc::SIGINT, libc::SIGHUP]) {
        terminal.top(&target.pid().to_string());
        terminal.shows("tfbi view");
        signal(terminal.gilprof(), number);
        terminal.shows("ready>");
        assert!(!terminal.screen().contains("tfbi view"), "{}", terminal.screen());
    }
    assert_eq!(terminal.modes("after"), before);
}

fn a_stop_leaves_the_terminal_as_it_was(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let Some(terminal) = Terminal::open((80, 24)) else { return };
    let before = terminal.modes("before");
    terminal.top(&target.pid().to_string());
    terminal.shows("tfbi view");
    for (n, number) in [libc::SIGSTOP, libc::SIGTSTP].into_iter().enumerate() {
        signal(terminal.gilprof(), number);
        terminal.shows("Stopped");
        assert_eq!(terminal.modes(&format!("stopped-{n}")), before);
        terminal.line("fg");
        terminal.shows("tfbi view");
    }
    terminal.press_shows("q", "ready>");
    assert_eq!(terminal.modes("after"), before);
}

fn a_closed_terminal_ends_it(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let Some(terminal) = Terminal::open((80, 24)) else { return };
    terminal.top(&target.pid().to_string());
    terminal.shows("tfbi view");
    let gilprof = terminal.gilprof();
    terminal.tmux(&["kill-server"]);
    until("gilprof ends with its terminal", || !Path::new(&format!("/proc/{gilprof}")).exists() || state(gilprof) == Some('Z'));
}

fn what_becomes_of_the_program_is_said(interpreter: &Interpreter) {
    let mut target = Target::start(interpreter, "cpu", &[]);
    let Some(terminal) = Terminal::open((80, 24)) else { return };
    terminal.top(&target.pid().to_string());
    terminal.shows("worker-0");
    signal(target.pid(), libc::SIGSTOP);
    terminal.shows("the program is stopped by a signal");
    signal(target.pid(), libc::SIGCONT);
    until("it goes on", || !terminal.screen().contains("the program is stopped"));
    target.kill();
    terminal.shows("the program has ended; this is the last picture");
    assert!(terminal.screen().contains("worker-0"), "{}", terminal.screen());
    terminal.press_shows("f", "burn");
    terminal.press_shows("q", "ready>");
}

fn processes_of_the_host(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "resting", &[]);
    let Some(terminal) = Terminal::open((80, 24)) else { return };
    terminal.top("--filter resting.py");
    terminal.shows(&format!("{} ", target.pid()));
    terminal.press_shows("Enter", "MainThread");
    terminal.press_shows("Escape", "Python process");
    terminal.press_shows("q", "ready>");
}

fn names_choose_one_process(interpreter: &Interpreter) {
    let first = Target::start(interpreter, "resting", &["unlike-any-other"]);
    let one = gilprof(&["top", "unlike-any-other", "--json", "--window", "1s"]);
    assert_eq!(one.ended(0, &[]).report()["target"]["pid"], first.pid());
    let second = Target::start(interpreter, "resting", &["unlike-any-other"]);
    let several = gilprof(&["top", "unlike-any-other", "--once"]);
    several
        .ended(2, &["2 Python processes", &format!("gilprof top --pid {}", first.pid()), &format!("gilprof top --pid {}", second.pid())]);
    gilprof(&["top", "no-process-has-this", "--once"]).ended(2, &["no Python process has"]);
}

fn a_window_for_scripts(interpreter: &Interpreter) {
    let target = Target::start(interpreter, "cpu", &[]);
    let pid = target.pid().to_string();
    let output = gilprof(&["top", &pid, "--window", "1s", "--json"]);
    let report = output.ended(0, &[]).report();
    assert!(report["window"]["seconds"].as_f64().unwrap() > 0.9 && report["threads"].as_array().unwrap().len() >= 3, "{report:#}");
    let output = gilprof(&["top", "--pid", &pid, "--window", "1s", "--once", "--ascii"]);
    output.ended(0, &[]).printed(&["worker-0", "GIL busy", "samples asked"]);
    assert!(output.out.is_ascii(), "{}", output.out);
    gilprof(&["top", "--once"]).ended(0, &[]).printed(&["Python process", &format!("{pid} ")]);
}

fn an_error_comes_before_the_screen() {
    gilprof(&["top", "1"]).ended(2, &["top needs a terminal"]);
    let Some(terminal) = Terminal::open((80, 24)) else { return };
    terminal.top("--pid 2147483647");
    terminal.shows("error: no process with pid 2147483647");
}
