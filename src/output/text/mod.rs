//! The report on the terminal: the verdict first, in words, then the evidence, narrow enough for 80 columns.
//!
//! This file owns the page, the line at its top and what is said of the measuring at its end; [`verdict`], `threads` and `functions` own
//! the parts between. With colour off the same text comes without a single escape, with bars off without the pictures.

pub mod diff;
mod functions;
mod threads;
pub mod verdict;

use crate::analysis::report::{Gil, Quantiles, Report, Target};
use crate::output::{columns, numbers, palette, sanitize};

/// How the page may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether colours may be sent.
    pub colour: bool,
    /// Whether threads get a bar.
    pub bars: bool,
    /// Columns of the terminal; used within [`Style::NARROWEST`] and [`Style::WIDEST`].
    pub width: usize,
}

impl Style {
    /// The tables need this much.
    pub const NARROWEST: usize = 64;
    /// Longer lines are hard to read.
    pub const WIDEST: usize = 120;

    /// For pipes and files: 80 columns, neither colour nor bars.
    pub const PLAIN: Style = Style { colour: false, bars: false, width: 80 };
}

/// Warnings beyond this many are only counted.
const MAX_WARNINGS: usize = 10;

/// The whole page.
pub fn render(report: &Report, style: Style) -> String {
    let mut page = Page::new(style);
    header(&mut page, report);
    verdict::write(&mut page, report);
    gil(&mut page, report);
    threads::write(&mut page, report);
    functions::write(&mut page, report);
    verdict::write_findings(&mut page, &report.findings);
    warnings(&mut page, &report.warnings);
    measuring(&mut page, report);
    page.finish()
}

/// A page being written: keeps every line within the width, whatever is put on it.
pub(crate) struct Page {
    out: String,
    pub(crate) style: Style,
}

impl Page {
    /// An empty one.
    pub(crate) fn new(style: Style) -> Page {
        let width = style.width.clamp(Style::NARROWEST, Style::WIDEST);
        Page { out: String::new(), style: Style { width, ..style } }
    }

    /// All that is on it.
    pub(crate) fn finish(self) -> String {
        self.out
    }

    pub(crate) fn blank(&mut self) {
        self.out.push('\n');
    }

    /// One line that is known to fit; may hold colour.
    pub(crate) fn line(&mut self, line: &str) {
        self.out += line.trim_end();
        self.out.push('\n');
    }

    /// Text broken into lines, the first after `lead`, the others under its end. `lead` must not hold colour.
    pub(crate) fn prose(&mut self, lead: &str, text: &str) {
        let indent = columns::width(lead);
        for (n, line) in columns::wrap(&sanitize::clean(text), self.style.width.saturating_sub(indent)).into_iter().enumerate() {
            let start = if n == 0 { lead.to_string() } else { " ".repeat(indent) };
            self.line(&(start + &line));
        }
    }

    /// Pieces side by side, as many on a line as fit.
    pub(crate) fn flow(&mut self, lead: &str, gap: &str, pieces: &[String]) {
        self.flow_painted(lead, gap, pieces, |_, piece| piece.to_string());
    }

    /// [`Page::flow`] with colour put on each, by number, after its columns are counted.
    pub(crate) fn flow_painted(&mut self, lead: &str, gap: &str, pieces: &[String], paint: impl Fn(usize, &str) -> String) {
        let indent = columns::width(lead);
        let (mut line, mut used) = (lead.to_string(), indent);
        for (n, piece) in pieces.iter().enumerate() {
            let piece = columns::fit(piece, self.style.width - indent - gap.trim_end().len());
            let wide = columns::width(&piece);
            if used > indent {
                // A comma stays at the end of the line that it closes.
                if used + gap.len() + wide + gap.trim_end().len() > self.style.width {
                    self.line(&(line + gap));
                    (line, used) = (" ".repeat(indent), indent);
                } else {
                    line += gap;
                    used += gap.len();
                }
            }
            line += &paint(n, &piece);
            used += wide;
        }
        self.line(&line);
    }

    /// A section's first line, after a blank one.
    pub(crate) fn heading(&mut self, line: &str) {
        self.blank();
        self.line(&palette::bold(line, self.style.colour));
    }
}

/// Which process, and how long and how often it was looked at.
fn header(page: &mut Page, report: &Report) {
    let (target, window) = (&report.target, &report.window);
    let lead = format!("gilprof  pid {}  python {}  ", target.pid, columns::fit(&sanitize::clean(&target.python), 16));
    let cores = numbers::counted(target.cpus, "core");
    let mut right = format!("{}, {} looks", numbers::seconds(window.seconds), numbers::thousands(window.samples));
    if window.missed > 0 {
        right += &format!(", {} missed", numbers::thousands(window.missed));
    }
    let program = sanitize::clean(&program(target));
    let room = page.style.width.saturating_sub(columns::width(&lead) + columns::width(&cores) + columns::width(&right) + 4);
    // Too little room for a name: the figures get a line of their own.
    if room >= columns::width(&program).clamp(1, 12) {
        let left = format!("{lead}{}  {cores}", columns::fit(&program, room));
        let gap = page.style.width - columns::width(&left) - columns::width(&right);
        page.line(&format!("{left}{}{right}", " ".repeat(gap)));
    } else {
        page.flow(&lead, "  ", &[program, cores]);
        page.line(&columns::right(&right, page.style.width));
    }
}

/// What people call the program: its script or module, not the interpreter.
pub fn program(target: &Target) -> String {
    let mut words = target.command.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "-m" => return words.next().map_or_else(|| "-m".into(), |module| format!("-m {module}")),
            "-c" => return "-c".into(),
            // These two take a word of their own.
            "-W" | "-X" => drop(words.next()),
            option if option.starts_with('-') && option.len() > 1 => {}
            script => return sanitize::basename(script).to_string(),
        }
    }
    sanitize::basename(target.command.first().unwrap_or(&target.executable)).to_string()
}

/// The GIL's own figures.
fn gil(page: &mut Page, report: &Report) {
    page.blank();
    let target = &report.target;
    if !target.gil_enabled {
        page.prose("  GIL  ", "switched off in this free-threaded build");
        return;
    }
    let mut pieces = gil_figures(&report.gil);
    let interval = target.switch_interval_us.map(|us| numbers::ms(us as f64 / 1e3));
    pieces.push(format!("switch interval {}", numbers::or_none(interval)));
    page.flow("  GIL  ", "   ", &pieces);
    if report.gils.len() > 1 {
        page.prose("       ", &format!("the most contended of {}, which follow; never summed:", report.gils.len()));
        for (n, gil) in report.gils.iter().enumerate().take(8) {
            page.flow(&format!("  {n:>3}  "), "   ", &gil_figures(gil)[..4]);
        }
    }
}

fn gil_figures(gil: &Gil) -> Vec<String> {
    vec![
        format!("busy {}", numbers::percent(gil.busy)),
        format!("contended {}", numbers::percent(gil.contended)),
        format!("{} switches/s", numbers::or_none(gil.switches_per_s.map(numbers::count))),
        format!("wait {}", quantiles(gil.wait_ms)),
        format!("hold {}", quantiles(gil.hold_ms)),
        format!("{} waiting on average", numbers::count(gil.waiters_mean)),
    ]
}

fn quantiles(q: Option<Quantiles>) -> String {
    let about = |q: &Quantiles| if q.estimated { "about " } else { "" };
    q.map_or_else(|| numbers::NONE.into(), |q| format!("{}p50 {}, p99 {}", about(&q), numbers::ms(q.p50), numbers::ms(q.p99)))
}

fn warnings(page: &mut Page, warnings: &[String]) {
    if warnings.is_empty() {
        return;
    }
    page.heading("  warnings");
    for warning in warnings.iter().take(MAX_WARNINGS) {
        page.prose("  ! ", warning);
    }
    if warnings.len() > MAX_WARNINGS {
        page.prose("    ", &format!("and {} more", warnings.len() - MAX_WARNINGS));
    }
}

/// What was lost and what it cost: shown also when it is nothing, so that a reader need not wonder.
fn measuring(page: &mut Page, report: &Report) {
    let window = &report.window;
    page.blank();
    let asked = window.samples.saturating_add(window.missed);
    let mut pieces = vec![
        format!("{} of {} looks at {}/s", numbers::thousands(window.samples), numbers::thousands(asked), numbers::count(window.rate_hz)),
        format!("{} missed", numbers::thousands(window.missed)),
        format!("{} failed", numbers::thousands(window.failed)),
        format!("{} stacks torn (their lower part kept)", numbers::thousands(window.torn)),
        format!("gilprof used {} of a core", numbers::percent(window.profiler_cpu)),
    ];
    if window.exact {
        let count = |n: Option<u64>| n.map_or_else(|| "an unknown number of".into(), numbers::thousands);
        pieces.push(format!("waits are exact: {} kernel events, {} lost", count(window.events), count(window.lost_events)));
    }
    let colour = page.style.colour;
    page.flow_painted("  measured  ", ", ", &pieces, |_, piece| palette::dim(piece, colour));
}
