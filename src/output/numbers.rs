//! The one place where figures become text: shares, milliseconds, factors, counts.
//!
//! A figure that is not known, or NaN, prints as `-` and never as 0. A figure that rounds to 0 but
//! is not 0 prints as `<1`.

/// The text for a figure that is not known.
pub const NONE: &str = "-";

/// Shares below this are rounding errors and print as 0; larger ones that round to 0 print as `<1`.
const NOISE: f64 = 0.0005;

/// A share of 1 as whole per cent: `66 %`, `<1 %`, `>99 %`.
pub fn percent(share: f64) -> String {
    let p = bare_percent(share);
    if p == NONE {
        p
    } else {
        p + " %"
    }
}

/// [`percent`] without its sign, for columns.
pub fn bare_percent(share: f64) -> String {
    if !share.is_finite() {
        NONE.into()
    } else if (NOISE..0.005).contains(&share) {
        "<1".into()
    } else if (0.995..1.0 - NOISE).contains(&share) {
        ">99".into()
    } else {
        format!("{:.0}", (share * 100.0).round() + 0.0)
    }
}

/// One cell of a row of whole per cents that adds to 100: the row's integer, or `<1` if the integer
/// is 0 and the share is not.
pub fn cell(integer: u32, share: f64) -> String {
    if integer == 0 && share >= NOISE {
        "<1".into()
    } else {
        integer.to_string()
    }
}

/// Apportions `total` to `shares` in whole numbers by largest remainder, so that a row always adds
/// up; ties go to the first. Negative shares count as 0. `None` if no share is positive or one is
/// not finite.
pub fn apportion(shares: &[f64], total: u32) -> Option<Vec<u32>> {
    let sum: f64 = shares.iter().map(|s| s.max(0.0)).sum();
    if shares.iter().any(|s| !s.is_finite()) || !sum.is_finite() || sum <= 0.0 {
        return None;
    }
    let exact: Vec<f64> = shares.iter().map(|s| s.max(0.0) / sum * f64::from(total)).collect();
    let mut apportioned: Vec<u32> = exact.iter().map(|e| e.floor() as u32).collect();
    let mut order: Vec<usize> = (0..exact.len()).collect();
    order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
    let left = total.saturating_sub(apportioned.iter().sum());
    for &i in order.iter().take(left as usize) {
        apportioned[i] += 1;
    }
    Some(apportioned)
}

/// Milliseconds: `0.3 ms`, `5.1 ms`, `21 ms`, `1 234 ms`.
pub fn ms(ms: f64) -> String {
    match ms {
        m if !m.is_finite() => NONE.into(),
        m if m > 0.0 && m < 0.05 => "<0.1 ms".into(),
        m if m < 9.95 => format!("{m:.1} ms"),
        m => format!("{} ms", thousands(m.round() as u64)),
    }
}

/// Seconds: `0.25 s`, `5.0 s`, `120 s`.
pub fn seconds(s: f64) -> String {
    match s {
        s if !s.is_finite() => NONE.into(),
        s if s > 0.0 && s < 0.005 => "<0.01 s".into(),
        s if s < 0.995 => format!("{s:.2} s"),
        s if s < 99.95 => format!("{s:.1} s"),
        s => format!("{} s", thousands(s.round() as u64)),
    }
}

/// A factor: `1.9x`.
pub fn factor(f: f64) -> String {
    if f.is_finite() {
        format!("{}x", one_decimal(f))
    } else {
        NONE.into()
    }
}

/// Any quantity with one decimal: `1.9`.
pub fn one_decimal(f: f64) -> String {
    if f.is_finite() {
        format!("{f:.1}")
    } else {
        NONE.into()
    }
}

/// Threads on average, two decimals so that a column aligns: `1.90`, `<.01`, `0`.
pub fn mean_threads(f: f64) -> String {
    match f {
        f if !f.is_finite() => NONE.into(),
        f if f < NOISE => "0".into(),
        f if f < 0.005 => "<.01".into(),
        f => format!("{f:.2}"),
    }
}

/// Threads on average in words: `1.9 threads`, `0.03 threads`.
pub fn threads(f: f64) -> String {
    match f {
        f if !f.is_finite() => NONE.into(),
        f if f < 0.95 => format!("{} threads", mean_threads(f)),
        f => format!("{f:.1} threads"),
    }
}

/// An interval with one decimal.
pub fn interval(low: f64, high: f64) -> String {
    format!("{} - {}", one_decimal(low), one_decimal(high))
}

/// A count that may have a fraction: `1.3`, `2`, `201`, `12 300`.
pub fn count(f: f64) -> String {
    match f {
        f if !f.is_finite() => NONE.into(),
        f if f < 9.95 && (f - f.round()).abs() >= 0.05 => format!("{f:.1}"),
        f => thousands(f.round().max(0.0) as u64),
    }
}

/// A whole number in groups of three: `9 996`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(c);
    }
    out
}

/// A count and its noun: `1 core`, `2 cores`.
pub fn counted(f: f64, noun: &str) -> String {
    let n = count(f);
    let plural = if n == "1" { "" } else { "s" };
    format!("{n} {noun}{plural}")
}

/// The figure, or `-` if there is none.
pub fn or_none(figure: Option<String>) -> String {
    figure.unwrap_or_else(|| NONE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_figure_is_not_zero_and_an_unknown_one_is_a_dash() {
        assert_eq!([0.0, 0.0001, 0.002, 0.66, 0.997, 1.0, f64::NAN].map(percent), ["0 %", "0 %", "<1 %", "66 %", ">99 %", "100 %", "-"]);
        assert_eq!(
            [0.0, 0.01, 0.31, 5.12, 21.2, 1234.0, f64::INFINITY].map(ms),
            ["0.0 ms", "<0.1 ms", "0.3 ms", "5.1 ms", "21 ms", "1 234 ms", "-"]
        );
        assert_eq!([1.0, 1.3, 2.04, 201.4, 12_300.0].map(count), ["1", "1.3", "2", "201", "12 300"]);
        assert_eq!(percent(-0.0), "0 %");
        assert_eq!([1.9, 0.03, f64::NAN].map(threads), ["1.9 threads", "0.03 threads", "-"]);
        assert_eq!(interval(1.84, 2.0), "1.8 - 2.0");
    }

    #[test]
    fn remainders_go_to_the_largest_first() {
        assert_eq!(apportion(&[1.0, 1.0, 1.0], 100), Some(vec![34, 33, 33]));
        assert_eq!(apportion(&[0.334, 0.656, 0.004, 0.006], 100), Some(vec![33, 66, 0, 1]));
        assert_eq!(apportion(&[0.0, 0.0], 100), None);
        assert_eq!(apportion(&[f64::NAN, 1.0], 100), None);
        assert_eq!(cell(0, 0.004), "<1");
        assert_eq!(cell(0, 0.0), "0");
    }

    #[test]
    fn groups_of_three() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!(counted(1.0, "core") + ", " + &counted(1.5, "core"), "1 core, 1.5 cores");
    }
}
