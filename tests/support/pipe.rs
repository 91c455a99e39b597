//! The output of a child, with a bound on the wait: a thread reads, the test receives.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// One output of a child. The reading thread ends with the child's end of the pipe.
pub struct Pipe(Receiver<Vec<u8>>);

impl Pipe {
    pub fn new(from: impl Read + Send + 'static) -> Pipe {
        let (send, receive) = channel();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(from);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) && send.send(std::mem::take(&mut line)).is_ok() {}
        });
        Pipe(receive)
    }

    /// The next line, without its end.
    pub fn line(&self, patience: Duration) -> Result<String, String> {
        let bytes = self.0.recv_timeout(patience).map_err(|e| why(e, patience))?;
        let text = String::from_utf8(bytes).map_err(|e| e.to_string())?;
        Ok(text.trim_end_matches('\n').to_string())
    }

    /// All bytes up to the end, within `patience` in all.
    pub fn end(&self, patience: Duration) -> Result<Vec<u8>, String> {
        let deadline = Instant::now() + patience;
        let mut all = Vec::new();
        loop {
            match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => all.extend(line),
                Err(RecvTimeoutError::Disconnected) => return Ok(all),
                Err(timeout) => return Err(why(timeout, patience)),
            }
        }
    }
}

fn why(error: RecvTimeoutError, patience: Duration) -> String {
    match error {
        RecvTimeoutError::Disconnected => "it ended first (its stderr is above)".to_string(),
        RecvTimeoutError::Timeout => format!("silent for {} s", patience.as_secs()),
    }
}
