//! Which frame is a thread's outermost: the walks themselves elect it.
//!
//! A suspended generator has no caller, so a walk that meets one that was running a moment ago ends there and looks complete. (Seen on all
//! versions with chains of small generators: up to three quarters of the walks on 3.7 - 3.10, a tenth on 3.14.) But a thread's root is the
//! same frame for long, and the walks that lose their way do not all end at one place.

use crate::ids::Addr;

/// Votes that a walk casts for the root it ends at, and against the one it does not.
const FOR: u8 = 2;
const AGAINST: u8 = 1;
/// Votes that elect a root, and those that one can have at most: a thread that has another root is believed within one look.
const VOTES_NEEDED: u8 = 8;
const MAX_VOTES: u8 = 32;

/// A frame and its code.
type RootFrame = (Addr, Addr);

/// One thread's election.
#[derive(Debug, Default)]
pub(super) struct Root {
    elected: Option<RootFrame>,
    candidate: Option<RootFrame>,
    votes: u8,
}

impl Root {
    /// Whether there is one.
    pub(super) fn is_known(&self) -> bool {
        self.elected.is_some()
    }

    /// A walk ended here: whether this is the root.
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

    /// One letter per walk, upper case where the vote must be for the root.
    fn elect(walks: &str) -> String {
        let mut root = Root::default();
        let frame = |c: char| (Addr(u64::from(c.to_ascii_lowercase())), Addr(1));
        walks.chars().map(|c| if root.vote(frame(c)) { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect()
    }

    #[test]
    fn a_root_is_elected_and_stays() {
        assert_eq!(elect("rrrrrr"), "rrrRRR");
        assert_eq!(elect("rrrrrrgrhhrrghrrgggrr"), "rrrRRRgRhhRRghRRgggRR");
    }

    #[test]
    fn walks_that_end_all_over_the_place_elect_nobody() {
        assert_eq!(elect("abcdefabcdefgh"), "abcdefabcdefgh");
        assert_eq!(elect("rabrrcrdrrerr"), "rabrrcrdrrerR");
    }

    #[test]
    fn another_root_is_believed_within_one_look() {
        let votes = elect(&("r".repeat(100) + &"s".repeat(60)));
        let first = votes.chars().filter(|c| *c == 's').count();
        assert!(votes.ends_with("SSSSSSSS") && first < 40, "{votes}");
    }
}
