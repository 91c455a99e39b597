//! The part of the SVG above its frames: title, subtitle, buttons and legend.
//!
//! inferno writes no legend, centres each text on one line and puts its search button beside the
//! title, so a window of 400 px cuts the subtitle and overlaps the two. This module moves those
//! elements in inferno's output. The positions that it writes hold for the width of 1200 px, which
//! viewers without scripts show; `header.js` computes them for every other width.

use inferno::flamegraph::color::Color;
use std::fmt::Write;

const SCRIPT: &str = include_str!("header.js");
/// Makes the buttons visible: inferno draws its search at an opacity of 0.1.
const STYLE: &str = "#search, #unzoom { text-anchor:end; opacity:1; fill:rgb(11,95,147); text-decoration:underline; }\n";
/// inferno's image without a width of its own.
const WIDTH: usize = 1200;
/// From the edges to the frames, as inferno has it.
const PAD: usize = 10;
/// Room for the buttons at the right of the legend.
const CONTROLS: usize = 210;
/// From the right edge to the end of `Reset Zoom`, beyond which `Reset Search` stands.
const UNZOOM: usize = 120;
/// Height of a line of the legend, and its swatch with the gap beside it.
const LINE: usize = 16;
/// Of a letter of inferno's monospace font of 12 px, in hundredths of a pixel.
const LETTER: usize = 720;
/// Where inferno's icicle with a subtitle begins.
const FRAMES_TOP: usize = 76;
/// Baselines of the subtitle and of the buttons.
const SUBTITLE: usize = 46;
const BUTTONS: usize = 72;

/// inferno's picture with a header that fits. An unexpected picture is returned unchanged.
pub fn arrange(svg: String, legend: &[(Color, String)]) -> String {
    arranged(&svg, legend).unwrap_or(svg)
}

fn arranged(svg: &str, legend: &[(Color, String)]) -> Option<String> {
    let frames = svg.find("<svg id=\"frames\"")?;
    let (head, body) = svg.split_at(frames);
    let height: usize = value(head, "<svg ", "height")?.parse().ok()?;
    let (entries, last_line) = entries(legend);
    let details = last_line + 22;
    let moved = details + 8 - FRAMES_TOP;
    let total = height + moved;
    let mut head = head.to_string();
    set(&mut head, "<svg ", "height", &total.to_string())?;
    set(&mut head, "<svg ", "viewBox", &format!("0 0 {WIDTH} {total}"))?;
    set(&mut head, "<rect ", "height", "100%")?;
    set(&mut head, "id=\"subtitle\"", "y", &SUBTITLE.to_string())?;
    set(&mut head, "id=\"details\"", "y", &details.to_string())?;
    set(&mut head, "id=\"search\"", "y", &BUTTONS.to_string())?;
    set(&mut head, "id=\"unzoom\"", "y", &BUTTONS.to_string())?;
    set(&mut head, "id=\"unzoom\"", "x", &(WIDTH - PAD - UNZOOM).to_string())?;
    set(&mut head, "id=\"matched\"", "y", &(total - 11).to_string())?;
    let style = head.find("</style>")?;
    head.insert_str(style, STYLE);
    let body = body.strip_prefix("<svg ")?;
    Some(format!(
        "{head}<g id=\"legend\" data-height=\"{height}\" data-top=\"{FRAMES_TOP}\">{entries}</g>\
         <script type=\"text/ecmascript\"><![CDATA[{SCRIPT}]]></script><svg y=\"{moved}\" {body}"
    ))
}

/// The legend's entries, and the baseline of their last line.
fn entries(legend: &[(Color, String)]) -> (String, usize) {
    let (mut out, mut x, mut y) = (String::new(), PAD, BUTTONS);
    for (Color { r, g, b }, text) in legend {
        let room = LINE + text.chars().count() * LETTER / 100;
        if x > PAD && x + room > WIDTH - CONTROLS {
            (x, y) = (PAD, y + LINE);
        }
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "<g transform=\"translate({x},{y})\"><rect y=\"-10\" width=\"11\" height=\"11\" fill=\"rgb({r},{g},{b})\" stroke=\"rgb(120,120,120)\" \
             stroke-width=\"0.5\"/><text x=\"{LINE}\">{}</text></g>",
            super::xml(text)
        );
        x += room + LINE + 2;
    }
    (out, y)
}

/// Where an attribute's value stands, in the first tag that has the marker.
fn range(svg: &str, marker: &str, attribute: &str) -> Option<std::ops::Range<usize>> {
    let tag = svg.find(marker)?;
    let name = format!(" {attribute}=\"");
    let end = tag + svg[tag..].find('>')?;
    let begin = tag + svg[tag..end].find(&name)? + name.len();
    Some(begin..begin + svg[begin..end].find('"')?)
}

fn value<'a>(svg: &'a str, marker: &str, attribute: &str) -> Option<&'a str> {
    range(svg, marker, attribute).map(|range| &svg[range])
}

fn set(svg: &mut String, marker: &str, attribute: &str, value: &str) -> Option<()> {
    let range = range(svg, marker, attribute)?;
    svg.replace_range(range, value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use inferno::flamegraph::from_lines;

    #[test]
    fn the_frames_begin_below_the_legend() {
        let mut svg = Vec::new();
        let mut options = super::super::options("title".into(), "subtitle".into());
        from_lines(&mut options, ["main;burn 7"], &mut svg).unwrap();
        let svg = String::from_utf8(svg).unwrap();
        let entry = (Color { r: 1, g: 2, b: 3 }, "a <legend> of some length".to_string());
        let few = arranged(&svg, &vec![entry.clone(); 2]).unwrap();
        let many = arranged(&svg, &vec![entry; 40]).unwrap();
        let number = |svg: &str, marker: &str, name: &str| value(svg, marker, name).unwrap().parse::<f64>().unwrap();
        for svg in [&few, &many] {
            let top = number(svg, "<svg y=", "y") + FRAMES_TOP as f64;
            assert!(number(svg, "id=\"details\"", "y") < top && svg.contains("a &lt;legend&gt;"));
            assert!(number(svg, "id=\"search\"", "y") > number(svg, "id=\"subtitle\"", "y"));
        }
        let grown = number(&many, "<svg ", "height") - number(&few, "<svg ", "height");
        assert!(grown >= 5.0 * LINE as f64 && grown % LINE as f64 == 0.0, "{grown}");
        assert!(arranged("<svg>", &[]).is_none(), "an unexpected picture is left alone");
    }
}
