//! Makes inputs out of real ones. Input number N is always the same bytes, so that its number is
//! enough to repeat a failure.

/// Splitmix64: small, fast, the same everywhere.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Less than `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers around the bounds of checks.
const NUMBERS: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    0x7f,
    0x80,
    0xff,
    0xfff,
    0x1000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 32,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 7,
    u64::MAX,
];
/// Parts of the texts of procfs and of command lines.
const WORDS: [&[u8]; 20] = [
    b" ",
    b"\n",
    b"\t",
    b"\0",
    b":",
    b"-",
    b",",
    b"/",
    b"..",
    b".",
    b"0",
    b"-1",
    b"+1",
    b"max",
    b"0x",
    b"18446744073709551615",
    b"4294967296",
    b"1e308",
    b"nan",
    b"\xff\xfe",
];
/// The largest input.
const LONGEST: usize = 64 << 10;
/// One input in so many is noise alone.
const NOISE: u64 = 128;

/// The changes that a seed allows.
pub enum Shape {
    /// Any change: bytes are inserted and removed.
    Free,
    /// Bytes keep their places: a picture of memory, of which these ranges are read. Words such as
    /// addresses of the picture are inserted.
    Fixed { places: Vec<(usize, usize)>, words: Vec<u64> },
}

/// The inputs of one parser.
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    shapes: Vec<Shape>,
    /// Of a fixed shape: the seed that is in the buffer, except for these bytes.
    current: Option<usize>,
    undo: Vec<usize>,
    buffer: Vec<u8>,
}

impl Mutator {
    /// Inputs of any length.
    pub fn free(seeds: Vec<Vec<u8>>) -> Mutator {
        let shapes = seeds.iter().map(|_| Shape::Free).collect();
        Mutator::new(seeds, shapes)
    }

    /// One shape a seed.
    pub fn new(seeds: Vec<Vec<u8>>, shapes: Vec<Shape>) -> Mutator {
        assert!(!seeds.is_empty() && seeds.len() == shapes.len(), "no seeds");
        Mutator { seeds, shapes, current: None, undo: Vec::new(), buffer: Vec::new() }
    }

    /// The input with this number: the number of its seed, and its bytes.
    pub fn input(&mut self, number: u64) -> (usize, &[u8]) {
        // Consecutive inputs share a seed, so that a large one is copied seldom.
        let which = (number / 64 % self.seeds.len() as u64) as usize;
        let mut rng = Rng::new(number.wrapping_mul(0xa076_1d64_78bd_642f) ^ 0x5eed);
        match &self.shapes[which] {
            Shape::Free => {
                self.current = None;
                self.buffer.clear();
                self.buffer.extend_from_slice(&self.seeds[which]);
                self.mutate_free(&mut rng);
            }
            Shape::Fixed { .. } => {
                self.restore(which);
                self.mutate_fixed(which, &mut rng);
            }
        }
        (which, &self.buffer)
    }

    fn restore(&mut self, which: usize) {
        if self.current == Some(which) {
            for at in self.undo.drain(..) {
                self.buffer[at] = self.seeds[which][at];
            }
        } else {
            self.undo.clear();
            self.buffer.clear();
            self.buffer.extend_from_slice(&self.seeds[which]);
            self.current = Some(which);
        }
    }

    fn mutate_fixed(&mut self, which: usize, rng: &mut Rng) {
        let Shape::Fixed { places, words } = &self.shapes[which] else { return };
        for _ in 0..changes(rng) {
            let &(start, len) = rng.pick(places);
            let width = *rng.pick(&[1, 2, 4, 8, 8, 8]);
            let at = start + (rng.below(len) & !(width - 1));
            let value = match rng.below(5) {
                0 => rng.next(),
                1 | 2 if !words.is_empty() => rng.pick(words).wrapping_add(*rng.pick(&[0, 0, 1, 8, 16, u64::MAX])),
                3 => number_at(&self.buffer, at, width).wrapping_add(*rng.pick(&[1, 8, u64::MAX, 1 << 16])),
                _ => *rng.pick(&NUMBERS),
            };
            for (i, byte) in value.to_le_bytes().into_iter().take(width).enumerate() {
                if let Some(place) = self.buffer.get_mut(at + i) {
                    *place = byte;
                    self.undo.push(at + i);
                }
            }
        }
    }

    fn mutate_free(&mut self, rng: &mut Rng) {
        if rng.next().is_multiple_of(NOISE) {
            let len = rng.below(300);
            self.buffer.clear();
            self.buffer.extend((0..len).map(|_| rng.next() as u8));
            return;
        }
        for _ in 0..changes(rng) {
            self.change_free(rng);
            self.buffer.truncate(LONGEST);
        }
    }

    fn change_free(&mut self, rng: &mut Rng) {
        let len = self.buffer.len();
        let at = rng.below(len + 1);
        // A range that begins here, usually short.
        let most = if rng.below(8) == 0 { 4096 } else { 16 };
        let some = rng.below(most.min(len - at) + 1);
        match rng.below(11) {
            0 if at < len => self.buffer[at] ^= 1 << rng.below(8),
            1 if at < len => self.buffer[at] = rng.next() as u8,
            2 => self.overwrite(at, rng),
            3 => self.buffer.truncate(at),
            4 => drop(self.buffer.drain(at..at + some)),
            5 => {
                let again = self.buffer[at..at + some].to_vec();
                let to = rng.below(self.buffer.len() + 1);
                self.buffer.splice(to..to, again);
            }
            6 => {
                let other = &self.seeds[rng.below(self.seeds.len())];
                let from = rng.below(other.len() + 1);
                self.buffer.truncate(at);
                self.buffer.extend_from_slice(&other[from..]);
            }
            7 => drop(self.buffer.splice(at..at + some, rng.pick(&WORDS).iter().copied())),
            8 => drop(self.buffer.splice(at..at, rng.pick(&WORDS).iter().copied())),
            9 => drop(self.buffer.splice(at..at, rng.pick(&NUMBERS).to_string().into_bytes())),
            _ => {
                let byte = rng.next() as u8;
                self.buffer.splice(at..at, std::iter::repeat_n(byte, some * 4));
            }
        }
    }

    fn overwrite(&mut self, at: usize, rng: &mut Rng) {
        let width = *rng.pick(&[2usize, 4, 8]);
        let value =
            if rng.below(2) == 0 { *rng.pick(&NUMBERS) } else { number_at(&self.buffer, at, width).wrapping_add(*rng.pick(&NUMBERS)) };
        for (place, byte) in self.buffer.iter_mut().skip(at & !(width - 1)).zip(value.to_le_bytes()).take(width) {
            *place = byte;
        }
    }
}

/// Most inputs get one change or a few: with many changes the first check refuses the input.
fn changes(rng: &mut Rng) -> usize {
    let most = *rng.pick(&[1, 1, 2, 3, 8]);
    1 + rng.below(most)
}

fn number_at(bytes: &[u8], at: usize, width: usize) -> u64 {
    let mut word = [0; 8];
    for (to, from) in word.iter_mut().zip(bytes.iter().skip(at).take(width)) {
        *to = *from;
    }
    u64::from_le_bytes(word)
}
