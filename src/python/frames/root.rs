//! Which frame is a thread's outermost: the walks vote on it.
//!
//! A suspended generator has no caller, so a walk that meets a generator that was running a moment
//! ago ends there and seems complete. (Seen on all versions with chains of small generators: up to
//! three quarters of the walks on 3.7 - 3.10, a tenth on 3.14.) But a thread's root stays the same
//! frame for a long time, and the walks that lose their way end at different frames.

use crate::ids::Addr;

/// The weight of a vote for the candidate, and of a vote against it.
const FOR: u8 = 2;
const AGAINST: u8 = 1;
/// The votes that elect a root, and the most that a candidate can have, so that a thread with a new
/// root gets it elected within one sample.
const VOTES_NEEDED: u8 = 8;
const MAX_VOTES: u8 = 32;

/// A frame's address and its code's address.
type RootFrame = (Addr, Addr);

/// The election of one thread's root.
#[derive(Debug, Default)]
pub(super) struct Root {
    elected: Option<RootFrame>,
    candidate: Option<RootFrame>,
    votes: u8,
}

impl Root {
    /// Whether a root is elected.
    pub(super) fn is_known(&self) -> bool {
        self.elected.is_some()
    }

    /// Votes for the frame at which a walk ended, and returns whether the frame is the root.
    pub(super) fn vote(&mut self, frame: RootFrame) -> bool {
        if self.candidate == Some(frame) {
            self.votes = (self.votes + FOR).min(MAX_VOTES);
        } else if self.votes > AGAINST {
            self.votes -= AGAINST;
        } else {
            self.candidate = Some(frame);
            self.votes = FOR;
        }
        if self.votes >= VOTES_NEEDED {
            self.elected = self.candidate;
        }
        self.elected == Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One letter per walk; the result is upper case where the frame was the root.
    fn elect(walks: &str) -> String {
        let mut root = Root::default();
        let frame = |c: char| (Addr(u64::from(c.to_ascii_lowercase())), Addr(1));
        walks.chars().map(|c| if root.vote(frame(c)) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
    }

    #[test]
    fn an_elected_root_stays() {
        assert_eq!(elect("rrrrrr"), "rrrRRR");
        assert_eq!(elect("rrrrrrgrhhrrghrrgggrr"), "rrrRRRgRhhRRghRRgggRR");
    }

    #[test]
    fn scattered_walks_elect_no_root() {
        assert_eq!(elect("abcdefabcdefgh"), "abcdefabcdefgh");
        assert_eq!(elect("rabrrcrdrrerr"), "rabrrcrdrrerR");
    }

    #[test]
    fn a_new_root_is_elected_within_one_sample() {
        let votes = elect(&("r".repeat(100) + &"s".repeat(60)));
        let first = votes.chars().filter(|c| *c == 's').count();
        assert!(votes.ends_with("SSSSSSSS") && first < 40, "{votes}");
    }
}
