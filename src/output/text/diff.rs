//! A comparison on the terminal: whether anything differs, then the figures of both sides, each
//! with its change and the interval of the change.

use super::{Page, Style};
use crate::analysis::compare::{Change, Comparison, FunctionChange, WindowSummary};
use crate::analysis::file_names::FileNames;
use crate::output::{columns, file_names, numbers, palette, sanitize};

/// Rows of each table of functions.
const MAX_FUNCTIONS: usize = 8;

/// The whole page.
pub fn render(comparison: &Comparison, style: Style) -> String {
    let mut page = Page::new(style);
    side(&mut page, "gilprof diff  base: ", &comparison.base);
    side(&mut page, "               new: ", &comparison.new);
    page.blank();
    let title = if comparison.real { "DIFFERENT" } else { "NO REAL DIFFERENCE" };
    page.line(&format!("  {}", palette::bold(title, style.colour)));
    page.prose("  ", &comparison.headline);
    if comparison.base.verdict != comparison.new.verdict {
        let [before, after] = [&comparison.base, &comparison.new].map(|brief| brief.verdict.name());
        page.prose("  ", &format!("The verdict was: {before}; it is: {after}."));
    }
    figures(&mut page, comparison);
    threads(&mut page, comparison);
    let (worse, better): (Vec<_>, Vec<_>) = comparison.functions.iter().partition(|f| harm(f) > 0.0);
    let names = FileNames::new(comparison.functions.iter().map(|f| f.file.as_str()));
    functions(&mut page, "functions that got worse", &worse, &names);
    functions(&mut page, "functions that got better", &better, &names);
    comparison.warnings.iter().enumerate().for_each(|(n, warning)| {
        if n == 0 {
            page.blank();
        }
        page.prose("  warning: ", warning);
    });
    page.finish()
}

fn side(page: &mut Page, lead: &str, brief: &WindowSummary) {
    let program = brief.command.iter().map(|argument| sanitize::basename(argument)).take(3).collect::<Vec<_>>().join(" ");
    let (seconds, samples) = (numbers::seconds(brief.seconds), numbers::thousands(brief.samples));
    page.prose(lead, &format!("pid {}  python {}  {program}, {seconds}, {samples} samples", brief.pid, brief.python));
}

/// Both figures, the change, its interval, and a mark where the change is real.
fn cells(change: &Change, share: bool) -> String {
    let figure = |value: f64| if share { format!("{:.1} %", value * 100.0) } else { format!("{value:.2}") };
    let signed = |value: f64| if share { format!("{:+.1}", value * 100.0) } else { format!("{value:+.2}") };
    format!(
        "{}{}{}   ({} .. {}){}",
        columns::right(&figure(change.base), 10),
        columns::right(&figure(change.new), 10),
        columns::right(&signed(change.change), 9),
        signed(change.low),
        signed(change.high),
        if change.real { " *" } else { "" }
    )
}

fn figures(page: &mut Page, comparison: &Comparison) {
    page.heading(&format!("  {}      base       new   change   99 % interval; * real", columns::left("figure", 22)));
    for figure in &comparison.figures {
        page.line(&format!("  {}{}", columns::left(figure.name, 22), cells(&figure.change, figure.share)));
    }
}

fn threads(page: &mut Page, comparison: &Comparison) {
    if comparison.threads.is_empty() {
        return;
    }
    page.heading(&format!("  {}      base       new   change", columns::left("threads", 22)));
    for row in &comparison.threads {
        let count = match row.threads {
            [before, after] if before == after => format!("{after}x"),
            [before, after] => format!("{before}x, now {after}x"),
        };
        let name = columns::fit(&sanitize::clean(&row.name), page.style.width - 3 - columns::width(&count));
        page.line(&format!("  {name} {}", palette::dim(&count, page.style.colour)));
        page.line(&format!("  {}{}", columns::left("  waiting", 22), cells(&row.waiting, true)));
        page.line(&format!("  {}{}", columns::left("  holding", 22), cells(&row.holding, true)));
    }
}

/// The change of a function's waiting and of the waiting that it inflicts; if neither is real, of
/// its holding. A positive change is worse.
fn harm(function: &FunctionChange) -> f64 {
    let real = |change: &Change| if change.real { change.change } else { 0.0 };
    let harm = real(&function.inflicted_wait) + real(&function.waiting);
    if harm == 0.0 {
        real(&function.holding)
    } else {
        harm
    }
}

fn functions(page: &mut Page, title: &str, rows: &[&FunctionChange], names: &FileNames) {
    if rows.is_empty() {
        return;
    }
    page.heading(&format!("  {title}, threads on average"));
    for row in rows.iter().take(MAX_FUNCTIONS) {
        let function = format!("{} ({})", sanitize::clean(&row.name), file_names::place(names, &row.file, row.line));
        page.line(&format!("  {}", columns::fit(&function, page.style.width - 2)));
        for (what, change) in [("  holding", &row.holding), ("  waiting", &row.waiting), ("  others wait", &row.inflicted_wait)] {
            if change.real {
                page.line(&format!("  {}{}", columns::left(what, 22), cells(change, false)));
            }
        }
    }
    if rows.len() > MAX_FUNCTIONS {
        page.line(&format!("  and {} more", rows.len() - MAX_FUNCTIONS));
    }
}
