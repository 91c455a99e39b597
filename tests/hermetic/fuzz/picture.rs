//! Memory as one array of bytes, which a mutator can change, and the addresses of its ranges in a
//! process.

use gilprof::ids::Addr;
use gilprof::process::memory::{Memory, ReadError};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The ranges of a picture, in order of address.
#[derive(Clone, Debug, Default)]
pub struct Map(Rc<Vec<Stretch>>);

#[derive(Clone, Copy, Debug)]
struct Stretch {
    at: u64,
    from: usize,
    len: usize,
}

impl Map {
    /// From ranges in order of address. Returns their bytes, one range after the other.
    pub fn of<'a>(ranges: impl IntoIterator<Item = (u64, &'a [u8])>) -> (Map, Vec<u8>) {
        let (mut stretches, mut all) = (Vec::new(), Vec::new());
        for (at, bytes) in ranges {
            stretches.push(Stretch { at, from: all.len(), len: bytes.len() });
            all.extend_from_slice(bytes);
        }
        (Map(Rc::new(stretches)), all)
    }

    /// The offset of `len` bytes at an address; `None` unless all are in one range.
    fn find(&self, at: Addr, len: usize) -> Option<usize> {
        let after = self.0.partition_point(|stretch| stretch.at <= at.0);
        let stretch = self.0[..after].last()?;
        let inside = usize::try_from(at.0 - stretch.at).ok()?;
        (inside <= stretch.len && len <= stretch.len - inside).then_some(stretch.from + inside)
    }

    /// Whether an address is in some range.
    pub fn knows(&self, at: u64) -> bool {
        self.find(Addr(at), 1).is_some()
    }
}

/// Offsets and lengths.
type Places = Rc<RefCell<Vec<(usize, usize)>>>;

/// Memory that counts its reads. Panics, so that the input fails, when there are more than any
/// input should cause.
#[derive(Clone, Debug)]
pub struct Picture<B> {
    map: Map,
    bytes: B,
    most: u64,
    reads: Rc<Cell<u64>>,
    places: Option<Places>,
}

impl<B: AsRef<[u8]>> Picture<B> {
    /// `most`: too many reads. Each read counts one, and one more for each KiB.
    pub fn new(map: &Map, bytes: B, most: u64) -> Picture<B> {
        Picture { map: map.clone(), bytes, most, reads: Rc::default(), places: None }
    }

    /// Records the places of later reads.
    pub fn tracing(self) -> Picture<B> {
        Picture { places: Some(Rc::default()), ..self }
    }

    /// The places of reads so far, each once: offset and length in the array.
    pub fn places(&self) -> Vec<(usize, usize)> {
        self.places.as_ref().map(|places| places.borrow().clone()).unwrap_or_default()
    }

    /// The same map with other bytes. Reads of either count for both.
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
