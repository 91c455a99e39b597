//! The report on the terminal: the verdict first, in words, then the evidence. It fits 80 columns
//! and uses more where the terminal has them.
//!
//! This file owns the page, the line at its top and the line about the measurement at its end;
//! [`verdict`], `threads` and `functions` own the parts between. With colour off, the same text has
//! no escape sequences; with bars off, no pictures.

pub mod diff;
mod functions;
pub mod service;
mod threads;
pub mod verdict;

use crate::analysis::report::{Gil, Quantiles, Report, Target};
use crate::output::{columns, numbers, palette, sanitize};

/// Width and decoration of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Whether the page has colours.
    pub colour: bool,
    /// Whether threads get a bar.
    pub bars: bool,
    /// Columns of the terminal; clamped to [`Style::NARROWEST`] and [`Style::WIDEST`].
    pub width: usize,
}

impl Style {
    /// The tables need this much.
    pub const NARROWEST: usize = 64;
    /// Wider tables are hard to read.
    pub const WIDEST: usize = 160;
    /// Sentences are hard to read already in lines longer than this.
    const WIDEST_PROSE: usize = 100;

    /// For pipes and files: 80 columns, neither colour nor bars.
    pub const PLAIN: Style = Style { colour: false, bars: false, width: 80 };
}

/// Characters and lines of one sentence or paragraph; the rest is cut. Only hostile names make
/// more.
const MAX_PROSE: usize = 1000;
const MAX_PROSE_LINES: usize = 16;

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

/// A page being written. Every line stays within the width.
pub(crate) struct Page {
    out: String,
    pub(crate) style: Style,
}

impl Page {
    /// An empty page.
    pub(crate) fn new(style: Style) -> Page {
        let width = style.width.clamp(Style::NARROWEST, Style::WIDEST);
        Page { out: String::new(), style: Style { width, ..style } }
    }

    /// The text of the page.
    pub(crate) fn finish(self) -> String {
        self.out
    }

    pub(crate) fn blank(&mut self) {
        self.out.push('\n');
    }

    /// One line that is known to fit; may have colour codes.
    pub(crate) fn line(&mut self, line: &str) {
        self.out += line.trim_end();
        self.out.push('\n');
    }

    /// Columns for sentences and lists, which are not as wide as tables may be.
    fn prose_width(&self) -> usize {
        self.style.width.min(Style::WIDEST_PROSE)
    }

    /// Text broken into lines, the first after `lead`, the others indented by the width of `lead`,
    /// which must not have colour codes.
    pub(crate) fn prose(&mut self, lead: &str, text: &str) {
        let indent = columns::width(lead);
        let lines = columns::wrap(&sanitize::clean_up_to(text, MAX_PROSE), self.prose_width().saturating_sub(indent));
        let cut = lines.len() > MAX_PROSE_LINES;
        for (n, line) in lines.into_iter().take(MAX_PROSE_LINES).enumerate() {
            let start = if n == 0 { lead.to_string() } else { " ".repeat(indent) };
            self.line(&(start + &line));
        }
        if cut {
            self.line(&(" ".repeat(indent) + "…"));
        }
    }

    /// Pieces side by side, as many on a line as fit.
    pub(crate) fn flow(&mut self, lead: &str, gap: &str, pieces: &[String]) {
        self.flow_painted(lead, gap, pieces, |_, piece| piece.to_string());
    }

    /// [`Page::flow`] with each piece coloured by `paint`, from its number, after its columns are
    /// counted.
    pub(crate) fn flow_painted(&mut self, lead: &str, gap: &str, pieces: &[String], paint: impl Fn(usize, &str) -> String) {
        let indent = columns::width(lead);
        let (mut line, mut used) = (lead.to_string(), indent);
        for (n, piece) in pieces.iter().enumerate() {
            let piece = columns::fit(piece, self.prose_width() - indent - gap.trim_end().len());
            let wide = columns::width(&piece);
            if used > indent {
                // A comma stays at the end of the line that it closes.
                if used + gap.len() + wide + gap.trim_end().len() > self.prose_width() {
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

/// The process, the length of the window and the number of samples.
fn header(page: &mut Page, report: &Report) {
    let (target, window) = (&report.target, &report.window);
    let lead = format!("gilprof  pid {}  python {}  ", target.pid, columns::fit(&sanitize::clean(&target.python), 16));
    let cores = numbers::counted(target.cpus, "core");
    let mut right = format!("{}, {} samples", numbers::seconds(window.seconds), numbers::thousands(window.samples));
    if window.missed > 0 {
        right += &format!(", {} missed", numbers::thousands(window.missed));
    }
    let program = sanitize::clean(&program(target));
    let room = page.prose_width().saturating_sub(columns::width(&lead) + columns::width(&cores) + columns::width(&right) + 4);
    // Too little room for a name: the figures get a line of their own.
    if room >= columns::width(&program).clamp(1, 12) {
        let left = format!("{lead}{}  {cores}", columns::fit(&program, room));
        let gap = page.prose_width() - columns::width(&left) - columns::width(&right);
        page.line(&format!("{left}{}{right}", " ".repeat(gap)));
    } else {
        page.flow(&lead, "  ", &[program, cores]);
        let width = page.prose_width();
        page.line(&columns::right(&right, width));
    }
}

/// The name of the program: its script or module, not the interpreter.
pub fn program(target: &Target) -> String {
    let own_name = || sanitize::basename(target.command.first().unwrap_or(&target.executable)).to_string();
    // The arguments of a program with Python inside, or made into one file, are its own.
    if !names_python(&target.executable) && !target.command.first().is_some_and(|path| names_python(path)) {
        return target
            .command
            .get(1)
            .filter(|script| script.ends_with(".py"))
            .map_or_else(own_name, |path| sanitize::basename(path).into());
    }
    let mut arguments = target.command.iter().skip(1);
    while let Some(argument) = arguments.next() {
        let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return sanitize::basename(argument).to_string();
        };
        // A letter with a value ends a group of letters. The value follows at once, or is the next
        // argument.
        let with_value = letters.find(['c', 'm', 'W', 'X']).filter(|_| !letters.starts_with('-'));
        let value = with_value.map(|at| &letters[at + 1..]).filter(|value| !value.is_empty());
        match with_value.map(|at| letters.as_bytes()[at]) {
            Some(b'c') => return "-c".into(),
            Some(b'm') => return value.or(arguments.next().map(String::as_str)).map_or("-m".into(), |module| format!("-m {module}")),
            Some(_) if value.is_none() => drop(arguments.next()),
            None if letters == "-check-hash-based-pycs" => drop(arguments.next()),
            _ => {}
        }
    }
    own_name()
}

/// Whether a path is that of an interpreter: `python3.11`, `python3-dbg`, `pythonw`, `pypy3`.
fn names_python(path: &str) -> bool {
    let name = sanitize::basename(path);
    let rest = name.strip_prefix("python").or_else(|| name.strip_prefix("pypy"));
    rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) || ["", "w", "-dbg"].contains(&rest))
}

/// The figures of the GIL; where there are several, those of each.
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
    resolution(page, &report.gil);
    if report.gils.len() > 1 {
        page.prose("       ", &format!("the most contended of {} GILs, which are not summed:", report.gils.len()));
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
    let Some(q) = q else { return numbers::NONE.into() };
    let bound = if q.at_most { "≤ " } else { "" };
    format!("p50 {bound}{}, p99 {bound}{}", numbers::ms(q.p50), numbers::ms(q.p99))
}

/// The limit of lengths that are estimated from samples.
fn resolution(page: &mut Page, gil: &Gil) {
    let estimated = [("wait", gil.wait_ms), ("hold", gil.hold_ms)].map(|(name, q)| q.filter(|q| q.estimated).map(|q| (name, q)));
    let named: Vec<&str> = estimated.iter().flatten().map(|(name, _)| *name).collect();
    let interval = estimated.iter().flatten().find_map(|(_, q)| q.resolution_ms);
    if let Some(interval) = interval {
        let named = named.join(", ");
        page.prose("       ", &format!("{named}: estimates from samples {} apart; shorter ones are missed", numbers::ms(interval)));
    }
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

/// Torn stacks beside the number of samples. They are no part of the samples, because several
/// stacks of one sample may be torn.
fn torn(stacks: u64, samples: u64) -> String {
    let [torn, of] = [stacks, samples].map(numbers::thousands);
    match stacks {
        0 => "0 stacks torn".into(),
        n if n < samples / 100 => format!("{torn} stacks torn in {of} samples"),
        _ => format!("{torn} stacks torn in {of} samples (outer frames kept)"),
    }
}

/// The samples that were lost and the cost of measuring, also when they are zero.
fn measuring(page: &mut Page, report: &Report) {
    let window = &report.window;
    page.blank();
    let [samples, planned] = [window.samples, window.samples.saturating_add(window.missed)].map(numbers::thousands);
    let mut pieces = vec![
        format!("{samples} of {planned} samples at {} Hz", numbers::count(window.rate_hz)),
        format!("{} missed", numbers::thousands(window.missed)),
        format!("{} failed", numbers::thousands(window.failed)),
        torn(window.torn, window.samples),
        format!("gilprof used {} of a core", numbers::percent(window.profiler_cpu)),
    ];
    if window.exact {
        let count = |n: Option<u64>| n.map_or_else(|| "an unknown number of".into(), numbers::thousands);
        pieces.push(format!("waits are exact: {} kernel events, {} lost", count(window.events), count(window.lost_events)));
    }
    let colour = page.style.colour;
    page.flow_painted("  measured  ", ", ", &pieces, |_, piece| palette::dim(piece, colour));
    if let Some(why) = &window.engine_reason {
        page.prose("  engine    ", &format!("samples: {why}"));
    }
}
