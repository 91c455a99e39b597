//! Measurements that cannot decide everything: what would pass is inconclusive, and what is broken
//! stays broken.

use super::scenes::{golden, Scene};
use crate::support::gate::Folder;

#[test]
fn a_window_that_was_cut_short_keeps_no_limit_and_makes_no_baseline() {
    let folder = Folder::new("gate-cut-short");
    let why = "the window ended after 2.0 s instead of 60.0 s";
    let whole = golden(&folder);
    let short = Scene::new().with(|_, window| window.cut_short = Some(why.into())).write(&folder, "short.gilprof");
    let broken_off = folder.0.join("broken-off.gilprof");
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&broken_off, &bytes[..bytes.len() - 3]).unwrap();
    let broken_off = broken_off.to_str().unwrap();
    for (file, why) in [(&short[..], why), (broken_off, "the recording breaks off")] {
        let gate = |limits: &[&str], files: &[&str]| folder.gate(&[limits, files].concat());
        gate(&["--max", "gil.busy <= 100%"], &[file]).ended(3, &[]).printed(&["INCONCLUSIVE", why]);
        gate(&["--max", "gil.busy <= 100%"], &[&whole, file]).ended(3, &[]).printed(&["INCONCLUSIVE", why]);
        gate(&["--max", "gil.busy <= 0%"], &[file]).ended(1, &[]).printed(&["FAIL", why]);
        gate(&["--max", "gil.busy <= 100% @warn"], &[file]).ended(0, &[]).printed(&["! gil.busy", why]);
        let update = ["--baseline", "b.json", "--update-baseline"];
        gate(&update, &[file]).ended(3, &[]).printed(&["NOT CHECKED", "cannot make a baseline", why]);
        assert!(!folder.0.join("b.json").exists());
    }
}
