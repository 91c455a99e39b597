//! The icicle: a row for each level, the outermost frame on top.

use super::Canvas;
use crate::output::{columns, numbers};
use crate::top::icicle::{blocks, tree};
use crate::top::model::Model;
use crate::top::picture::Picture;
use ratatui::layout::Rect;
use ratatui::style::Style;

pub(super) fn draw(model: &Model, picture: &Picture, area: Rect, canvas: &mut Canvas<'_>) {
    let mode = model.flame.mode();
    let root = tree(picture, mode, &model.filter);
    let seconds = picture.report.window.seconds;
    let mean = if seconds > 0.0 { root.nanos / 1e9 / seconds } else { 0.0 };
    let above = if model.scrolled > 0 { format!("   {} levels above", model.scrolled) } else { String::new() };
    let title = format!("{}: {}   (m: another time){above}", mode.weight(), numbers::threads(mean));
    canvas.text(0, area.y, &title, canvas.paint.bold());
    if root.nanos <= 0.0 {
        canvas.text(2, area.y + 1, "no such time in this window", canvas.paint.dim());
        return;
    }
    let room = usize::from(area.height.saturating_sub(1));
    for block in blocks(&root, canvas.width()) {
        let Some(row) = block.depth.checked_sub(model.scrolled).filter(|row| *row < room) else { continue };
        let (y, wide) = (area.y + 1 + row as u16, block.columns.1 - block.columns.0);
        let share = numbers::percent(block.node.nanos / root.nanos);
        let text = if columns::width(block.text) + share.len() + 2 < wide { format!("{} {share}", block.text) } else { block.text.into() };
        let style = canvas.paint.frame(block.node.state());
        let x = canvas.text(block.columns.0, y, "|", style);
        canvas.text_up_to(x, y, &columns::left(&text, wide - 1), wide - 1, style);
    }
    let deepest = root.depth();
    if deepest > model.scrolled + room {
        let note = format!(" {} levels below ", deepest - model.scrolled - room);
        let x = canvas.width().saturating_sub(note.len());
        canvas.text(x, area.y, &note, Style::default());
    }
}
