//! The pattern of a thread's name: threads of one pool differ only in their numbers.

/// A name with a star for each number in it: `crawl_*`.
pub fn name_pattern(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '0'..='9' if out.ends_with('*') => {}
            '0'..='9' => out.push('*'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_a_star() {
        assert_eq!(
            ["crawl_12", "pool-3_12", "Thread-7 (get2)", "main"].map(name_pattern),
            ["crawl_*", "pool-*_*", "Thread-* (get*)", "main"]
        );
    }
}
