//! One file per format; each a pure function of a report or a profile.
