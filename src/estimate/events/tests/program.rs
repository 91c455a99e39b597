//! What simulated threads do: random programs, the same in every run.

/// Nanoseconds.
pub type Nano = u64;

/// xorshift64*: the same numbers in every run.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        (0..8).for_each(|_| {
            dice.next();
        });
        dice
    }

    pub fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential: often short, sometimes long.
    pub fn about(&mut self, mean: Nano) -> Nano {
        1 + (-(mean as f64) * (1.0 - self.next()).ln()) as Nano
    }

    pub fn between(&mut self, low: Nano, high: Nano) -> Nano {
        low + (self.next() * (high - low) as f64) as Nano
    }

    pub fn chance(&mut self, of: f64) -> bool {
        self.next() < of
    }
}

/// How a thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sleep {
    Io,
    Lock,
    Fault,
}

/// One thing that a thread does, for so many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    Python(Nano),
    /// A call of a C function that keeps the GIL.
    CCall(Nano),
    /// Native code without the GIL.
    Native(Nano),
    /// A sleep without the GIL.
    Sleep(Sleep, Nano),
    /// A sleep that keeps it.
    HoldingSleep(Sleep, Nano),
    Exit,
}

/// What a thread is likely to do: weights and mean lengths in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    pub python: (f64, u64),
    pub c_call: (f64, u64),
    pub native: (f64, u64),
    pub io: (f64, u64),
    pub lock: (f64, u64),
    pub holding_sleep: (f64, u64),
    pub exit: f64,
}

impl Mix {
    const NONE: (f64, u64) = (0.0, 1);

    /// Python code only.
    pub const BUSY: Mix = Mix {
        python: (1.0, 3_000),
        c_call: Mix::NONE,
        native: Mix::NONE,
        io: Mix::NONE,
        lock: Mix::NONE,
        holding_sleep: Mix::NONE,
        exit: 0.0,
    };
    /// Of everything some.
    pub const ALL: Mix = Mix {
        python: (4.0, 800),
        c_call: (2.0, 700),
        native: (1.0, 2_500),
        io: (1.0, 3_000),
        lock: (0.6, 2_000),
        holding_sleep: (0.2, 1_500),
        exit: 0.0,
    };
    /// Short requests with much waiting for devices.
    pub const SERVER: Mix =
        Mix { python: (2.0, 120), c_call: (1.0, 60), io: (2.0, 800), lock: (0.3, 300), native: (0.2, 300), ..Mix::BUSY };
    /// Half Python, half native code.
    pub const HASHING: Mix = Mix { python: (1.0, 1_000), native: (1.0, 1_000), ..Mix::BUSY };
    /// No thread state.
    pub const FOREIGN: Mix = Mix { python: Mix::NONE, native: (1.0, 2_000), io: (1.0, 1_000), ..Mix::BUSY };

    pub fn next(&self, dice: &mut Dice) -> Op {
        let weights = [
            self.python.0,
            self.c_call.0,
            self.native.0,
            self.io.0,
            self.lock.0,
            self.holding_sleep.0 / 3.0,
            self.holding_sleep.0 / 3.0,
            self.holding_sleep.0 / 3.0,
            self.exit,
        ];
        let mut left = dice.next() * weights.iter().sum::<f64>();
        let chosen = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        let mut long = |(_, micros): (f64, u64)| dice.about(micros * 1_000);
        match chosen.unwrap_or(0) {
            0 => Op::Python(long(self.python)),
            1 => Op::CCall(long(self.c_call)),
            2 => Op::Native(long(self.native)),
            3 => Op::Sleep(Sleep::Io, long(self.io)),
            4 => Op::Sleep(Sleep::Lock, long(self.lock)),
            5 => Op::HoldingSleep(Sleep::Io, long(self.holding_sleep)),
            6 => Op::HoldingSleep(Sleep::Lock, long(self.holding_sleep)),
            7 => Op::HoldingSleep(Sleep::Fault, long(self.holding_sleep)),
            _ => Op::Exit,
        }
    }
}
