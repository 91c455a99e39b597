//! The view of processes: every Python process of the host, workers under their master.

use super::{sort, Figure, Heading, ListRow, RowId, SortKey};
use crate::output::{numbers, sanitize};
use crate::top::filter::Filter;
use rustc_hash::{FxHashMap, FxHashSet};

/// One Python process.
#[derive(Clone, Debug, PartialEq)]
pub struct HostRow {
    /// Its id.
    pub pid: i32,
    /// The nearest process above it that is Python too.
    pub parent: Option<i32>,
    /// The name of its user, or the number.
    pub user: String,
    /// The id of its container, shortened; `None` outside of containers.
    pub container: Option<String>,
    /// Its command line.
    pub command: String,
    /// The cores that it used since the last reading; `None` in the first one.
    pub cpu: Option<f64>,
    /// Share of time in which a thread held its GIL; `None` while it is not measured.
    pub gil_busy: Option<f64>,
    /// Threads that waited for it, on average; `None` while it is not measured.
    pub waiting: Option<f64>,
}

/// The columns.
pub const HEADINGS: &[Heading] = &[
    Heading { key: SortKey::Waiting, name: "waiting", short: "wait" },
    Heading { key: SortKey::Holding, name: "GIL busy", short: "GIL" },
    Heading { key: SortKey::Cpu, name: "cpu", short: "cpu" },
];

/// The rows that the filter accepts, and how many it hides.
pub fn rows(processes: &[HostRow], filter: &Filter) -> (Vec<ListRow>, usize) {
    let accepted = |p: &&HostRow| filter.accepts([p.command.as_str(), p.user.as_str(), p.container.as_deref().unwrap_or("")]);
    let mut rows: Vec<ListRow> = processes.iter().filter(accepted).map(row).collect();
    // The order of those that are equal in the column that sorts.
    sort(&mut rows, HEADINGS, SortKey::Cpu, false);
    let hidden = processes.len() - rows.len();
    (rows, hidden)
}

fn row(process: &HostRow) -> ListRow {
    let figure = |value: Option<f64>, text: fn(f64) -> String| Figure {
        text: numbers::or_none(value.map(text)),
        // What is not known is behind what is zero.
        value: value.unwrap_or(-1.0),
    };
    let container = process.container.as_ref().map(|id| format!(" in {}", sanitize::clean(id))).unwrap_or_default();
    ListRow {
        id: RowId::Process(process.pid),
        name: format!("{} {}", process.pid, sanitize::clean(&process.command)),
        suffix: String::new(),
        place: sanitize::clean(&process.user) + &container,
        figures: vec![
            figure(process.waiting, numbers::mean_threads),
            figure(process.gil_busy, numbers::bare_percent),
            figure(process.cpu, numbers::bare_percent),
        ],
        bar: None,
        alarm: false,
    }
}

/// Puts sorted rows in the order of a tree: each worker below its master, and the master with the
/// first row of its tree. Rows whose master is not among them are masters.
pub fn in_tree(rows: Vec<ListRow>, processes: &[HostRow]) -> Vec<ListRow> {
    let parents: FxHashMap<i32, i32> = processes.iter().filter_map(|p| Some((p.pid, p.parent?))).collect();
    let pid = |row: &ListRow| if let RowId::Process(pid) = row.id { pid } else { 0 };
    let shown: FxHashSet<i32> = rows.iter().map(pid).collect();
    // A pid is its own master's at most once, so that a loop of parents ends.
    let ancestry = |of: i32| {
        let mut line = vec![of];
        while let Some(&parent) = line.last().and_then(|last| parents.get(last)).filter(|p| shown.contains(p) && !line.contains(p)) {
            line.push(parent);
        }
        line
    };
    let mut rank: FxHashMap<i32, usize> = FxHashMap::default();
    for (n, row) in rows.iter().enumerate() {
        for member in ancestry(pid(row)) {
            rank.entry(member).or_insert(n);
        }
    }
    let path = |row: &ListRow| -> Vec<(usize, i32)> { ancestry(pid(row)).into_iter().rev().map(|pid| (rank[&pid], pid)).collect() };
    let mut keyed: Vec<(Vec<(usize, i32)>, ListRow)> = rows.into_iter().map(|row| (path(&row), row)).collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    let indented = |(path, row): (Vec<_>, ListRow)| ListRow { name: "  ".repeat(path.len().saturating_sub(1).min(8)) + &row.name, ..row };
    keyed.into_iter().map(indented).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: Option<i32>, cpu: f64) -> HostRow {
        let (user, command) = ("root".into(), format!("python {pid}"));
        HostRow { pid, parent, user, container: None, command, cpu: Some(cpu), gil_busy: None, waiting: None }
    }

    #[test]
    fn workers_are_under_their_master_and_trees_are_ordered_by_their_largest_row() {
        let processes =
            [process(1, None, 0.1), process(2, None, 0.0), process(3, Some(2), 0.9), process(4, Some(2), 0.2), process(5, Some(99), 0.5)];
        let (mut rows, hidden) = rows(&processes, &Filter::default());
        sort(&mut rows, HEADINGS, SortKey::Cpu, false);
        let names: Vec<String> = in_tree(rows, &processes).into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["2 python 2", "  3 python 3", "  4 python 4", "5 python 5", "1 python 1"]);
        assert_eq!(hidden, 0);
    }

    #[test]
    fn processes_that_are_each_others_parent_do_no_harm() {
        let processes = [process(1, Some(2), 0.1), process(2, Some(1), 0.2)];
        assert_eq!(in_tree(rows(&processes, &Filter::default()).0, &processes).len(), 2);
    }

    #[test]
    fn an_unknown_figure_is_a_dash_behind_zero() {
        let row = row(&process(7, None, 0.0));
        assert_eq!(row.figures.iter().map(|f| f.text.as_str()).collect::<Vec<_>>(), ["-", "-", "0"]);
        assert!(row.figures[0].value < row.figures[2].value);
    }
}
