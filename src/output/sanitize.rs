//! Makes text from the target harmless.
//!
//! The name of a thread or function of the target may contain anything: escape sequences that
//! repaint the terminal, line breaks that forge a line of the report, direction marks that reorder
//! text. Such characters are shown as escapes (`\x1b`) and never sent.

/// Names longer than this are cut, because a hostile target could give a thread a name of a
/// megabyte.
const MAX_CHARS: usize = 400;

/// A name with an escape for each character that is neither visible nor a space.
pub fn clean(name: &str) -> String {
    clean_up_to(name, MAX_CHARS)
}

/// [`clean`] for text of up to `max` characters; longer text is cut.
pub fn clean_up_to(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max));
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push('…');
            break;
        }
        push_clean(&mut out, c);
    }
    out
}

/// Appends one character, escaped if it is hostile.
pub fn push_clean(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if is_hostile(c) => out.push_str(&escape(c)),
        _ => out.push(c),
    }
}

/// The escape of any character: `\x3b` or `\u{202e}`.
pub fn escape(c: char) -> String {
    match c as u32 {
        n if n < 0x100 => format!("\\x{n:02x}"),
        n => format!("\\u{{{n:x}}}"),
    }
}

/// Characters that move the cursor, break lines, reorder or hide text, or are forbidden in XML.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c as u32,
            0xad | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f
            | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164 | 0xfeff | 0xffa0 | 0xfff0..=0xfffb
            | 0xe0000..=0xe0fff)
        // The last two code points of each plane are no characters; XML forbids U+FFFE and U+FFFF.
        || (c as u32) & 0xfffe == 0xfffe
}

/// The part of a path after its last slash; the whole path if nothing follows it.
pub fn basename(path: &str) -> &str {
    match path.rsplit('/').next() {
        Some(name) if !name.is_empty() => name,
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_move_the_cursor_or_reorder_text_are_escaped() {
        assert_eq!(clean("a\x1b[31mb\nc\u{202e}d\u{9b}"), "a\\x1b[31mb\\nc\\u{202e}d\\x9b");
        assert_eq!(clean("Grüße 線程"), "Grüße 線程");
    }
}
