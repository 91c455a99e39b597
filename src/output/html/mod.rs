//! One page for a browser that shows the whole report, in one file that loads nothing else.
//!
//! The parts of the page are plain files beside this one, joined without a build step. `page/*.js`
//! are the page's own scripts, each with one job, joined into one function; `vendor/` has uPlot
//! (MIT), which draws the chart of the GIL. The content security policy allows only this script
//! and this style, by their hashes, so that nothing else could run even if a name from the target
//! became markup. No name does: `data` embeds the names as JSON, and the scripts only set text.

mod data;
mod downsample;
mod flames;
mod matrix;
mod pack;
mod service;
mod span_types;
mod timeline;

use super::Source;
use crate::analysis::service::report::ServiceReport;
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::Write;

const PAGE: &str = include_str!("page/page.html");
const STYLES: [&str; 2] = [include_str!("vendor/uPlot.min.css"), include_str!("page/page.css")];
const CHART: &str = include_str!("vendor/uPlot.iife.min.js");
/// A script may use those before it.
const SCRIPTS: [&str; 16] = [
    include_str!("page/base.js"),
    include_str!("page/figures.js"),
    include_str!("page/data.js"),
    include_str!("page/prose.js"),
    include_str!("page/verdict.js"),
    include_str!("page/threads.js"),
    include_str!("page/service.js"),
    include_str!("page/tracks.js"),
    include_str!("page/shared_tracks.js"),
    include_str!("page/timeline.js"),
    include_str!("page/gil_chart.js"),
    include_str!("page/flame.js"),
    include_str!("page/matrix.js"),
    include_str!("page/functions.js"),
    include_str!("page/scroll.js"),
    include_str!("page/main.js"),
];
/// uPlot's licence requires this notice in every copy.
const NOTICE: &str = "/* uPlot 1.6.32, https://github.com/leeoniya/uPlot, MIT licence:\n";
const LICENCE: &str = include_str!("vendor/uPlot.LICENSE");

/// Writes the page of all processes, and of several what is said of them together.
pub fn write(sources: &[Source<'_>], service: Option<&ServiceReport>, out: &mut dyn Write) -> Result<()> {
    let data = data::embed(&data::value(sources, service)?)?;
    let style = STYLES.concat();
    let script = format!("{NOTICE}{LICENCE}*/\n{CHART}\n(() => {{\n'use strict';\n{}\n}})();\n", SCRIPTS.join("\n"));
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; img-src data:; base-uri 'none'; form-action 'none'",
        hash(&script),
        hash(&style)
    );
    let mut rest = PAGE;
    while let Some((before, (slot, after))) = rest.split_once("{{").and_then(|(before, tail)| Some((before, tail.split_once("}}")?))) {
        let filled = match slot {
            "policy" => policy.as_str(),
            "style" => style.as_str(),
            "data" => data.as_str(),
            "script" => script.as_str(),
            _ => "",
        };
        [before, filled].iter().try_for_each(|part| out.write_all(part.as_bytes())).map_err(Error::Write)?;
        rest = after;
    }
    out.write_all(rest.as_bytes()).map_err(Error::Write)
}

/// A source of a content security policy: a text with this hash.
fn hash(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digest = Sha256::digest(text.as_bytes());
    let mut out = String::from("sha256-");
    for three in digest.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        for n in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize]);
            out.push(if n <= three.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::testing::{measured, HOSTILE};

    #[test]
    fn the_page_is_complete_and_has_no_markup_from_the_target() {
        let (one, two) = (measured(), measured());
        let mut bytes = Vec::new();
        let service = crate::analysis::service::service(&[(&one.profile, &one.report), (&two.profile, &two.report)], &[]);
        write(&[one.source(), two.source()], Some(&service), &mut bytes).unwrap();
        let page = String::from_utf8(bytes).unwrap();
        assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
        assert!(["{{policy}}", "{{style}}", "{{data}}", "{{script}}"].iter().all(|slot| !page.contains(slot)), "a slot is left");
        assert_eq!(page.matches("</script>").count(), 2, "the data and the script only");
        assert!(!page.contains(HOSTILE) && !page.contains("<img"));
        assert!(page.contains("Leon Sorokin"), "uPlot's licence is missing");
        assert!(!page.contains("http://") && page.matches("https://").count() <= 2, "links occur in comments only");
    }

    #[test]
    fn hashes_equal_those_of_browsers() {
        assert_eq!(hash(""), "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert_eq!(hash("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }
}
