//! The blame matrix, in a size that fits the page: seconds of waiting by the functions that wait
//! most and the functions that held the GIL meanwhile.

use crate::analysis::file_names::FileNames;
use crate::analysis::report::{Blame, Place};
use crate::output::file_names;
use serde_json::{json, Value};
use std::collections::HashMap;

/// Functions that have a row, or a column, of their own.
const MAX_ROWS: usize = 12;

/// The meaning of a row or a column.
#[derive(Clone, Debug, PartialEq)]
enum Head<'a> {
    Function(&'a Place),
    /// No thread was seen to hold the GIL.
    NoHolder,
    /// All functions without a row of their own.
    Others(usize),
}

/// The heads of one side, the one with the most seconds first, and the index of each key.
struct Side<'a> {
    heads: Vec<Head<'a>>,
    index: HashMap<Key<'a>, usize>,
}

type Key<'a> = Option<(&'a str, &'a str, u32)>;

fn key(place: Option<&Place>) -> Key<'_> {
    place.map(|p| (p.name.as_str(), p.file.as_str(), p.line))
}

/// `{waiters, holders, seconds}`: one row of seconds per waiter.
pub fn value(blame: &[Blame], names: &FileNames) -> Value {
    let rows: Vec<&Blame> = blame.iter().filter(|row| row.seconds > 0.0).collect();
    let waiters = Side::new(rows.iter().map(|row| (Some(&row.waiter), row.seconds)));
    let holders = Side::new(rows.iter().map(|row| (row.holder.as_ref(), row.seconds)));
    let mut seconds = vec![vec![0.0; holders.heads.len()]; waiters.heads.len()];
    for row in &rows {
        seconds[waiters.at(Some(&row.waiter))][holders.at(row.holder.as_ref())] += row.seconds;
    }
    json!({"waiters": waiters.to_json(names), "holders": holders.to_json(names), "seconds": seconds})
}

impl<'a> Side<'a> {
    fn new(rows: impl Iterator<Item = (Option<&'a Place>, f64)>) -> Side<'a> {
        let mut sums: HashMap<Key<'a>, (Option<&'a Place>, f64)> = HashMap::new();
        for (place, seconds) in rows {
            sums.entry(key(place)).or_insert((place, 0.0)).1 += seconds;
        }
        let mut sums: Vec<(Key<'a>, (Option<&'a Place>, f64))> = sums.into_iter().collect();
        sums.sort_by(|a, b| b.1 .1.total_cmp(&a.1 .1).then(a.0.cmp(&b.0)));
        let shown = if sums.len() > MAX_ROWS + 1 { MAX_ROWS } else { sums.len() };
        let mut heads: Vec<Head<'a>> = sums[..shown].iter().map(|(_, (place, _))| place.map_or(Head::NoHolder, Head::Function)).collect();
        if sums.len() > shown {
            heads.push(Head::Others(sums.len() - shown));
        }
        let index = sums[..shown].iter().enumerate().map(|(n, (key, _))| (*key, n)).collect();
        Side { heads, index }
    }

    fn at(&self, place: Option<&Place>) -> usize {
        self.index.get(&key(place)).copied().unwrap_or(self.heads.len() - 1)
    }

    fn to_json(&self, names: &FileNames) -> Vec<Value> {
        let head_json = |head: &Head<'_>| match head {
            Head::Function(p) => {
                let place = file_names::place(names, &p.file, p.line);
                json!({"name": p.name, "place": place, "caller": file_names::caller(names, p.called_from.as_ref())})
            }
            Head::NoHolder => json!({"name": "no holder", "place": "at the sample"}),
            Head::Others(count) => json!({"name": format!("{count} others"), "place": "", "others": true}),
        };
        self.heads.iter().map(head_json).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_without_a_row_are_counted() {
        let files = FileNames::default();
        let place = |n: u32| Place { name: format!("f{n}"), file: "/srv/app.py".into(), line: n, called_from: None };
        let pair = |n: u32| Blame { waiter: place(n), holder: (!n.is_multiple_of(3)).then(|| place(n % 3)), seconds: f64::from(n) };
        let blame: Vec<Blame> = (1..=40).map(pair).collect();
        let matrix = value(&blame, &files);
        let total: f64 = matrix["seconds"].as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap()).filter_map(Value::as_f64).sum();
        assert_eq!(total, 820.0);
        let names = |side: &str| matrix[side].as_array().unwrap().iter().map(|h| h["name"].to_string()).collect::<Vec<_>>();
        assert_eq!((names("waiters").len(), names("waiters")[12].as_str()), (13, "\"28 others\""));
        assert!(names("holders").contains(&"\"no holder\"".into()), "{matrix}");
        assert_eq!(value(&[], &files)["seconds"], json!([]));
    }
}
