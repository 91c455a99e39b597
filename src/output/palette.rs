//! One colour and one character per state, for the terminal and the pictures alike.
//!
//! The hues are those of Okabe and Ito, which colour-blind readers can tell apart; a character or
//! a text always says the state, too. Holding is warm, and the warmest is sleeping with the GIL,
//! which is never right. Waiting is purple, work outside the GIL green, idleness grey.

use crate::analysis::report::Code;
use crate::sample::State;

/// The appearance of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateStyle {
    /// In pictures.
    pub rgb: (u8, u8, u8),
    /// In the terminal's 256 colours.
    pub ansi: u8,
    /// In bars.
    pub glyph: char,
    /// In legends, short.
    pub legend: &'static str,
}

/// The appearance of `state`.
pub const fn style(state: State) -> StateStyle {
    let (rgb, ansi, glyph, legend) = match state {
        State::HoldingPython => ((0xe6, 0x9f, 0x00), 214, '#', "holding"),
        State::HoldingNative => ((0xf0, 0xe4, 0x42), 227, 'C', "holding in C"),
        State::HoldingBlocked => ((0xd5, 0x5e, 0x00), 202, '!', "holding, asleep"),
        State::HoldingStarved => ((0xa6, 0x76, 0x1d), 136, 'h', "holding, no CPU"),
        State::Waiting => ((0xcc, 0x79, 0xa7), 175, '.', "waiting"),
        State::Native => ((0x00, 0x9e, 0x73), 36, 'n', "native"),
        State::Starved => ((0x00, 0x72, 0xb2), 32, 's', "starved"),
        State::Lock => ((0x56, 0xb4, 0xe9), 74, 'l', "lock"),
        // Blank on the terminal, so that busy threads stand out of a table of mostly idle ones.
        State::Io => ((0xd9, 0xd9, 0xd9), 252, ' ', "io"),
        State::Unknown => ((0x99, 0x99, 0x99), 246, '?', "unknown"),
    };
    StateStyle { rgb, ansi, glyph, legend }
}

/// The colour of frames that stand for no state, before shading.
pub const NEUTRAL: (u8, u8, u8) = (0xee, 0xe8, 0xd8);

/// By how much a name's colour is lighter than its state's, in steps of 1/255.
pub fn hash_shade(name: &str) -> i16 {
    // FNV-1a: the standard library's hashers may change from one release to the next.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    ((hash >> 32) % 41) as i16 - 20
}

/// A shade of `base`, up to a tenth darker or lighter by the name's hash, so that neighbours differ
/// and a name has the same colour in every picture.
pub fn shade(base: (u8, u8, u8), name: &str) -> (u8, u8, u8) {
    let by = hash_shade(name);
    let shaded = |c: u8| (i16::from(c) + by).clamp(0, 255) as u8;
    (shaded(base.0), shaded(base.1), shaded(base.2))
}

/// `text` in a state's colour.
pub fn paint(text: &str, state: State, colour: bool) -> String {
    code(text, &format!("38;5;{}", style(state).ansi), colour)
}

/// `text` in bold, for headings.
pub fn bold(text: &str, colour: bool) -> String {
    code(text, "1", colour)
}

/// `text` in a faint style, for details.
pub fn dim(text: &str, colour: bool) -> String {
    code(text, "2", colour)
}

/// The state whose colour a verdict has: alarming, good news, or neither.
pub fn verdict_style(verdict: Code) -> State {
    match verdict {
        Code::SwitchToProcesses | Code::ReleaseTheGil | Code::BlockedHoldingGil | Code::LatencyVictims => State::HoldingBlocked,
        Code::AlreadyParallel | Code::KeepThreads | Code::GilDisabled => State::Native,
        Code::LockBound | Code::CpuStarved | Code::Serial => State::Lock,
        // The other codes are findings, which have no banner.
        _ => State::Unknown,
    }
}

/// A verdict's name in its tone.
pub fn verdict(text: &str, verdict: Code, colour: bool) -> String {
    code(text, &format!("1;38;5;{}", style(verdict_style(verdict)).ansi), colour)
}

fn code(text: &str, sgr: &str, colour: bool) -> String {
    if colour && !text.is_empty() {
        format!("\x1b[{sgr}m{text}\x1b[0m")
    } else {
        text.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn states_differ_in_colour_and_character() {
        let styles: Vec<StateStyle> = State::ALL.iter().map(|&s| style(s)).collect();
        assert_eq!(styles.iter().map(|i| i.rgb).collect::<HashSet<_>>().len(), State::COUNT);
        assert_eq!(styles.iter().map(|i| i.ansi).collect::<HashSet<_>>().len(), State::COUNT);
        assert_eq!(styles.iter().map(|i| i.glyph).collect::<HashSet<_>>().len(), State::COUNT);
    }
}
