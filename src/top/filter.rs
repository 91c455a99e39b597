//! The filter: a regular expression over the names of threads, functions and files. Lower-case
//! patterns match either case.

use regex_lite::{Regex, RegexBuilder};

/// Longer patterns are refused.
const MAX_CHARS: usize = 200;
/// Bytes of one text that are searched.
const MAX_TEXT: usize = 2_000;
/// The most memory that a compiled pattern takes.
const MAX_SIZE: usize = 1 << 16;

/// A filter, or none.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    text: String,
    regex: Option<Regex>,
}

impl Filter {
    /// From what the user wrote; empty text is no filter. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Filter, String> {
        if text.is_empty() {
            return Ok(Filter::default());
        }
        if text.chars().count() > MAX_CHARS {
            return Err(format!("a filter has at most {MAX_CHARS} characters"));
        }
        let either_case = !text.chars().any(char::is_uppercase);
        let regex = RegexBuilder::new(text).case_insensitive(either_case).size_limit(MAX_SIZE).build();
        let regex = regex.map_err(|e| format!("the filter is no regular expression: {e}"))?;
        Ok(Filter { text: text.into(), regex: Some(regex) })
    }

    /// Whether anything is filtered.
    pub fn is_set(&self) -> bool {
        self.regex.is_some()
    }

    /// What the user wrote.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether one of these texts matches, or there is no filter.
    pub fn accepts<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> bool {
        let Some(regex) = &self.regex else { return true };
        texts.into_iter().any(|text| regex.is_match(beginning(text)))
    }
}

fn beginning(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_either_case_unless_they_have_capitals() {
        let filter = |text: &str| Filter::parse(text).unwrap();
        assert!(filter("").accepts(["x"]) && !filter("").is_set());
        assert!(filter("burn|poll").accepts(["x", "BURN"]) && !filter("Burn").accepts(["burn"]));
        assert!(Filter::parse("(").unwrap_err().contains("no regular expression"));
        assert!(Filter::parse(&"x".repeat(201)).is_err());
        let long = "é".repeat(MAX_TEXT);
        assert!(!filter("x").accepts([long.as_str()]) && filter("é$").accepts([long.as_str()]));
    }
}
