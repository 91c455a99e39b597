//! The GIL's own memory, `_gil_runtime_state`: its holder and the count of GIL switches.

use super::layout;
use crate::sample::GilReading;

/// The longest switch interval that is accepted: an hour.
const MAX_INTERVAL_US: u64 = 3_600_000_000;

/// Parses the bytes of a GIL. `None` when they cannot be one, or when the GIL has not been created
/// (`locked` is -1).
pub fn parse(layout: &layout::GilLayout, bytes: &[u8]) -> Option<GilReading> {
    let locked = layout.locked.read_from(bytes)?;
    let interval_us = layout.interval.read_from(bytes)?;
    let last_holder = layout.last_holder.read_from(bytes)?;
    let enabled = match layout.enabled {
        None => true,
        Some(field) => field.read_from(bytes)? != 0,
    };
    if !(0..=1).contains(&locked) || interval_us == 0 || interval_us > MAX_INTERVAL_US {
        return None;
    }
    Some(GilReading {
        enabled,
        holder: (enabled && locked == 1 && !last_holder.is_null()).then_some(last_holder),
        last_holder,
        switches: layout.switch_number.read_from(bytes)?,
        interval_us,
    })
}
