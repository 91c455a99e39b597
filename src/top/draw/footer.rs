//! The lower part of the screen: a message, how it is measured, and the keys.

use super::Canvas;
use crate::analysis::report::{Engine, Window};
use crate::output::{columns, numbers, palette, sanitize};
use crate::sample::State;
use crate::top::model::{Model, Overlay, View};
use ratatui::style::Style;

/// Rows of it.
const ROWS: u16 = 4;
/// From this width on, keys are named in full.
const WIDE: usize = 120;

/// Draws it, and returns its first row.
pub(super) fn draw(model: &Model, canvas: &mut Canvas<'_>) -> u16 {
    let first = canvas.area.height - ROWS;
    legend(model, first, canvas);
    message(model, first + 1, canvas);
    if let Some(picture) = model.shown().filter(|_| model.view != View::Processes) {
        let line = measured(&picture.report.window, canvas.width());
        canvas.text(0, first + 2, &line, canvas.paint.dim());
    }
    keys(model, first + 3, canvas);
    first
}

/// The letters of the bars.
fn legend(model: &Model, y: u16, canvas: &mut Canvas<'_>) {
    let Some(picture) = model.shown().filter(|_| model.view == View::Threads) else { return };
    let occurs = |state: State| picture.profile.threads.iter().any(|thread| thread.times.get(state) > 0.0);
    let narrow = canvas.width() < WIDE;
    let mut x = if narrow { canvas.text(0, y, "GIL: ", Style::default()) } else { 0 };
    // A narrow screen has room for those that occur.
    for state in State::ALL.into_iter().filter(|state| !narrow || occurs(*state)) {
        let text = legend_of(state, narrow);
        if narrow && state == State::Waiting {
            x = canvas.text(x, y, "| ", canvas.paint.dim());
        }
        if x + text.len() <= canvas.width() {
            x = canvas.text(x, y, &text, canvas.paint.state(state)) + if narrow { 1 } else { 2 };
        }
    }
}

/// A state's letter and name. In a narrow legend the four ways to hold the GIL stand together.
fn legend_of(state: State, narrow: bool) -> String {
    let style = palette::style(state);
    let name = match state {
        State::HoldingPython if narrow => "python",
        State::HoldingNative if narrow => "in C",
        State::HoldingBlocked if narrow => "asleep",
        State::HoldingStarved if narrow => "no CPU",
        _ => style.legend,
    };
    match style.glyph {
        ' ' => format!("blank {name}"),
        glyph => format!("{glyph} {name}"),
    }
}

/// The most important thing that there is to say.
fn message(model: &Model, y: u16, canvas: &mut Canvas<'_>) {
    let picture = model.shown().filter(|_| model.view != View::Processes);
    let stopped = picture.and_then(|picture| picture.stopped.clone());
    let warnings = || picture.map_or(&[][..], |picture| &picture.report.warnings);
    let ended = model.ended.as_ref().map(|why| format!("{why}; this is the last picture"));
    let (text, style) = if let Some(message) = &model.message {
        (message.clone(), canvas.paint.bold())
    } else if let Some(text) = ended.filter(|_| model.view != View::Processes).or(stopped) {
        (text, canvas.paint.chosen())
    } else if let Some(warning) = warnings().last() {
        let more = warnings().len() - 1;
        let count = if more > 0 { format!("({more} more, w writes them) ") } else { String::new() };
        (format!("! {count}{warning}"), Style::default())
    } else {
        return;
    };
    canvas.text(0, y, &columns::fit(&sanitize::clean(&text), canvas.width()), style);
}

/// The samples and what they cost. Each form is shorter than the one before.
fn measured(window: &Window, width: usize) -> String {
    let asked = window.samples.saturating_add(window.missed);
    let [asked, made, late, failed] =
        [asked, window.samples.saturating_sub(window.failed), window.missed, window.failed].map(numbers::thousands);
    let own = numbers::percent(window.profiler_cpu);
    let rate = numbers::count(window.rate_hz);
    let engine = match window.engine {
        Engine::Samples => format!("sampled {rate}/s"),
        Engine::Kernel => format!("kernel engine {rate}/s, {} events", numbers::or_none(window.events.map(numbers::thousands))),
    };
    let samples = format!("{engine}: {asked} samples asked, {made} made, {late} late, {failed} failed");
    let forms = [
        format!("{samples}   gilprof uses {own} of a core   screen up to 4/s"),
        format!("{samples}; own CPU {own}"),
        format!("{engine}: {asked} asked, {made} made, {late} late, {failed} failed; own CPU {own}"),
    ];
    forms.iter().find(|form| columns::width(form) <= width).cloned().unwrap_or_else(|| columns::fit(&forms[2], width))
}

/// The keys of this moment.
fn keys(model: &Model, y: u16, canvas: &mut Canvas<'_>) {
    let line: &[(&str, &str)] = match (&model.overlay, model.view) {
        (Overlay::FilterLine(_), _) => &[("Enter", "filter"), ("Esc", "cancel"), ("Ctrl-U", "empty")],
        (Overlay::Help, _) => &[("any key", "back"), ("q", "quit")],
        (_, View::Processes) => &[("Enter", "measure"), ("</>", "sort"), ("o", "invert"), ("/", "filter"), ("?", "help"), ("q", "quit")],
        _ if canvas.width() < WIDE => &[
            ("tfbi", "view"),
            ("10a", "time"),
            ("<>o", "sort"),
            ("/", "filter"),
            ("spc", "pause"),
            ("r", "rec"),
            ("w", "save"),
            ("d", "dump"),
            ("?", "help"),
            ("q", "quit"),
        ],
        _ => &[
            ("t f b i", "view"),
            ("1 0 a z", "window"),
            ("< >", "sort"),
            ("o", "invert"),
            ("/", "filter"),
            ("space", "pause"),
            ("r", "record"),
            ("w", "write report"),
            ("d", "dump"),
            ("?", "help"),
            ("q", "quit"),
        ],
    };
    // Where not all fit, those at the end are named in the help.
    let wide = |gap: usize| line.iter().map(|(key, what)| key.len() + 1 + what.len() + gap).sum::<usize>();
    let gap = if wide(2) <= canvas.width() + 2 { 2 } else { 1 };
    let mut x = 0;
    for (key, what) in line {
        x = canvas.text(x, y, key, canvas.paint.bold());
        x = canvas.text(x, y, &format!(" {what}"), Style::default()) + gap;
    }
}
