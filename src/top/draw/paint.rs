//! Colours, and what stands for them where there are none.

use crate::analysis::report::Code;
use crate::output::palette;
use crate::sample::State;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style};

/// How the screen may be decorated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint {
    /// Whether there are colours. Without them letters, bold and reversed text remain.
    pub colour: bool,
    /// Whether only ASCII characters may be used.
    pub ascii: bool,
}

/// Levels of a chart, from nothing to full.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same in ASCII.
const ASCII_LEVELS: [char; 9] = [' ', '_', '.', ',', '-', '=', '+', '*', '#'];

impl Paint {
    /// The colour of a state. A thread that sleeps and still holds the GIL is an alarm.
    pub fn state(self, state: State) -> Style {
        match (state, self.colour) {
            (State::HoldingBlocked, _) => self.alarm(),
            (_, true) => Style::new().fg(Color::Indexed(palette::style(state).ansi)),
            (_, false) => Style::new(),
        }
    }

    /// The alarm of a thread that keeps the GIL asleep. No other text has this style.
    pub fn alarm(self) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        if self.colour {
            style.bg(Color::Indexed(palette::style(State::HoldingBlocked).ansi)).fg(Color::Indexed(16))
        } else {
            style.add_modifier(Modifier::REVERSED)
        }
    }

    /// A verdict's name.
    pub fn verdict(self, code: Code) -> Style {
        let style = Style::new().add_modifier(Modifier::BOLD);
        match self.colour {
            true => style.fg(Color::Indexed(palette::style(palette::verdict_style(code)).ansi)),
            false => style,
        }
    }

    /// A frame of the icicle.
    pub fn frame(self, state: State) -> Style {
        match self.colour {
            true => Style::new().bg(Color::Indexed(palette::style(state).ansi)).fg(Color::Indexed(16)),
            false => Style::new(),
        }
    }

    /// Headings.
    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Details.
    pub fn dim(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// The row with the cursor, the open tab, the filter.
    pub fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The character of a chart for a share of its height. What is not zero is visible.
    pub fn level(self, share: f64) -> char {
        let levels = if self.ascii { ASCII_LEVELS } else { LEVELS };
        match share {
            share if share > 0.0 => levels[((share * 8.0).round() as usize).clamp(1, 8)],
            _ => levels[0],
        }
    }
}

/// Replaces every character that is not ASCII.
pub(super) fn only_ascii(buffer: &mut Buffer) {
    for cell in &mut buffer.content {
        if !cell.symbol().is_ascii() {
            let replacement = match cell.symbol() {
                "…" => "~",
                "≤" => "<",
                "▲" => "^",
                "▼" => "v",
                _ => "?",
            };
            cell.set_symbol(replacement);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_is_like_nothing_else() {
        for paint in [Paint { colour: true, ascii: false }, Paint { colour: false, ascii: true }] {
            let alarm = paint.state(State::HoldingBlocked);
            assert!(State::ALL.iter().filter(|state| paint.state(**state) == alarm).count() == 1, "{paint:?}");
            assert!(![paint.bold(), paint.dim(), paint.chosen()].contains(&alarm));
        }
    }

    #[test]
    fn a_little_is_visible_in_a_chart() {
        let paint = Paint { colour: false, ascii: false };
        assert_eq!([0.0, 0.001, 0.5, 1.0, 7.0, f64::NAN].map(|share| paint.level(share)), [' ', '▁', '▄', '█', '█', ' ']);
    }
}
