//! The size of a terminal.

use std::os::fd::{AsFd, AsRawFd};

/// The columns of the terminal that a descriptor refers to. `None` if the descriptor is no terminal
/// or the terminal does not know its size.
pub fn columns(terminal: &impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is live, and TIOCGWINSZ writes one winsize, which `size` is.
    let done = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_col > 0).then_some(size.ws_col.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_no_columns() {
        assert_eq!(columns(&std::fs::File::open("/dev/null").unwrap()), None);
    }
}
