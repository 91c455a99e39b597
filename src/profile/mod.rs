//! What was captured, as numbers with definitions.
