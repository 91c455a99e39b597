//! The terminal: taken over for the screen, and given back however gilprof ends.

use super::draw::{self, Paint};
use super::model::Model;
use crate::ids::Pid;
use crate::process::sys_linux;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::terminal::{disable_raw_mode, enable_raw_mode, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::crossterm::{cursor::Hide, execute};
use ratatui::layout::Rect;
use ratatui::Terminal;
use std::io::{self, stdout, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Once;

/// The terminal while the screen is shown. Dropping it gives the terminal back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal over.
    pub fn open() -> io::Result<Screen> {
        restore_on_panic();
        let taken = take().and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        // A terminal that was taken half must not stay so.
        taken.inspect_err(|_| restore()).map(|terminal| Screen { terminal })
    }

    /// Draws what has changed since the last time.
    pub fn draw(&mut self, model: &Model, paint: Paint) -> io::Result<()> {
        self.terminal.draw(|frame| draw::draw(model, paint, frame.buffer_mut())).map(drop)
    }

    /// Gives the terminal back, stops like a program on Ctrl-Z, and takes the terminal again when
    /// gilprof goes on. `whom`: the process to stop; 0 for the whole job.
    pub fn suspend(&mut self, whom: Pid) -> io::Result<()> {
        restore();
        sys_linux::kill(whom, libc::SIGSTOP)?;
        self.retake()
    }

    /// Takes the terminal again and draws everything: another program may have had it.
    pub fn retake(&mut self) -> io::Result<()> {
        // crossterm believes that the mode is still the one that it has set.
        let _ = disable_raw_mode();
        take()?;
        self.terminal.clear()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// Gives the terminal back. A terminal that is gone is no error.
fn restore() {
    restore_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
}

/// Only the terminal's mode, which can be set even where the terminal takes no output.
pub fn restore_mode() {
    let _ = disable_raw_mode();
}

/// A thread has panicked, and the terminal has been given back.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Whether a thread has panicked since the terminal was taken.
pub fn has_panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

/// A panic's message must not be lost with the screen. Also for a panic of another thread, after
/// which gilprof ends.
fn restore_on_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            PANICKED.store(true, Ordering::Relaxed);
            before(panic);
        }));
    });
}

/// A screen of this size as plain text, without the spaces at the ends of lines.
pub fn text(model: &Model, paint: Paint, (width, height): (u16, u16)) -> String {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw::draw(model, paint, &mut buffer);
    let mut out = String::new();
    for row in buffer.content.chunks(usize::from(width).max(1)) {
        let mut line = String::new();
        let mut hidden = 0;
        for cell in row {
            // The cell behind a wide character is part of it.
            if hidden == 0 {
                line += cell.symbol();
                hidden = crate::output::columns::width(cell.symbol());
            }
            hidden = hidden.saturating_sub(1);
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}
