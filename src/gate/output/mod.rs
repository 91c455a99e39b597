//! A judged gate, written down for those who read it: one file per format, each `pub fn render(outcome: &Outcome) -> Result<String>`, a pure
//! function of an [`Outcome`](super::outcome::Outcome).
