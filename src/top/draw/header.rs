//! The upper part of the screen: the program, the verdict, the GIL's figures, the charts, the tabs.

use super::Canvas;
use crate::analysis::report::Report;
use crate::output::text::{program, verdict};
use crate::output::{columns, numbers, sanitize};
use crate::profile::LiveStats;
use crate::top::history::{Span, CHART_POINTS};
use crate::top::model::{Model, Overlay, View};
use crate::top::picture::Picture;
use ratatui::style::Style;

/// Screens of so many rows have room for the verdict's reasons.
const TALL: u16 = 36;
/// Columns before a chart.
const CHART_BEGIN: usize = 10;

/// Draws it, and returns the first row below it.
pub(super) fn draw(model: &Model, canvas: &mut Canvas<'_>) -> u16 {
    let mut y = title(model, canvas);
    if model.view == View::Processes {
        return tabs(model, y, canvas);
    }
    if let Some(picture) = model.shown() {
        y = banner(&picture.report, y, canvas);
        gil(&picture.report, y, canvas);
        charts(picture, y + 1, canvas);
        y += 3;
    }
    tabs(model, y, canvas)
}

/// The program on the left, the window and the pause on the right.
fn title(model: &Model, canvas: &mut Canvas<'_>) -> u16 {
    let mut left = String::from("gilprof top");
    if model.view == View::Processes {
        let plural = if model.processes.len() == 1 { "" } else { "es" };
        left += &format!("  {} Python process{plural}", model.processes.len());
        if model.unreadable > 0 {
            left += &format!("; {} of other users may not be read", model.unreadable);
        }
    } else if let Some(picture) = model.shown() {
        let target = &picture.report.target;
        let python = columns::fit(&sanitize::clean(&target.python), 16);
        let name = columns::fit(&sanitize::clean(&program(target)), canvas.width() / 4);
        left += &format!("  pid {}  {name}  python {python}  {}", target.pid, numbers::counted(target.cpus, "core"));
    }
    let mut right = Vec::new();
    if let Some(age) = model.age() {
        right.push((format!(" PAUSED, {} old ", numbers::seconds(age)), canvas.paint.chosen()));
    }
    if model.recording.is_some() {
        right.push((" RECORDING ".into(), canvas.paint.chosen()));
    }
    if model.view != View::Processes {
        right.push((window(model), canvas.paint.bold()));
    }
    let wide: usize = right.iter().map(|(text, _)| columns::width(text) + 1).sum();
    let end = canvas.width().saturating_sub(wide);
    canvas.text_up_to(0, 0, &left, end, canvas.paint.bold());
    let mut x = end + 1;
    for (text, style) in right {
        x = canvas.text(x, 0, &text, style) + 1;
    }
    1
}

/// The window that is shown, and how much of it there is so far.
fn window(model: &Model) -> String {
    let (span, measured) = model.shown().map_or((model.span, 0.0), |picture| (picture.span, picture.report.window.seconds));
    match (span, span.seconds()) {
        (Span::Start, _) | (_, None) => format!("since start {}", numbers::seconds(measured)),
        (_, Some(whole)) if measured < 0.95 * whole => format!("last {} of {}", numbers::seconds(measured), numbers::seconds(whole)),
        (_, Some(whole)) => format!("last {}", numbers::seconds(whole)),
    }
}

/// The verdict and why; on tall screens also what to do.
fn banner(report: &Report, y: u16, canvas: &mut Canvas<'_>) -> u16 {
    let (name, headline) = verdict::banner(&report.verdict);
    let x = canvas.text(0, y, &name, canvas.paint.verdict(report.verdict.code));
    let headline = sanitize::clean(headline);
    let lines = columns::wrap(&headline, canvas.width().saturating_sub(x + 2));
    canvas.text(x + 2, y, &lines[0], Style::default());
    if canvas.area.height < TALL {
        // Always two rows, so that nothing below moves when the verdict changes.
        let fact = report.verdict.because.first().map(|fact| sanitize::clean(fact)).unwrap_or_default();
        let below = if lines.len() > 1 { lines[1..].join(" ") } else { fact };
        canvas.text(2, y + 1, &columns::fit(&below, canvas.width().saturating_sub(2)), canvas.paint.dim());
        return y + 2;
    }
    let facts = report.verdict.because.iter().take(2).map(|fact| ("- ", fact));
    let steps = report.verdict.next_steps.iter().take(1).map(|step| ("> ", step));
    let mut below = y + 1;
    for (lead, text) in facts.chain(steps) {
        let lines = columns::wrap(&sanitize::clean(text), canvas.width().min(160).saturating_sub(4));
        for (n, line) in lines.iter().take(2).enumerate() {
            canvas.text(2, below, &format!("{}{line}", if n == 0 { lead } else { "  " }), Style::default());
            below += 1;
        }
    }
    below + 1
}

/// The figures of the GIL with the most contention.
fn gil(report: &Report, y: u16, canvas: &mut Canvas<'_>) {
    if !report.target.gil_enabled {
        canvas.text(0, y, "GIL  switched off in this free-threaded build", Style::default());
        return;
    }
    let gil = &report.gil;
    let longest = gil.wait_ms.map(|wait| format!("{}{}", if wait.at_most { "≤ " } else { "" }, numbers::ms(wait.max)));
    let several = (report.gils.len() > 1).then(|| format!("worst of {} GILs", report.gils.len()));
    let pieces = [
        Some(format!("GIL busy {}", numbers::percent(gil.busy))),
        Some(format!("{} waiting", numbers::count(gil.waiters_mean))),
        Some(format!("longest wait {}", numbers::or_none(longest))),
        several,
        Some(format!("{} switches/s", numbers::or_none(gil.switches_per_s.map(numbers::count)))),
        Some(format!("contended {}", numbers::percent(gil.contended))),
    ];
    let mut x = 0;
    for piece in pieces.into_iter().flatten() {
        // A figure that is cut could be read as another one.
        if x + columns::width(&piece) <= canvas.width() {
            x = canvas.text(x, y, &piece, Style::default()) + 3;
        }
    }
}

/// The last minute, a character a second.
fn charts(picture: &Picture, y: u16, canvas: &mut Canvas<'_>) {
    let points = &picture.chart;
    let most = points.iter().map(|point| point.waiters_mean).fold(1.0, f64::max);
    let busy = |point: &LiveStats| point.gil_busy;
    let waiting = |point: &LiveStats| point.waiters_mean / most;
    chart(canvas, y, "busy", points.iter().map(busy), "of 100 %");
    chart(canvas, y + 1, "waiting", points.iter().map(waiting), &format!("of {}", numbers::count(most)));
}

fn chart(canvas: &mut Canvas<'_>, y: u16, name: &str, shares: impl ExactSizeIterator<Item = f64>, scale: &str) {
    let empty = CHART_POINTS.saturating_sub(shares.len());
    let line: String = " ".repeat(empty) + &shares.map(|share| canvas.paint.level(share)).collect::<String>();
    canvas.text(0, y, name, Style::default());
    canvas.text(CHART_BEGIN - 1, y, "|", canvas.paint.dim());
    // On a narrow screen the oldest seconds are left out.
    let room = CHART_POINTS.min(canvas.width().saturating_sub(CHART_BEGIN + 1));
    let shown: String = line.chars().skip(CHART_POINTS - room).collect();
    let x = canvas.text(CHART_BEGIN, y, &shown, Style::default());
    let x = canvas.text(x, y, "|", canvas.paint.dim());
    canvas.text(x + 1, y, scale, canvas.paint.dim());
}

/// The views, and the filter as a chip.
fn tabs(model: &Model, y: u16, canvas: &mut Canvas<'_>) -> u16 {
    let mut x = 0;
    let open: &[View] = if model.view == View::Processes { &[View::Processes] } else { &View::OF_PROCESS };
    for view in open {
        let style = if *view == model.view { canvas.paint.chosen() } else { Style::default() };
        x = canvas.text(x, y, &format!(" {} ", view.name()), style) + 1;
    }
    if let Overlay::FilterLine(line) = &model.overlay {
        let x = canvas.text(x + 1, y, "filter: ", canvas.paint.bold());
        let room = canvas.width().saturating_sub(x + 1);
        let skipped = line.visual_scroll(room);
        let shown: String = line.value().chars().skip(skipped).collect();
        canvas.text_up_to(x, y, &sanitize::clean(&shown), room, Style::default());
        let at = x + line.visual_cursor().saturating_sub(skipped);
        let under = shown.chars().nth(line.visual_cursor().saturating_sub(skipped)).unwrap_or(' ');
        canvas.text(at, y, &under.to_string(), canvas.paint.chosen());
    } else if model.filter.is_set() {
        // The number of rows stands at the right.
        let room = canvas.width().saturating_sub(x + 29);
        let chip = format!(" /{}/ Esc clears ", columns::fit(&sanitize::clean(model.filter.text()), room.clamp(8, 40)));
        canvas.text(x + 1, y, &chip, canvas.paint.chosen());
    }
    y + 1
}
