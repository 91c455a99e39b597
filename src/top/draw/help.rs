//! The help: every key, in place of the rows.

use super::Canvas;
use crate::output::columns;
use crate::top::model::{Model, View};
use ratatui::layout::Rect;
use ratatui::style::Style;

const OF_PROCESS: &[(&str, &str)] = &[
    ("t f b i", "threads, functions, blame, icicle (stacks); Tab: the next"),
    ("1 0 a z", "window: 1 s, 10 s, all since the start; z starts that anew"),
    ("< >  o", "sort by the column to the left or right; invert"),
    ("up down", "move the cursor, which stays on its row; PageUp, PageDown, Home, End"),
    ("/", "filter: a regular expression for thread, function, file"),
    ("space", "pause the picture; measuring goes on"),
    ("m", "icicle: time holding, waiting, all"),
    ("r", "record into a file from now on; r again ends it"),
    ("w", "write a report of the window: HTML, since the start JSON"),
    ("d", "write a dump: each thread's state and stack now"),
    ("Esc", "clear the filter; then back to the processes"),
    ("q Ctrl-C", "quit; Ctrl-Z suspends, Ctrl-L draws again"),
];
const OF_LIST: &[(&str, &str)] = &[
    ("Enter", "measure the process; Esc comes back here"),
    ("< >  o", "sort by the column to the left or right; invert"),
    ("up down", "move the cursor, which stays on its row; PageUp, PageDown, Home, End"),
    ("/", "filter: a regular expression for command, user, container"),
    ("Esc", "clear the filter"),
    ("q Ctrl-C", "quit; Ctrl-Z suspends, Ctrl-L draws again"),
];

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let lines = if model.view == View::Processes { OF_LIST } else { OF_PROCESS };
    for (n, (keys, what)) in lines.iter().enumerate().take(area.height.into()) {
        let y = area.y + n as u16;
        canvas.text(1, y, keys, canvas.paint.bold());
        canvas.text(11, y, &columns::fit(what, canvas.width().saturating_sub(12)), Style::default());
    }
}
