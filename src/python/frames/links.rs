//! Follows links from frame to frame by reads of their own, a page at a time: to find the frames
//! that the next copies need, and the root of a stack that is too deep to be copied.

use super::super::layout::Layout;
use super::raw::{parse_frame, FrameKind};
use crate::ids::Addr;
use crate::process::memory::{Memory, ReadError};

/// The bytes of one read. Frames of a recursion are neighbours, so one read brings several.
const WINDOW: usize = 4096;
/// The longest stack whose root is searched for.
const MAX_LINKS: usize = 1 << 15;
/// The largest number of frames kept at the root of a stack whose middle is not read.
pub(super) const MAX_BOTTOM: usize = 32;

/// A frame and the frame that called it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub at: Addr,
    pub kind: FrameKind,
    pub back: Addr,
}

impl Link {
    /// Whether a later read found the same function here, called from the same frame.
    pub(super) fn is_same(&self, kind: &FrameKind, back: Addr) -> bool {
        let same = match (&self.kind, kind) {
            (FrameKind::Python(a), FrameKind::Python(b)) => a.code == b.code,
            (a, b) => a == b,
        };
        same && self.back == back
    }
}

/// Reads frames one after the other.
pub(super) struct LinkReader<'a> {
    mem: &'a dyn Memory,
    layout: &'a Layout,
    start: Addr,
    window: Vec<u8>,
}

impl<'a> LinkReader<'a> {
    pub(super) fn new(mem: &'a dyn Memory, layout: &'a Layout) -> LinkReader<'a> {
        LinkReader { mem, layout, start: Addr(0), window: Vec::new() }
    }

    /// The frame at `at`; `None` where no frame can be read.
    pub(super) fn frame(&mut self, at: Addr) -> Result<Option<Link>, ReadError> {
        let len = self.layout.frame.size as usize;
        if !self.covers(at, len) && !self.fill(at, len)? {
            return Ok(None);
        }
        let from = (at.0 - self.start.0) as usize;
        Ok(parse_frame(self.layout, at, &self.window[from..from + len]).map(|(kind, back)| Link { at, kind, back }))
    }

    fn covers(&self, at: Addr, len: usize) -> bool {
        at.0.checked_sub(self.start.0).is_some_and(|from| from < self.window.len() as u64 && from as usize + len <= self.window.len())
    }

    /// Reads the page of the frame, or the frame alone where its neighbours cannot be read.
    fn fill(&mut self, at: Addr, len: usize) -> Result<bool, ReadError> {
        let page = Addr(at.0 & !(WINDOW as u64 - 1));
        let whole = WINDOW.max((at.0 - page.0) as usize + len);
        for (start, size) in [(page, whole), (at, len)] {
            self.start = start;
            self.window.resize(size, 0);
            match self.mem.read(start, &mut self.window) {
                Ok(()) => return Ok(true),
                Err(ReadError::Unmapped { .. }) => self.window.clear(),
                Err(e) => return Err(e),
            }
        }
        Ok(false)
    }
}

/// The last links of the stack below `above`, the root last. Empty where no root is reached.
pub(super) fn bottom(mem: &dyn Memory, layout: &Layout, above: Addr) -> Result<Vec<Link>, ReadError> {
    let mut reader = LinkReader::new(mem, layout);
    let Some(mut at) = reader.frame(above)?.map(|link| link.back).filter(|back| !back.is_null()) else { return Ok(Vec::new()) };
    let mut last: Vec<Link> = Vec::new();
    for _ in 0..MAX_LINKS {
        let Some(link) = reader.frame(at)? else { return Ok(Vec::new()) };
        if last.len() == 2 * MAX_BOTTOM {
            last.drain(..MAX_BOTTOM);
        }
        last.push(link);
        at = link.back;
        if at.is_null() {
            return Ok(last.split_off(last.len().saturating_sub(MAX_BOTTOM)));
        }
    }
    Ok(Vec::new())
}
