//! The loop of the screen: keys and pictures into the model, the model onto the terminal, and what
//! keys ask for into the measurement.

use super::analyst::Request;
use super::draw::Paint;
use super::files;
use super::host::Host;
use super::host_sampler::HostSampler;
use super::measurement::RunningMeasurement;
use super::model::{Action, Model, View};
use super::terminal::{has_panicked, Screen};
use crate::capture::session::CaptureConfig;
use crate::error::{Error, Result};
use crate::ids::Pid;
use crate::process::proc_info;
use ratatui::crossterm::event::{poll, read, Event};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a new picture may wait until it is shown.
const POLL: Duration = Duration::from_millis(50);
/// How often the processes of the host are read.
const HOST_PERIOD: Duration = Duration::from_secs(1);

/// Signals that have arrived.
#[derive(Debug, Default)]
pub struct Arrived {
    /// One that asks to end.
    pub end: AtomicBool,
    /// SIGTSTP from another process.
    pub suspend: AtomicBool,
    /// SIGCONT.
    pub resumed: AtomicBool,
    /// The loop has ended, and the terminal is as it was.
    pub done: AtomicBool,
}

/// What the screen needs from the command line.
pub struct Tools<'a> {
    /// Starts to measure a process.
    pub measure: &'a dyn Fn(Pid, &Model) -> Result<RunningMeasurement>,
    /// The state and the stack of each thread now, as text.
    pub dump: &'a dyn Fn(Pid) -> Result<String>,
    /// How the processes of the list are sampled.
    pub capture: CaptureConfig,
    /// How the screen is decorated.
    pub paint: Paint,
}

/// Shows the screen until the user or a signal ends it. Without a measurement it begins with the
/// processes of the host.
pub fn run(measurement: Option<RunningMeasurement>, model: Model, tools: &Tools<'_>, arrived: &Arrived) -> Result<()> {
    let failed = |source| Error::System { what: "take over the terminal".into(), source };
    let screen = Screen::open().map_err(failed)?;
    let mut app = App { screen, measurement, model, tools, host: Host::default(), host_read: None, sampler: None };
    let ended = app.show(arrived);
    drop(app);
    arrived.done.store(true, Ordering::Relaxed);
    ended
}

struct App<'a> {
    screen: Screen,
    measurement: Option<RunningMeasurement>,
    model: Model,
    tools: &'a Tools<'a>,
    host: Host,
    host_read: Option<Instant>,
    /// While the list of processes is shown.
    sampler: Option<HostSampler>,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

impl App<'_> {
    fn show(&mut self, arrived: &Arrived) -> Result<()> {
        let mut changed = true;
        while !arrived.end.load(Ordering::Relaxed) {
            changed |= self.read_news()?;
            // A terminal that is gone ends the screen, as its signal would.
            if changed && self.screen.draw(&self.model, self.tools.paint).is_err() {
                break;
            }
            changed = false;
            if arrived.suspend.swap(false, Ordering::Relaxed) {
                self.suspend(Pid(std::process::id() as i32));
                changed = true;
            }
            if arrived.resumed.swap(false, Ordering::Relaxed) {
                changed = self.screen.retake().is_ok();
            }
            match self.keys() {
                Ok(Some(Flow::Continue)) => changed = true,
                Ok(None) => {}
                Ok(Some(Flow::End)) | Err(_) => break,
            }
        }
        Ok(())
    }

    /// Takes what the measurement and the host have to show. True if anything is new.
    fn read_news(&mut self) -> Result<bool> {
        if self.model.view == View::Processes {
            let due = self.host_read.is_none_or(|read| read.elapsed() >= HOST_PERIOD);
            if due {
                self.model.processes = self.host.read();
                let sampler = self.sampler.get_or_insert_with(|| HostSampler::start(self.tools.capture));
                sampler.fill(&mut self.model.processes);
                self.model.unreadable = self.host.unreadable;
                self.host_read = Some(Instant::now());
            }
            return Ok(due);
        }
        let Some(measurement) = &self.measurement else { return Ok(false) };
        if measurement.is_broken() || has_panicked() {
            let source = std::io::Error::other("a thread of gilprof panicked");
            return Err(Error::System { what: "measure".into(), source });
        }
        let changed = self.model.take(&mut measurement.latest());
        Ok(changed)
    }

    /// Waits for keys for a moment, and takes all that there are.
    fn keys(&mut self) -> std::io::Result<Option<Flow>> {
        let mut flow = None;
        let mut wait = POLL;
        while poll(wait)? {
            wait = Duration::ZERO;
            flow = Some(Flow::Continue);
            if let Event::Key(key) = read()? {
                if let Some(action) = self.model.update(key) {
                    if self.act(action) == Flow::End {
                        return Ok(Some(Flow::End));
                    }
                }
            }
        }
        Ok(flow)
    }

    fn act(&mut self, action: Action) -> Flow {
        match action {
            Action::Quit => return Flow::End,
            Action::Suspend if proc_info::has_shell() => self.suspend(Pid(0)),
            Action::Suspend => self.model.message = Some("no shell could resume gilprof here".into()),
            Action::Redraw => {
                // An error shows itself in the next drawing.
                let _ = self.screen.retake();
            }
            Action::Span(span) => self.request(Request::Span(span)),
            Action::Reset => self.request(Request::Reset),
            Action::Record => self.request(Request::Record),
            Action::Report => self.request(Request::Report),
            Action::Dump => self.model.message = Some(self.dump().unwrap_or_else(|e| e.to_string())),
            Action::Enter(pid) => self.enter(Pid(pid)),
            Action::Leave => {
                self.measurement = None;
                self.model.leave();
                self.host_read = None;
            }
        }
        Flow::Continue
    }

    fn request(&mut self, request: Request) {
        if let Some(measurement) = &self.measurement {
            measurement.request(request);
        }
    }

    fn suspend(&mut self, whom: Pid) {
        if let Err(e) = self.screen.suspend(whom) {
            self.model.message = Some(format!("failed to suspend gilprof: {e}"));
        }
    }

    fn enter(&mut self, pid: Pid) {
        match (self.tools.measure)(pid, &self.model) {
            Ok(measurement) => {
                self.measurement = Some(measurement);
                self.sampler = None;
                self.model.enter_process();
            }
            Err(e) => self.model.message = e.to_string().lines().next().map(str::to_owned),
        }
    }

    fn dump(&self) -> Result<String> {
        let pid = self.model.shown().map(|picture| picture.report.target.pid);
        let Some(pid) = pid else { return Ok("nothing is measured yet".into()) };
        if self.model.ended.is_some() {
            return Ok("nothing to dump: the measurement has ended".into());
        }
        let text = (self.tools.dump)(Pid(pid))?;
        let (path, mut file) = files::create(pid, "txt")?;
        file.write_all(text.as_bytes()).map_err(|source| Error::Output { path: path.clone(), source })?;
        Ok(format!("wrote {}", path.display()))
    }
}
