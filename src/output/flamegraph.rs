//! The flame graph: an interactive SVG of the folded stacks, coloured by state.
//!
//! The root is at the top (an icicle), as in py-spy's SVG and in speedscope, which Python
//! developers know; the page draws its flame graphs in the same direction. An icicle also shows
//! its root and its outer frames first, however deep the stacks are.
//!
//! Functions keep one quiet hue. The leaves that gilprof adds (inside a C call, asleep with the
//! GIL, the state in wall mode) have their state's colour from the one palette, and a legend
//! explains those that occur. inferno chooses no colour at random.

mod header;
mod legend;

pub use legend::{legend, FrameRole};

use crate::error::{Error, Result};
use crate::output::collapsed::{fold, FlameInput, FlameMode, GroupBy};
use crate::output::{columns, numbers, palette, sanitize};
use crate::sample::State;
use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap};
use inferno::flamegraph::{from_lines, Direction, Options, TextTruncateDirection};
use std::collections::{BTreeMap, BTreeSet};

/// Columns of the title and of the subtitle that fit at the initial width.
const TITLE_COLUMNS: usize = 110;

/// The picture as SVG text. A profile without any time of the mode gives a picture that says so.
pub fn render(input: &FlameInput<'_>) -> Result<String> {
    let folded = fold(input);
    let total_us: u64 = folded.values().fold(0, |sum, us| sum.saturating_add(*us));
    if total_us == 0 {
        return Ok(empty(input));
    }
    let root_count = root_count(input);
    let frames = folded.keys().flat_map(|stack| stack.split(';').skip(root_count));
    let legend: Vec<(Color, String)> = legend(input.mode, frames).into_iter().map(|(state, text)| (colour(state), text)).collect();
    let mut colours = colours(input, &folded);
    let mut options = options(title(input), subtitle(input, total_us));
    options.palette_map = Some(&mut colours);
    let svg = draw(&mut options, &folded.iter().map(|(stack, us)| format!("{stack} {us}")).collect::<Vec<_>>())?;
    Ok(header::arrange(svg, &legend))
}

/// The second profile, its frames red where they are wider than in the first and blue where they
/// are narrower. Both are scaled to one second, so that windows of different lengths compare.
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
    Ok(header::arrange(draw(&mut options(what, how), &lines)?, &[]))
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
    options.direction = Direction::Inverted;
    options
}

fn draw(options: &mut Options<'_>, lines: &[String]) -> Result<String> {
    let mut svg = Vec::new();
    let failed = |source| Error::System { what: "draw the flamegraph".into(), source };
    from_lines(options, lines.iter().map(String::as_str), &mut svg).map_err(failed)?;
    String::from_utf8(svg).map_err(|e| failed(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))
}

/// Names the weight and the target, because the picture travels without the command line that made
/// it.
fn title(input: &FlameInput<'_>) -> String {
    let what = match input.mode {
        FlameMode::Holding => "Time holding the GIL",
        FlameMode::Waiting => "Time waiting for the GIL",
        FlameMode::Native => "Time on a CPU without the GIL",
        FlameMode::Blame => "Time waiting for the GIL, by holder",
        FlameMode::Wall => "Wall time of threads",
    };
    columns::fit(&format!("{what}: {}", sanitize::clean(&input.title)), TITLE_COLUMNS)
}

fn subtitle(input: &FlameInput<'_>, total_us: u64) -> String {
    let window = sanitize::clean(&input.subtitle);
    let total = numbers::seconds(total_us as f64 / 1e6);
    columns::fit(&format!("{window}; width is {} in microseconds, {total} in all", input.mode.weight()), TITLE_COLUMNS)
}

/// Frames at the root that stand for no function: the process and the thread, where they are kept
/// apart.
fn root_count(input: &FlameInput<'_>) -> usize {
    let several = input.rows.iter().any(|row| row.process.is_some());
    usize::from(input.group_by != GroupBy::Nothing) + usize::from(several)
}

/// A fixed colour for every frame text of the picture.
fn colours(input: &FlameInput<'_>, folded: &BTreeMap<String, u64>) -> PaletteMap {
    let mut map = PaletteMap::default();
    // inferno adds a frame with an empty name at the root.
    map.insert("", colour(None));
    let root_count = root_count(input);
    let mut marks = BTreeSet::new();
    for stack in folded.keys() {
        for (depth, frame) in stack.split(';').enumerate() {
            let role = FrameRole::of(input.mode, frame);
            let base = colour(role.state(input.mode));
            if depth < root_count {
                map.insert(frame, colour(None));
            } else if matches!(role, FrameRole::Function | FrameRole::Holder) {
                map.insert(frame, rgb(palette::shade((base.r, base.g, base.b), frame)));
            } else {
                marks.insert((frame, role.state(input.mode)));
            }
        }
    }
    // Last: a thread may have the name of a mark.
    for (mark, state) in marks {
        map.insert(mark, colour(state));
    }
    map
}

/// The colour of a state, or the neutral one.
fn colour(state: Option<State>) -> Color {
    rgb(state.map_or(palette::NEUTRAL, |state| palette::style(state).rgb))
}

fn rgb((r, g, b): (u8, u8, u8)) -> Color {
    Color { r, g, b }
}

/// The picture of a profile without time of the mode, for which inferno has only an error: that no
/// thread held the GIL is a result.
fn empty(input: &FlameInput<'_>) -> String {
    let message = match input.mode {
        FlameMode::Holding => "No thread was seen to hold the GIL.",
        FlameMode::Waiting | FlameMode::Blame => "No thread was seen to wait for the GIL.",
        FlameMode::Native => "No thread was seen to run without the GIL.",
        FlameMode::Wall => "No thread was seen.",
    };
    let title = xml(&title(input));
    let window = xml(&sanitize::clean(&input.subtitle));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"120\" style=\"max-width:100%\" viewBox=\"0 0 1200 120\" xmlns=\"http://www.w3.org/2000/svg\">\n\
         <rect x=\"0\" y=\"0\" width=\"100%\" height=\"120\" fill=\"rgb(251,251,248)\"/>\n\
         <g font-family=\"monospace\" font-size=\"12\" text-anchor=\"middle\">\n\
         <text id=\"title\" x=\"50%\" y=\"24\" font-size=\"17\">{title}</text>\n\
         <text id=\"subtitle\" x=\"50%\" y=\"48\">{window}; width would be {weight}</text>\n\
         <text x=\"50%\" y=\"84\">{message}</text>\n\
         </g>\n\
         </svg>\n",
        weight = input.mode.weight()
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
