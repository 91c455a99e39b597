//! Draws a model into a buffer of cells: a pure function, so that a screen can be compared with a
//! golden file.
//!
//! From the top: the program, the verdict, the GIL's figures, two charts of the last minute, the
//! tabs, the rows; at the bottom a message, how it is measured, and the keys. Every text from the
//! target was cleaned when its row was made.

mod footer;
mod header;
mod help;
mod icicle;
mod list;
mod paint;

pub use paint::Paint;

use super::model::{Model, Overlay, View};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

/// The narrowest and the lowest screen on which anything is shown.
pub const SMALLEST: (u16, u16) = (40, 10);

/// Draws the whole screen.
pub fn draw(model: &Model, paint: Paint, buffer: &mut Buffer) {
    let area = *buffer.area();
    let mut canvas = Canvas { buffer, area, paint };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        canvas.text(0, 0, &format!("gilprof top needs a terminal of {} x {}", SMALLEST.0, SMALLEST.1), Style::default());
    } else {
        screen(model, &mut canvas);
    }
    if paint.ascii {
        paint::only_ascii(buffer);
    }
}

fn screen(model: &Model, canvas: &mut Canvas<'_>) {
    let mut top = header::draw(model, canvas);
    let bottom = footer::draw(model, canvas);
    let rows = Rect { y: top, height: bottom.saturating_sub(top), ..canvas.area };
    match (&model.overlay, model.view, model.shown()) {
        (Overlay::Help, ..) => help::draw(model, rows, canvas),
        (_, View::Icicle, Some(picture)) => icicle::draw(model, picture, rows, canvas),
        (_, View::Processes, _) | (_, _, Some(_)) => list::draw(model, rows, canvas),
        (_, _, None) => {
            top += 1;
            let waiting = if model.ended.is_some() { "nothing was measured" } else { "measuring; the first figures come within a second" };
            canvas.text(2, top, waiting, Style::default());
        }
    }
}

/// The cells, with the ways to write to them. What does not fit is left out.
pub(super) struct Canvas<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    paint: Paint,
}

impl Canvas<'_> {
    fn width(&self) -> usize {
        self.area.width.into()
    }

    /// Writes from a column on, as far as the screen goes. Returns the column behind it.
    fn text(&mut self, x: usize, y: u16, text: &str, style: Style) -> usize {
        self.text_up_to(x, y, text, usize::MAX, style)
    }

    /// The same with at most so many columns.
    fn text_up_to(&mut self, x: usize, y: u16, text: &str, columns: usize, style: Style) -> usize {
        if x >= self.width() || y >= self.area.height {
            return x;
        }
        let (end, _) = self.buffer.set_stringn(x as u16, y, text, columns, style);
        end.into()
    }

    /// The same, unless another text is there.
    fn text_if_free(&mut self, x: usize, y: u16, text: &str, style: Style) {
        let free = (x..self.width()).all(|x| self.buffer.cell((x as u16, y)).is_none_or(|cell| cell.symbol() == " "));
        if free {
            self.text(x, y, text, style);
        }
    }

    /// A whole row in one style.
    fn fill(&mut self, y: u16, style: Style) {
        self.buffer.set_style(Rect { y, height: 1, ..self.area }.intersection(self.area), style);
    }
}
