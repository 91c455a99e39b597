//! Measures, cuts, fills and wraps text by terminal columns.

/// The terminal columns of one character, by ranges that cover the characters of usual names.
fn char_width(c: char) -> usize {
    match c as u32 {
        0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5bd | 0x610..=0x61a | 0x64b..=0x65f => 0,
        0xe31 | 0xe34..=0xe3a | 0xe47..=0xe4e | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff => 0,
        0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115e | 0x2e80..=0x303e | 0x3041..=0x33ff | 0x3400..=0x4dbf | 0x4e00..=0xa4cf => 2,
        0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff01..=0xff60 | 0xffe0..=0xffe6 => 2,
        0x1f300..=0x1f64f | 0x1f680..=0x1f6ff | 0x1f900..=0x1f9ff | 0x1fa70..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

/// The terminal columns of a text, which must not have colour codes yet.
pub fn width(text: &str) -> usize {
    text.chars().map(char_width).sum()
}

/// `text` in at most `max` columns. The middle is left out, because names of threads and methods
/// differ at their ends.
pub fn fit(text: &str, max: usize) -> String {
    if width(text) <= max && text.chars().count() <= 4 * max {
        return text.to_string();
    }
    if max == 0 {
        return String::new();
    }
    let mut out: String = take(text.chars(), max / 2).into_iter().collect();
    let tail = take(text.chars().rev(), max - 1 - width(&out));
    out.push('…');
    out.extend(tail.into_iter().rev());
    out
}

/// Characters while they fit in `room` columns; their number is bounded too, because combining
/// marks take no columns.
fn take(chars: impl Iterator<Item = char>, room: usize) -> Vec<char> {
    let mut used = 0;
    chars
        .take(2 * room)
        .take_while(|&c| {
            used += char_width(c);
            used <= room
        })
        .collect()
}

/// Cut and filled with spaces to exactly `columns`.
pub fn left(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    let gap = columns.saturating_sub(width(&text));
    text + &" ".repeat(gap)
}

/// Cut and filled with spaces on the left to exactly `columns`.
pub fn right(text: &str, columns: usize) -> String {
    let text = fit(text, columns);
    " ".repeat(columns.saturating_sub(width(&text))) + &text
}

/// Lines of at most `columns`, broken at spaces, and inside a word only where the word alone is too
/// long.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(2);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let wide = width(word);
        if used > 0 && used + 1 + wide > columns {
            lines.push(String::new());
            used = 0;
        }
        if used > 0 {
            push(&mut lines, " ");
            used += 1;
        }
        for c in word.chars() {
            if used + char_width(c) > columns {
                lines.push(String::new());
                used = 0;
            }
            push(&mut lines, c.encode_utf8(&mut [0; 4]));
            used += char_width(c);
        }
    }
    lines
}

fn push(lines: &mut [String], text: &str) {
    if let Some(last) = lines.last_mut() {
        last.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_name_keeps_both_ends() {
        assert_eq!(fit("ThreadPoolExecutor-0_12", 14), "ThreadP…r-0_12");
        assert_eq!(width(&fit("線程線程線程線程", 7)), 7);
        assert_eq!(fit("short", 14), "short");
    }

    #[test]
    fn combining_marks_do_not_make_endless_lines() {
        let zalgo = format!("a{}", "\u{301}".repeat(10_000));
        assert!(fit(&zalgo, 10).chars().count() < 40);
    }

    #[test]
    fn wraps_at_spaces_and_breaks_only_long_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefghij k", 4), ["abcd", "efgh", "ij k"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
