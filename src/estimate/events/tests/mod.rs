//! The estimate of simulated machines whose every nanosecond is known, and of events by hand.

#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod program;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod replay;
