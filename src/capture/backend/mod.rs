//! Backends that other profilers' crates supply: reading Python before 3.7 (py-spy), and pausing
//! one thread while its stack is read (remoteprocess). No other module uses these crates. Without
//! the feature `peers`, each function returns an error that names the missing feature.

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

    /// Always an error: this build of gilprof lacks the crate.
    pub fn pauser(_: Pid) -> Result<Box<dyn ThreadPauser>> {
        Err(Error::Usage(
            "--freeze-holder is missing from this build of gilprof; build it with the default features: cargo build --release".into(),
        ))
    }

    /// Always an error: this build of gilprof lacks the crate.
    pub fn dump(pid: Pid, version: &str) -> Result<(TargetInfo, Vec<ThreadSnapshot>)> {
        Err(too_old(pid, version))
    }

    /// Always an error: this build of gilprof lacks the crate.
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
        let why = "this build reads 3.7 and later; older versions need the default features: cargo build --release";
        Error::UnsupportedVersion { pid, version: version.into(), why: why.into() }
    }
}
#[cfg(not(feature = "peers"))]
pub use absent::{capture, dump, pauser};
