//! Memory as one run of bytes, which a mutator can change, and the places that its stretches have in a process.

use gilprof::ids::Addr;
use gilprof::process::memory::{Memory, ReadError};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Where the stretches of a picture are, in order of address.
#[derive(Clone, Debug, Default)]
pub struct Map(Rc<Vec<Stretch>>);

#[derive(Clone, Copy, Debug)]
struct Stretch {
    at: u64,
    from: usize,
    len: usize,
}

impl Map {
    /// Of ranges in order of address; gives their bytes, one after the other.
    pub fn of<'a>(ranges: impl IntoIterator<Item = (u64, &'a [u8])>) -> (Map, Vec<u8>) {
        let (mut stretches, mut all) = (Vec::new(), Vec::new());
        for (at, bytes) in ranges {
            stretches.push(Stretch { at, from: all.len(), len: bytes.len() });
            all.extend_from_slice(bytes);
        }
        (Map(Rc::new(stretches)), all)
    }

    /// Where `len` bytes at an address are in the run; `None` when they are not all in one stretch.
    fn find(&self, at: Addr, len: usize) -> Option<usize> {
        let after = self.0.partition_point(|stretch| stretch.at <= at.0);
        let stretch = self.0[..after].last()?;
        let inside = usize::try_from(at.0 - stretch.at).ok()?;
        (inside <= stretch.len && len <= stretch.len - inside).then_some(stretch.from + inside)
    }

    /// Whether an address is in some stretch.
    pub fn knows(&self, at: u64) -> bool {
        self.find(Addr(at), 1).is_some()
    }
}

/// Offsets and lengths.
type Places = Rc<RefCell<Vec<(usize, usize)>>>;

/// Memory that counts what is asked of it. Panics, so that the input fails, when that is more than any input should cause.
#[derive(Clone, Debug)]
pub struct Picture<B> {
    map: Map,
    bytes: B,
    most: u64,
    reads: Rc<Cell<u64>>,
    places: Option<Places>,
}

impl<B: AsRef<[u8]>> Picture<B> {
    /// `most`: reads that are too many. Each counts one, and one more for each KiB of it.
    pub fn new(map: &Map, bytes: B, most: u64) -> Picture<B> {
        Picture { map: map.clone(), bytes, most, reads: Rc::default(), places: None }
    }

    /// Remembers from now on where it is read.
    pub fn tracing(self) -> Picture<B> {
        Picture { places: Some(Rc::default()), ..self }
    }

    /// Where it was read so far, each read once: offset and length, in the run.
    pub fn places(&self) -> Vec<(usize, usize)> {
        self.places.as_ref().map(|places| places.borrow().clone()).unwrap_or_default()
    }

    /// The same with bytes of its own; what is read of either counts for both.
    pub fn owned(&self) -> Picture<Vec<u8>> {
        let (map, bytes) = (self.map.clone(), self.bytes.as_ref().to_vec());
        Picture { map, bytes, most: self.most, reads: self.reads.clone(), places: self.places.clone() }
    }
}

impl<B: AsRef<[u8]>> Memory for Picture<B> {
    fn read(&self, at: Addr, into: &mut [u8]) -> Result<(), ReadError> {
        self.reads.set(self.reads.get() + 1 + into.len() as u64 / 1024);
        assert!(self.reads.get() <= self.most, "more than {} reads", self.most);
        let unmapped = ReadError::Unmapped { at, len: into.len() };
        let from = self.map.find(at, into.len()).ok_or(unmapped)?;
        if let Some(places) = self.places.as_ref().filter(|_| !into.is_empty()) {
            places.borrow_mut().push((from, into.len()));
        }
        into.copy_from_slice(self.bytes.as_ref().get(from..from + into.len()).ok_or(unmapped)?);
        Ok(())
    }
}
