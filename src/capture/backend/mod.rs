//! What other profilers' crates already know and gilprof's own reader does not: Pythons before 3.7 (py-spy), and stopping one thread while
//! its stack is read (remoteprocess). The only place that uses them; without the feature `peers` each of these is a clear message.

#[cfg(feature = "peers")]
mod pause;
#[cfg(feature = "peers")]
mod pyspy;

#[cfg(feature = "peers")]
pub use pause::pauser;
#[cfg(feature = "peers")]
pub use pyspy::{capture, dump};

#[cfg(not(feature = "peers"))]
mod absent {
    use crate::capture::sampler::ThreadPauser;
    use crate::capture::session::{CaptureConfig, CaptureResult, ProgressHook};
    use crate::error::{Error, Result};
    use crate::ids::Pid;
    use crate::sample::{Sink, TargetInfo, ThreadSnapshot};
    use std::sync::atomic::AtomicBool;

    /// Always an error: this gilprof was built without the crate that can.
    pub fn pauser(_: Pid) -> Result<Box<dyn ThreadPauser>> {
        Err(Error::Usage("--freeze-holder is not in this build of gilprof; build it with the default features".into()))
    }

    /// Always an error: this gilprof was built without the crate that can.
    pub fn dump(pid: Pid, version: &str) -> Result<(TargetInfo, Vec<ThreadSnapshot>)> {
        Err(too_old(pid, version))
    }

    /// Always an error: this gilprof was built without the crate that can.
    pub fn capture<S: Sink>(
        pid: Pid,
        version: &str,
        _: CaptureConfig,
        _: &AtomicBool,
        _: &mut S,
        _: &mut ProgressHook<'_, S>,
    ) -> Result<CaptureResult> {
        Err(too_old(pid, version))
    }

    fn too_old(pid: Pid, version: &str) -> Error {
        let why = "this build of gilprof reads 3.7 and later; build it with the default features to have holder and stacks of older ones";
        Error::UnsupportedVersion { pid, version: version.into(), why: why.into() }
    }
}
#[cfg(not(feature = "peers"))]
pub use absent::{capture, dump, pauser};
