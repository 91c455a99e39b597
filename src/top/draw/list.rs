//! A list: the heads of its columns and the rows around the cursor.

use super::Canvas;
use crate::output::{columns, numbers, palette};
use crate::sample::State;
use crate::top::lists::{Heading, ListRow, Listing, SortKey};
use crate::top::model::Model;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

/// A name never gets less than this.
const NARROWEST_NAME: usize = 12;
/// A bar with its ends: so short that it is of use, and so long that it stays near its row.
const BARS: (usize, usize) = (14, 62);
/// From this width on, heads are not cut.
const WIDE: usize = 110;

/// Where the columns are.
struct Places {
    name: usize,
    place: usize,
    figures: Vec<usize>,
    bar: usize,
}

pub(super) fn draw(model: &Model, area: Rect, canvas: &mut Canvas<'_>) {
    let list = model.listing();
    let places = places(&list, canvas.width());
    heads(model, &list, &places, area.y, canvas);
    let room = usize::from(area.height.saturating_sub(1));
    let cursor = model.cursor_index(&list.rows);
    // The cursor is in the middle, except near the ends.
    let first = cursor.saturating_sub(room / 2).min(list.rows.len().saturating_sub(room));
    for (n, row) in list.rows.iter().enumerate().skip(first).take(room) {
        let y = area.y + 1 + (n - first) as u16;
        line(row, &places, y, canvas);
        if n == cursor && (model.cursor.is_some() || matches!(model.view, crate::top::model::View::Processes)) {
            canvas.fill(y, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if list.rows.is_empty() {
        let why = if list.hidden > 0 { "the filter hides every row" } else { "nothing to show yet" };
        canvas.text(2, area.y + 1, why, canvas.paint.dim());
    }
    let behind = list.rows.len().saturating_sub(first + room);
    let hidden = if list.hidden > 0 && !list.rows.is_empty() { format!(", {} hidden", list.hidden) } else { String::new() };
    if behind > 0 || !hidden.is_empty() {
        let note = format!(" {} of {}{hidden} ", (first + room).min(list.rows.len()), list.rows.len());
        let x = canvas.width().saturating_sub(note.len());
        canvas.text_if_free(x, area.y - 1, &note, canvas.paint.dim());
    }
}

/// Figures first, then names; bars and places get what is left.
fn places(list: &Listing, width: usize) -> Places {
    let short = width < WIDE;
    // A sorted column has a mark, and a figure is up to `12.34`.
    let figures: Vec<usize> = list.headings.iter().map(|heading| head(heading, short).len().max(4) + 2).collect();
    let left = width.saturating_sub(figures.iter().sum::<usize>() + 1);
    let longest = |text: &dyn Fn(&ListRow) -> usize| list.rows.iter().map(text).max().unwrap_or(0);
    let name = longest(&|row| columns::width(&row.name) + columns::width(&row.suffix)).max(list.name.len() + 2).max(NARROWEST_NAME);
    if !list.place.is_empty() {
        let place = longest(&|row| columns::width(&row.place)).max(list.place.len());
        let (name, place) = share(name, place, left.saturating_sub(1));
        return Places { name, place, figures, bar: 0 };
    }
    let bars = list.rows.iter().any(|row| row.bar.is_some());
    let room_of_bar = left.saturating_sub(name + 1);
    match bars {
        true if room_of_bar >= BARS.0 => Places { name, place: 0, figures, bar: room_of_bar.min(BARS.1) },
        // A long name is cut before a bar is left out.
        true if left >= NARROWEST_NAME + 1 + BARS.0 => Places { name: left - 1 - BARS.0, place: 0, figures, bar: BARS.0 },
        _ => Places { name: name.min(left), place: 0, figures, bar: 0 },
    }
}

/// Divides columns between a name and a place: what both need, else half to each.
fn share(name: usize, place: usize, room: usize) -> (usize, usize) {
    match (name + place <= room, name <= room / 2, place <= room / 2) {
        (true, ..) => (name, place),
        (_, true, _) => (name, room - name),
        (_, _, true) => (room - place, place),
        _ => (room - room / 2, room / 2),
    }
}

fn head(heading: &Heading, short: bool) -> &'static str {
    if short {
        heading.short
    } else {
        heading.name
    }
}

fn heads(model: &Model, list: &Listing, places: &Places, y: u16, canvas: &mut Canvas<'_>) {
    let short = canvas.width() < WIDE;
    let mark = |key: SortKey| match (key == model.sort_key(), model.inverted) {
        (true, false) => "▼",
        (true, true) => "▲",
        (false, _) => "",
    };
    let style = |key: SortKey| if key == model.sort_key() { canvas.paint.chosen() } else { canvas.paint.bold() };
    let by_name = format!("{}{}", list.name, mark(SortKey::Name));
    let cells: Vec<(String, Style)> = list
        .headings
        .iter()
        .zip(&places.figures)
        .map(|(heading, &wide)| (columns::right(&format!("{}{}", head(heading, short), mark(heading.key)), wide), style(heading.key)))
        .collect();
    let style_of_name = style(SortKey::Name);
    canvas.text(0, y, &by_name, style_of_name);
    let mut x = places.name;
    if places.place > 0 {
        canvas.text(x + 1, y, &columns::left(list.place, places.place), canvas.paint.bold());
        x += 1 + places.place;
    }
    for (text, style) in cells {
        let blank = text.len() - text.trim_start().len();
        canvas.text(x + blank, y, text.trim_start(), style);
        x += columns::width(&text);
    }
}

fn line(row: &ListRow, places: &Places, y: u16, canvas: &mut Canvas<'_>) {
    let style = if row.alarm { canvas.paint.alarm() } else { Style::default() };
    let room = places.name.saturating_sub(columns::width(&row.suffix));
    let name = columns::fit(&row.name, room) + &row.suffix;
    canvas.text_up_to(0, y, &name, places.name, style);
    let mut x = places.name;
    if places.place > 0 {
        canvas.text_up_to(x + 1, y, &columns::fit(&row.place, places.place), places.place, canvas.paint.dim());
        x += 1 + places.place;
    }
    for (figure, &wide) in row.figures.iter().zip(&places.figures) {
        x = canvas.text(x, y, &columns::right(&figure.text, wide), Style::default());
    }
    if let Some(bar) = row.bar.filter(|_| places.bar > 0) {
        draw_bar(&bar, x + 1, y, places.bar, canvas);
    }
}

/// All of a thread's time, between two lines that show where 100 % is.
fn draw_bar(parts: &[(State, f64); State::COUNT], x: usize, y: u16, wide: usize, canvas: &mut Canvas<'_>) {
    let shares = parts.map(|(_, share)| share);
    let Some(lengths) = numbers::apportion(&shares, wide.saturating_sub(2) as u32) else { return };
    let mut at = canvas.text(x, y, "|", canvas.paint.dim());
    for (&(state, _), length) in parts.iter().zip(lengths).filter(|(_, length)| *length > 0) {
        let run = palette::style(state).glyph.to_string().repeat(length as usize);
        at = canvas.text(at, y, &run, canvas.paint.state(state));
    }
    canvas.text(at, y, "|", canvas.paint.dim());
}
