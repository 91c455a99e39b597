//! What is said of several processes, as the page gets it.

use crate::analysis::service::report::{ProcessRow, ServiceReport};
use crate::output::text::verdict::banner;
use crate::output::{palette, text, Source};
use serde_json::{json, Value};

/// Rows of the table, at most.
const MAX_ROWS: usize = 200;

/// The verdict and the table; of the processes, the first `shown` are on the page.
pub fn value(service: &ServiceReport, sources: &[Source<'_>], shown: usize) -> Value {
    let (banner, headline) = banner(&service.verdict);
    json!({
        "banner": banner, "headline": headline, "tone": palette::verdict_style(service.verdict.code) as usize,
        "verdict": service.verdict, "what_if": service.what_if, "measured_share": service.measured_share,
        "processes": service.processes, "more_rows": service.table.len().saturating_sub(MAX_ROWS),
        "table": service.table.iter().take(MAX_ROWS).map(|row| row_value(row, sources, shown)).collect::<Vec<_>>(),
    })
}

/// A row, with the index of its process on the page unless that has no place there.
fn row_value(row: &ProcessRow, sources: &[Source<'_>], shown: usize) -> Value {
    let program = sources.get(row.report).map(|source| text::program(&source.report.target));
    let tone = palette::verdict_style(row.verdict) as usize;
    json!({"row": row, "program": program, "tone": tone, "shown": (row.report < shown).then_some(row.report)})
}
