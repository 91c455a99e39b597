//! The flamegraph: an interactive SVG of the folded stacks, coloured by state.
//!
//! A picture of the GIL is read for its tops. Python frames keep one quiet hue; what gilprof remarks on top of them (inside a C call, asleep
//! with the GIL, the state in wall mode) has the state's own colour from the one palette. No state is left to a random number.

use crate::error::{Error, Result};
use crate::output::collapsed::{fold, FlameInput, FlameMode, GroupBy, HOLDS, NO_HOLDER, NO_PYTHON, TORN, TRUNCATED, WAITS_FOR};
use crate::output::{columns, numbers, palette, sanitize};
use crate::sample::State;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{from_lines, Options, TextTruncateDirection};
use std::collections::{BTreeMap, BTreeSet};

/// Columns of the title that fit above the picture at its initial width.
const TITLE_COLUMNS: usize = 110;

/// The picture as SVG text. A profile without any time of the mode gives a picture that says so.
pub fn render(input: &FlameInput<'_>) -> Result<String> {
    let folded = fold(input);
    let total_us: u64 = folded.values().fold(0, |sum, us| sum.saturating_add(*us));
    if total_us == 0 {
        return Ok(empty(input));
    }
    let mut colours = colours(input, &folded);
    let mut options = options(title(input), subtitle(input, total_us));
    options.palette_map = Some(&mut colours);
    draw(&mut options, &folded.iter().map(|(stack, us)| format!("{stack} {us}")).collect::<Vec<_>>())
}

/// The second profile, its frames red where they are wider than in the first and blue where they are narrower. Both count as one second, so
/// that windows of different lengths compare.
pub fn differential(base: &FlameInput<'_>, new: &FlameInput<'_>) -> Result<String> {
    let [before, after] = [base, new].map(per_second);
    if after.values().chain(before.values()).all(|&us| us == 0) {
        return Ok(empty(new));
    }
    let stacks: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let us = |folded: &BTreeMap<String, u64>, stack: &String| folded.get(stack).copied().unwrap_or(0);
    let lines: Vec<String> = stacks.into_iter().map(|stack| format!("{stack} {} {}", us(&before, stack), us(&after, stack))).collect();
    let what = columns::fit(&format!("{}, against {}", title(new), sanitize::clean(&base.title)), TITLE_COLUMNS);
    let how = format!("width is {} in microseconds a second; red has grown, blue has shrunk", new.mode.weight());
    draw(&mut options(what, how), &lines)
}

/// Folded stacks in microseconds per second of window.
fn per_second(input: &FlameInput<'_>) -> BTreeMap<String, u64> {
    let scale = if input.seconds > 0.0 { 1.0 / input.seconds } else { 1.0 };
    fold(input).into_iter().map(|(stack, us)| (stack, (us as f64 * scale).round() as u64)).collect()
}

fn options<'a>(title: String, subtitle: String) -> Options<'a> {
    let mut options = Options::default();
    options.title = title;
    options.subtitle = Some(subtitle);
    options.count_name = "us".into();
    options.name_type = "Frame:".into();
    options.bgcolors = Some(BackgroundColor::Flat(Color { r: 0xfb, g: 0xfb, b: 0xf8 }));
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.deterministic = true;
    options
}

fn draw(options: &mut Options<'_>, lines: &[String]) -> Result<String> {
    let mut svg = Vec::new();
    let failed = |source| Error::System { what: "draw the flamegraph".into(), source };
    from_lines(options, lines.iter().map(String::as_str), &mut svg).map_err(failed)?;
    String::from_utf8(svg).map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))
}

/// Target, window, weight and unit: the picture travels without the command line that made it.
fn title(input: &FlameInput<'_>) -> String {
    let what = match input.mode {
        FlameMode::Holding => "Who holds the GIL",
        FlameMode::Waiting => "Who waits for the GIL",
        FlameMode::Native => "Who works without the GIL",
        FlameMode::Blame => "Who waits for the GIL, and behind whom",
        FlameMode::Wall => "Where the time of threads goes",
    };
    columns::fit(&format!("{what}: {}", sanitize::clean(&input.title)), TITLE_COLUMNS)
}

fn subtitle(input: &FlameInput<'_>, total_us: u64) -> String {
    let window = sanitize::clean(&input.subtitle);
    let total = numbers::seconds(total_us as f64 / 1e6);
    columns::fit(&format!("{window}; width is {} in microseconds, {total} in all", input.mode.weight()), TITLE_COLUMNS)
}

/// The state whose colour Python frames have; `None` where the leaves tell it.
pub fn base(mode: FlameMode) -> Option<State> {
    match mode {
        FlameMode::Holding => Some(State::HoldingPython),
        FlameMode::Waiting | FlameMode::Blame => Some(State::Waiting),
        FlameMode::Native => Some(State::Native),
        FlameMode::Wall => None,
    }
}

/// A fixed colour for every frame text of the picture.
fn colours(input: &FlameInput<'_>, folded: &BTreeMap<String, u64>) -> PaletteMap {
    let base = base(input.mode).map_or(palette::NEUTRAL, |state| palette::style(state).rgb);
    let mut map = PaletteMap::default();
    // The frame below all, which inferno adds with an empty name.
    map.insert("", rgb(palette::NEUTRAL));
    let holds = palette::style(State::HoldingPython).rgb;
    let several = input.rows.iter().any(|row| row.process.is_some());
    let root_count = usize::from(input.group_by == GroupBy::Thread) + usize::from(several);
    for stack in folded.keys() {
        for (depth, frame) in stack.split(';').enumerate() {
            let ink = if frame.ends_with(HOLDS) { holds } else { base };
            map.insert(frame, rgb(if depth < root_count { palette::NEUTRAL } else { palette::shade(ink, frame) }));
        }
    }
    let unknown = rgb(palette::style(State::Unknown).rgb);
    for remark in [TRUNCATED, TORN, NO_PYTHON] {
        map.insert(remark, unknown);
        map.insert(format!("{remark}{HOLDS}").as_str(), unknown);
    }
    for remark in [WAITS_FOR, NO_HOLDER] {
        map.insert(remark, rgb(palette::NEUTRAL));
    }
    for state in input.mode.states() {
        if let Some(leaf) = input.mode.leaf(state) {
            map.insert(leaf, rgb(palette::style(state).rgb));
        }
    }
    map
}

fn rgb((r, g, b): (u8, u8, u8)) -> Color {
    Color { r, g, b }
}

/// Inferno has only an error for this; that nobody held the GIL is a result.
fn empty(input: &FlameInput<'_>) -> String {
    let said = match input.mode {
        FlameMode::Holding => "Nobody was seen to hold the GIL.",
        FlameMode::Waiting | FlameMode::Blame => "Nobody was seen to wait for the GIL.",
        FlameMode::Native => "Nobody was seen to work without the GIL.",
        FlameMode::Wall => "No thread was seen.",
    };
    let title = xml(&title(input));
    let window = xml(&sanitize::clean(&input.subtitle));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"120\" viewBox=\"0 0 1200 120\" xmlns=\"http://www.w3.org/2000/svg\">\n\
         <rect x=\"0\" y=\"0\" width=\"100%\" height=\"120\" fill=\"rgb(251,251,248)\"/>\n\
         <g font-family=\"monospace\" font-size=\"12\" text-anchor=\"middle\">\n\
         <text id=\"title\" x=\"50%\" y=\"24\" font-size=\"17\">{title}</text>\n\
         <text id=\"subtitle\" x=\"50%\" y=\"48\">{window}; width would be {weight}</text>\n\
         <text x=\"50%\" y=\"84\">{said}</text>\n\
         </g>\n\
         </svg>\n",
        weight = input.mode.weight()
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
