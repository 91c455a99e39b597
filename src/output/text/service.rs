//! Several processes on the terminal: the verdict on the service, a table of the processes, and the
//! whole page of those that wait most.

use super::{program, render, verdict, Page, Style};
use crate::analysis::report::{ProcessRole, Report};
use crate::analysis::service::report::{ProcessRow, ServiceReport};
use crate::output::{columns, numbers, palette, sanitize};

/// Processes with a page of their own.
const PAGES: usize = 2;
/// Rows of the table; the rest is counted.
const MAX_ROWS: usize = 64;
/// Processes that could not be read, of those that are named.
const MAX_REFUSED: usize = 4;
/// Columns of a level of the tree, and the levels that are shown.
const INDENT: usize = 2;
const MAX_DEPTH: usize = 4;
/// Columns of the process id with its indent, at least and at most, and of the verdict.
const PID: (usize, usize) = (7, 15);
const VERDICT: usize = 19;

/// The whole text. The reports are in the order in which the service was made of them.
pub fn render_service(service: &ServiceReport, reports: &[&Report], style: Style) -> String {
    let mut page = Page::new(style);
    header(&mut page, service, reports);
    verdict::statement(&mut page, &service.verdict);
    page.prose("  ", &verdict::confidence(&service.verdict));
    verdict::what_if_answers(&mut page, &service.what_if);
    table(&mut page, service, reports);
    measured(&mut page, service);
    let shown: Vec<&&Report> = service.most_waiting.iter().take(PAGES).filter_map(|n| reports.get(*n)).collect();
    pages_note(&mut page, service, shown.len());
    let mut out = page.finish();
    for report in shown {
        out.push('\n');
        out += &render(report, style);
    }
    out
}

fn header(page: &mut Page, service: &ServiceReport, reports: &[&Report]) {
    let longest = reports.iter().map(|report| report.window.seconds).fold(0.0, f64::max);
    let samples = reports.iter().map(|report| report.window.samples).max().unwrap_or(0);
    let cpus = reports.iter().map(|report| report.target.cpus).fold(0.0, f64::max);
    let root = service.table.first().and_then(|row| reports.get(row.report));
    let name = root.map_or(String::new(), |report| sanitize::clean(&program(&report.target)));
    let left = format!("gilprof  {} processes  ", service.processes);
    let right = format!("{}, up to {} samples of each", numbers::seconds(longest), numbers::thousands(samples));
    let cores = numbers::counted(cpus, "core");
    let width = page.prose_width();
    let room = width.saturating_sub(columns::width(&left) + columns::width(&cores) + columns::width(&right) + 4);
    let left = format!("{left}{}  {cores}", columns::fit(&name, room.max(8)));
    let gap = width.saturating_sub(columns::width(&left) + columns::width(&right));
    if gap > 0 {
        page.line(&format!("{left}{}{right}", " ".repeat(gap)));
    } else {
        page.line(&left);
        page.line(&columns::right(&right, width));
    }
}

fn table(page: &mut Page, service: &ServiceReport, reports: &[&Report]) {
    let (colour, width) = (page.style.colour, page.style.width);
    let indented = |row: &ProcessRow| format!("{}{}", " ".repeat(INDENT * row.depth.min(MAX_DEPTH)), row.pid);
    let widest = service.table.iter().take(MAX_ROWS).map(|row| columns::width(&indented(row))).max().unwrap_or(0);
    let (least, most) = PID;
    let pid_columns = widest.clamp(least, most);
    let head = figures("threads", "busy", "waiting", "cpu");
    let what = width.saturating_sub(2 + pid_columns + 1 + columns::width(&head) + 2 + VERDICT).max(5);
    page.heading(&format!("  {} {}{head}  verdict", columns::left("process", pid_columns), columns::left("", what)));
    for row in service.table.iter().take(MAX_ROWS) {
        let figures = figures(
            &numbers::count(row.threads),
            &numbers::bare_percent(row.busy),
            &numbers::bare_percent(row.waiting),
            &numbers::bare_percent(row.cpu),
        );
        let verdict = palette::verdict(&columns::fit(row.verdict.name(), VERDICT), row.verdict, colour);
        page.line(&format!(
            "  {} {}{figures}  {verdict}",
            columns::left(&indented(row), pid_columns),
            columns::left(&kind(row, reports), what)
        ));
    }
    if service.table.len() > MAX_ROWS {
        page.prose("  ", &format!("and {} more", service.table.len() - MAX_ROWS));
    }
    page.prose("  ", "busy: share of the time in which its GIL was held; waiting: of the time of its threads that use the GIL; cpu: of one core; all in per cent");
    if service.table.iter().any(|row| row.processes > 1) {
        page.prose("  ", "A row of several short-lived processes has their means, weighted by the time of each.");
    }
}

fn figures(threads: &str, busy: &str, waiting: &str, cpu: &str) -> String {
    format!("{threads:>8}{busy:>6}{waiting:>9}{cpu:>5}")
}

/// "worker app.py", "35 workers app.py", "forkserver".
fn kind(row: &ProcessRow, reports: &[&Report]) -> String {
    if let Some(helper) = row.helper {
        return helper.into();
    }
    let role = match row.role {
        ProcessRole::Master => "master",
        ProcessRole::Worker => "worker",
        ProcessRole::Helper => "helper",
    };
    let name = reports.get(row.report).map_or(String::new(), |report| sanitize::clean(&program(&report.target)));
    match row.processes {
        1 => format!("{role} {name}"),
        n => format!("{n} {role}s {name}"),
    }
}

/// How much of the CPU time was measured.
fn measured(page: &mut Page, service: &ServiceReport) {
    let Some(share) = service.measured_share else { return };
    page.blank();
    let mut text = format!("{} of the CPU time of these processes and those below them", numbers::percent(share));
    let unmeasured =
        [(service.unmeasured_python_cores, "Python processes that were not measured"), (service.other_cores, "other programs")];
    let rest: Vec<String> = unmeasured
        .iter()
        .filter_map(|(cores, what)| Some((*cores.as_ref()?, *what)))
        .filter(|(cores, _)| *cores >= 0.05)
        .map(|(cores, what)| format!("{what} used {}", numbers::counted(cores, "core")))
        .collect();
    if !rest.is_empty() {
        text += &format!("; {}", rest.join(", "));
    }
    page.prose("  measured  ", &text);
    for process in service.refused.iter().take(MAX_REFUSED) {
        let why = process.why.lines().next().unwrap_or_default();
        page.prose("            ", &sanitize::clean(&format!("not pid {} ({}): {why}", process.pid, process.command)));
    }
    let more = service.refused.len().saturating_sub(MAX_REFUSED);
    if more > 0 {
        page.prose("            ", &format!("and {more} more"));
    }
}

/// Where the pages of the other processes are.
fn pages_note(page: &mut Page, service: &ServiceReport, shown: usize) {
    let others = service.processes.saturating_sub(shown);
    let what = match (shown, others) {
        (_, 0) => return,
        (0, _) => "No thread waits much. The page of one process".to_string(),
        (n, _) => {
            format!("Below {} the {} with the most waiting. The page of another process", if n == 1 { "is" } else { "are" }, counted(n))
        }
    };
    page.prose("  pages     ", &format!("{what}, from a recording: gilprof report FILE --pid PID"));
}

fn counted(n: usize) -> String {
    if n == 1 {
        "process".into()
    } else {
        format!("{n} processes")
    }
}
