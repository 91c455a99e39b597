//! The view of functions: how much waiting each inflicts on others, and its own time, in threads on
//! average.

use super::{Figure, Heading, ListRow, RowId, SortKey, ALARM};
use crate::output::{file_names, numbers, sanitize};
use crate::top::filter::Filter;
use crate::top::picture::Picture;

/// The columns.
pub const HEADINGS: &[Heading] = &[
    Heading { key: SortKey::OthersWait, name: "others wait", short: "others" },
    Heading { key: SortKey::Holding, name: "holding", short: "hold" },
    Heading { key: SortKey::InC, name: "in C", short: "in C" },
    Heading { key: SortKey::Asleep, name: "asleep", short: "aslp" },
    Heading { key: SortKey::Waiting, name: "waiting", short: "wait" },
    Heading { key: SortKey::Native, name: "native", short: "nat" },
    Heading { key: SortKey::Lock, name: "lock", short: "lock" },
    Heading { key: SortKey::Io, name: "io", short: "io" },
];

/// The rows that the filter accepts, and how many it hides.
pub fn rows(picture: &Picture, filter: &Filter) -> (Vec<ListRow>, usize) {
    let report = &picture.report;
    let names = file_names::of_report(report);
    let mut rows = Vec::new();
    for function in &report.functions {
        let caller = function.called_from.as_ref();
        let of_caller = caller.map(|caller| [caller.name.as_str(), caller.file.as_str()]).into_iter().flatten();
        if !filter.accepts([function.name.as_str(), function.file.as_str()].into_iter().chain(of_caller)) {
            continue;
        }
        let f = function;
        let figures = [f.inflicted_wait, f.holding, f.holding_native, f.holding_blocked, f.waiting, f.native, f.lock, f.io];
        let place = file_names::place(&names, &f.file, f.line);
        let from = caller.map(|caller| format!(" < {}", sanitize::clean(&caller.name))).unwrap_or_default();
        rows.push(ListRow {
            id: RowId::Code(format!("{}\n{}\n{}", f.name, f.file, f.line)),
            name: sanitize::clean(&f.name),
            suffix: String::new(),
            place: place + &from,
            figures: figures.into_iter().map(|value| Figure { text: numbers::mean_threads(value), value }).collect(),
            bar: None,
            alarm: f.holding_blocked > ALARM,
        });
    }
    let hidden = report.functions.len() - rows.len();
    (rows, hidden)
}
