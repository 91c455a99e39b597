//! The report as JSON: indented, figures with six decimals, control characters escaped.
//!
//! JSON has no NaN. Such a figure becomes `null`, which means "not known".

use crate::analysis::report::Report;
use crate::analysis::service::report::ServiceReport;
use crate::error::{Error, Result};
use crate::output::sanitize::is_hostile;
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io::{self, Write};

/// The report, ending with a line break.
pub fn render(report: &Report) -> Result<String> {
    to_string(report)
}

/// The schema's name of several reports in one file.
pub const SCHEMA_OF_SEVERAL: &str = "gilprof.reports/1";

/// Several reports, with what is said of all of them.
pub fn render_service(service: &ServiceReport, reports: &[&Report]) -> Result<String> {
    #[derive(Serialize)]
    struct Several<'a> {
        schema: &'static str,
        gilprof: &'static str,
        service: &'a ServiceReport,
        reports: &'a [&'a Report],
    }
    to_string(&Several { schema: SCHEMA_OF_SEVERAL, gilprof: env!("CARGO_PKG_VERSION"), service, reports })
}

/// Any value as JSON in the same form.
pub fn to_string<T: Serialize>(value: &T) -> Result<String> {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, SanitizingFormatter(PrettyFormatter::with_indent(b"  ")));
    value.serialize(&mut serializer).map_err(|e| failed(e.into()))?;
    out.push(b'\n');
    String::from_utf8(out).map_err(|e| failed(io::Error::new(io::ErrorKind::InvalidData, e)))
}

fn failed(source: io::Error) -> Error {
    Error::System { what: "write JSON".into(), source }
}

/// The pretty formatter, with shorter figures and with every hostile character escaped: JSON leaves
/// C1 controls and direction marks as they are, and people read reports with `cat`.
struct SanitizingFormatter<'a>(PrettyFormatter<'a>);

impl Formatter for SanitizingFormatter<'_> {
    fn write_f64<W: ?Sized + Write>(&mut self, w: &mut W, value: f64) -> io::Result<()> {
        // Adding 0 makes a negative zero positive. A value too large to scale is not rounded.
        let rounded = (value * 1e6).round() / 1e6 + 0.0;
        self.0.write_f64(w, if rounded.is_finite() { rounded } else { value })
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, w: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hostile) {
            let (safe, tail) = rest.split_at(at);
            w.write_all(safe.as_bytes())?;
            let mut chars = tail.chars();
            for unit in chars.next().unwrap_or_default().encode_utf16(&mut [0; 2]) {
                write!(w, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        w.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_array(w)
    }
    fn end_array<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array(w)
    }
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(w, first)
    }
    fn end_array_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_array_value(w)
    }
    fn begin_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object(w)
    }
    fn end_object<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object(w)
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(w, first)
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.begin_object_value(w)
    }
    fn end_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.0.end_object_value(w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_never_nan() {
        assert_eq!(to_string(&[0.1 + 0.2, f64::NAN, -0.0, 1e300]).unwrap(), "[\n  0.3,\n  null,\n  0.0,\n  1e+300\n]\n");
    }

    #[test]
    fn hostile_strings_are_escaped_and_keep_their_value() {
        let name = "a\u{9b}31m\u{202e}\x1b\n\u{e0041}é";
        let text = to_string(&name).unwrap();
        assert!(text.trim_end().chars().all(|c| !is_hostile(c)), "{text}");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), name);
    }
}
