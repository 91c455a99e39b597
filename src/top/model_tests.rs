//! What keys do to the screen.

use super::*;
use crate::output::testing::measured;
use crate::profile::LiveStats;
use crate::top::draw::Paint;
use crate::top::terminal::text;

const PLAIN: Paint = Paint { colour: false, ascii: false };

/// A second in which two workers hold the GIL in turn, one thread hashes and one sleeps.
fn picture(measured_seconds: f64) -> Arc<Picture> {
    let program = measured();
    let chart = vec![LiveStats { samples: 1000, gil_busy: 1.0, waiters_mean: 1.0 }; 3];
    let (profile, report) = (program.profile, program.report);
    Arc::new(Picture { span: Span::TenSeconds, profile, report, chart, measured: measured_seconds, stopped: None })
}

fn model() -> Model {
    Model { picture: Some(picture(1.0)), ..Model::default() }
}

fn press(model: &mut Model, keys: &str) -> Option<Action> {
    let code = |c| {
        if c == '\n' {
            KeyCode::Enter
        } else if c == '\x1b' {
            KeyCode::Esc
        } else {
            KeyCode::Char(c)
        }
    };
    keys.chars().map(|c| model.update(KeyEvent::from(code(c)))).last().flatten()
}

fn names(model: &Model) -> Vec<String> {
    model.listing().rows.into_iter().map(|row| row.name).collect()
}

fn at_cursor(model: &Model) -> String {
    let rows = model.listing().rows;
    rows[model.cursor_index(&rows)].name.clone()
}

#[test]
fn keys_ask_for_what_the_model_cannot_do() {
    let asked = [
        ("q", Action::Quit),
        ("1", Action::Span(Span::Second)),
        ("0", Action::Span(Span::TenSeconds)),
        ("a", Action::Span(Span::Start)),
        ("z", Action::Reset),
        ("r", Action::Record),
        ("w", Action::Report),
        ("d", Action::Dump),
    ];
    for (key, action) in asked {
        assert_eq!(press(&mut model(), key), Some(action), "{key}");
    }
    for (key, action) in [('c', Action::Quit), ('z', Action::Suspend), ('l', Action::Redraw)] {
        let mut model = model();
        press(&mut model, "/x");
        assert_eq!(model.update(KeyEvent::new(KeyCode::Char(key), KeyModifiers::CONTROL)), Some(action));
    }
    assert_eq!(press(&mut model(), "tfbi? \x1b\x1b"), None, "Esc never ends");
}

#[test]
fn rows_are_sorted_by_any_column_either_way() {
    let mut model = model();
    assert_eq!(model.sort_key(), SortKey::Waiting);
    assert_eq!(names(&model)[..2], ["worker-1", "worker-2"]);
    press(&mut model, "<<<<<<<");
    assert_eq!(model.sort_key(), SortKey::Name);
    let sorted = names(&model);
    press(&mut model, "o");
    assert_eq!(names(&model), sorted.iter().rev().cloned().collect::<Vec<_>>());
    press(&mut model, "o>>>>>>>>>>>>");
    assert_eq!(model.sort_key(), SortKey::Cpu, "the last column");
    // A view without the column has its own.
    press(&mut model, "f");
    assert_eq!(model.sort_key(), SortKey::OthersWait);
}

#[test]
fn the_cursor_stays_on_its_row() {
    let mut model = model();
    press(&mut model, "jj");
    let name = at_cursor(&model);
    for keys in ["o", "<", "<", "o", ">>>"] {
        press(&mut model, keys);
        assert_eq!(at_cursor(&model), name, "{keys}");
    }
    press(&mut model, "G");
    assert_eq!(Some(at_cursor(&model)), names(&model).pop());
    press(&mut model, "kg");
    assert_eq!(at_cursor(&model), names(&model)[0]);
}

#[test]
fn a_pause_keeps_the_picture_and_says_how_old_it_is() {
    let mut model = model();
    press(&mut model, " ");
    model.picture = Some(picture(13.0));
    assert_eq!((model.age(), model.shown().map(|p| p.measured)), (Some(12.0), Some(1.0)));
    assert!(text(&model, PLAIN, (80, 24)).contains(" PAUSED, 12.0 s old "));
    press(&mut model, "f");
    assert_eq!(model.shown().map(|p| p.measured), Some(1.0), "views change while it is paused");
    press(&mut model, " ");
    assert_eq!((model.age(), model.shown().map(|p| p.measured)), (None, Some(13.0)));
    press(&mut model, " 1");
    assert_eq!(model.age(), None, "another window is another picture");
}

#[test]
fn a_filter_is_written_shown_and_cleared() {
    let mut model = model();
    let all = names(&model).len();
    press(&mut model, "/worker-[12]\n");
    assert_eq!(names(&model), ["worker-1", "worker-2"]);
    assert!(text(&model, PLAIN, (80, 24)).contains("/worker-[12]/ Esc clears"));
    press(&mut model, "/");
    assert!(text(&model, PLAIN, (80, 24)).contains("filter: worker-[12]"));
    press(&mut model, "(\n");
    assert!(model.message.as_ref().is_some_and(|why| why.contains("no regular expression")), "{:?}", model.message);
    assert!(matches!(model.overlay, Overlay::FilterLine(_)), "it can be corrected");
    press(&mut model, "\x1b\x1b");
    assert_eq!(names(&model).len(), all);
    // A thread is also found by what it runs.
    press(&mut model, "/^hash$\n");
    assert_eq!(names(&model).len(), 1);
    press(&mut model, "f");
    assert_eq!(names(&model), ["hash"]);
    press(&mut model, "\x1b/nothing-like-it\n");
    assert!(text(&model, PLAIN, (80, 24)).contains("the filter hides every row"));
}

#[test]
fn a_process_is_entered_from_the_list_and_left() {
    let process = |pid| HostRow {
        pid,
        parent: None,
        user: "web".into(),
        container: Some("0123456789ab".into()),
        command: format!("python app-{pid}.py"),
        cpu: Some(f64::from(pid)),
        gil_busy: None,
        waiting: None,
    };
    let mut model = Model { view: View::Processes, processes: vec![process(1), process(2)], ..Model::default() };
    assert_eq!(names(&model), ["2 python app-2.py", "1 python app-1.py"]);
    assert_eq!(press(&mut model, "r"), None, "nothing is measured");
    assert_eq!(press(&mut model, "j\n"), Some(Action::Enter(1)));
    let screen = text(&model, PLAIN, (80, 24));
    assert!(screen.contains("2 Python processes") && screen.contains("web in 0123456789ab") && screen.contains("200"), "{screen}");
    model.enter_process();
    assert_eq!((model.view, press(&mut model, "\x1b")), (View::Threads, Some(Action::Leave)));
    model.picture = Some(picture(1.0));
    model.leave();
    assert_eq!((model.view, model.picture.is_none()), (View::Processes, true));
}

#[test]
fn every_view_fits_every_screen_and_hostile_names_do_no_harm() {
    let mut model = model();
    model.ended = Some("the program has ended".into());
    for key in ["t", "f", "b", "i", "m", "m", "?", "?/x", "\x1b "] {
        press(&mut model, key);
        for size in [(80, 24), (200, 50), (40, 10), (39, 9), (1, 1), (300, 12)] {
            let screen = text(&model, PLAIN, size);
            assert!(!screen.contains(['\x1b', '\u{202e}']), "{key} {screen}");
            assert_eq!(screen.lines().count(), usize::from(size.1));
            assert!(text(&model, Paint { ascii: true, ..PLAIN }, size).is_ascii(), "{key}");
        }
    }
    assert!(text(&model, PLAIN, (80, 24)).contains("the program has ended; this is the last picture"));
}

#[test]
fn help_is_whole_on_80_columns() {
    for view in [View::Threads, View::Processes] {
        let mut model = Model { view, ..model() };
        press(&mut model, "?");
        let screen = text(&model, PLAIN, (80, 24));
        let help: String = screen.lines().filter(|line| !line.contains("SWITCH") && !line.starts_with("  ")).collect();
        assert!(help.contains("Ctrl-L draws again") && !help.contains('…'), "{screen}");
    }
}

#[test]
fn a_thread_that_sleeps_with_the_gil_is_an_alarm() {
    let mut model = model();
    let mut changed = (*picture(1.0)).clone();
    changed.report.threads[1].holding.blocked = 0.2;
    changed.report.threads[1].states.holding = 0.2;
    model.picture = Some(Arc::new(changed));
    assert_eq!(model.listing().rows.iter().filter(|row| row.alarm).count(), 1);
    assert!(text(&model, PLAIN, (80, 24)).contains("|!!"));
}
