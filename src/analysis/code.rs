//! The codes of verdicts and findings, each with its name. No other place spells the names.

use serde::{de, Deserialize, Deserializer, Serialize, Serializer};

/// What a verdict or a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Code {
    SwitchToProcesses,
    ReleaseTheGil,
    BlockedHoldingGil,
    LatencyVictims,
    AlreadyParallel,
    KeepThreads,
    Serial,
    LockBound,
    CpuStarved,
    GilDisabled,
    Idle,
    Inconclusive,
    // Only ever findings.
    KnownLibrary,
    GarbageCollection,
    ExcessiveSwitching,
    EventLoopStarved,
    EventLoopBlocked,
    CpuLimit,
    ForeignThreads,
    WorkInChildren,
}

impl Code {
    /// All codes, in the order of their declaration.
    pub const ALL: [Code; 20] = [
        Code::SwitchToProcesses,
        Code::ReleaseTheGil,
        Code::BlockedHoldingGil,
        Code::LatencyVictims,
        Code::AlreadyParallel,
        Code::KeepThreads,
        Code::Serial,
        Code::LockBound,
        Code::CpuStarved,
        Code::GilDisabled,
        Code::Idle,
        Code::Inconclusive,
        Code::KnownLibrary,
        Code::GarbageCollection,
        Code::ExcessiveSwitching,
        Code::EventLoopStarved,
        Code::EventLoopBlocked,
        Code::CpuLimit,
        Code::ForeignThreads,
        Code::WorkInChildren,
    ];

    /// The name, as reports and gate files spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Code::SwitchToProcesses => "switch-to-processes",
            Code::ReleaseTheGil => "release-the-gil",
            Code::BlockedHoldingGil => "blocked-holding-gil",
            Code::LatencyVictims => "latency-victims",
            Code::AlreadyParallel => "already-parallel",
            Code::KeepThreads => "keep-threads",
            Code::Serial => "serial",
            Code::LockBound => "lock-bound",
            Code::CpuStarved => "cpu-starved",
            Code::GilDisabled => "gil-disabled",
            Code::Idle => "idle",
            Code::Inconclusive => "inconclusive",
            Code::KnownLibrary => "known-library",
            Code::GarbageCollection => "garbage-collection",
            Code::ExcessiveSwitching => "excessive-switching",
            Code::EventLoopStarved => "event-loop-starved",
            Code::EventLoopBlocked => "event-loop-blocked",
            Code::CpuLimit => "cpu-limit",
            Code::ForeignThreads => "foreign-threads",
            Code::WorkInChildren => "work-in-children",
        }
    }

    /// The code of a name.
    pub fn from_name(name: &str) -> Option<Code> {
        Code::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Whether the code may be the verdict; the others are only ever findings.
    pub const fn is_verdict(self) -> bool {
        !matches!(
            self,
            Code::KnownLibrary
                | Code::GarbageCollection
                | Code::ExcessiveSwitching
                | Code::EventLoopStarved
                | Code::EventLoopBlocked
                | Code::CpuLimit
                | Code::ForeignThreads
                | Code::WorkInChildren
        )
    }

    /// The codes that may be the verdict.
    pub fn verdicts() -> impl Iterator<Item = Code> {
        Code::ALL.into_iter().filter(|code| code.is_verdict())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Code, D::Error> {
        let name = String::deserialize(from)?;
        Code::from_name(&name).ok_or_else(|| de::Error::custom(format_args!("there is no code {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_codes_are_listed_in_order_and_read_back_by_name() {
        for (n, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!((code as usize, Code::from_name(code.name())), (n, Some(code)));
            let json = serde_json::to_string(&code).unwrap();
            assert_eq!((json.trim_matches('"'), serde_json::from_str::<Code>(&json).unwrap()), (code.name(), code));
        }
        assert_eq!(Code::ALL.len(), Code::WorkInChildren as usize + 1);
        assert!(Code::from_name("nothing").is_none() && serde_json::from_str::<Code>("\"nothing\"").is_err());
    }

    #[test]
    fn twelve_codes_may_be_the_verdict() {
        assert_eq!(Code::verdicts().count(), 12);
    }
}
