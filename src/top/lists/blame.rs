//! The view of blame: which function waits while which one holds the GIL.

use super::{Figure, Heading, ListRow, RowId, SortKey};
use crate::analysis::report::{Blame, Place};
use crate::output::{file_names, numbers, sanitize};
use crate::top::filter::Filter;
use crate::top::picture::Picture;

/// The columns.
pub const HEADINGS: &[Heading] = &[
    Heading { key: SortKey::Waiting, name: "threads waiting", short: "wait" },
    Heading { key: SortKey::OthersWait, name: "of all waiting", short: "of all" },
];
/// In place of the holder where a sample saw none.
const NO_HOLDER: &str = "(GIL switch: no holder)";

/// The rows that the filter accepts, and how many it hides.
pub fn rows(picture: &Picture, filter: &Filter) -> (Vec<ListRow>, usize) {
    let report = &picture.report;
    let names = file_names::of_report(report);
    let (seconds, all) = (report.window.seconds, report.blame.iter().map(|blame| blame.seconds).sum::<f64>());
    let part = |of: f64, whole: f64| if whole > 0.0 { of / whole } else { 0.0 };
    let named = |place: &Place| format!("{} ({})", sanitize::clean(&place.name), file_names::place(&names, &place.file, place.line));
    let texts = |blame: &Blame| -> Vec<String> {
        let places = [Some(&blame.waiter), blame.holder.as_ref()].into_iter().flatten();
        places.flat_map(|place| [place.name.clone(), place.file.clone()]).collect()
    };
    let mut rows = Vec::new();
    for blame in report.blame.iter().filter(|blame| blame.seconds > 0.0) {
        if !filter.accepts(texts(blame).iter().map(String::as_str)) {
            continue;
        }
        let (mean, share) = (part(blame.seconds, seconds), part(blame.seconds, all));
        let (waiter, holder) = (named(&blame.waiter), blame.holder.as_ref().map_or_else(|| NO_HOLDER.into(), named));
        rows.push(ListRow {
            id: RowId::Code(format!("{:?}\n{:?}", blame.waiter, blame.holder)),
            name: waiter,
            suffix: String::new(),
            place: holder,
            figures: vec![
                Figure { text: numbers::mean_threads(mean), value: mean },
                Figure { text: numbers::percent(share), value: share },
            ],
            bar: None,
            alarm: false,
        });
    }
    let hidden = report.blame.iter().filter(|blame| blame.seconds > 0.0).count() - rows.len();
    (rows, hidden)
}
