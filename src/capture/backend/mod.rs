//! The backend that another profiler's crate supplies: reading Python before 3.7 (py-spy). No other
//! module uses it. Without the feature `peers`, each function returns an error that names the
//! missing feature.

#[cfg(feature = "peers")]
mod pyspy;

#[cfg(feature = "peers")]
pub use pyspy::{dump, source};

#[cfg(not(feature = "peers"))]
mod absent {
    use crate::capture::session::SampleSource;
    use crate::error::{Error, Result};
    use crate::ids::Pid;
    use crate::sample::{TargetInfo, ThreadSnapshot};

    /// Always an error: this build of gilprof lacks the crate.
    pub fn dump(pid: Pid, version: &str) -> Result<(TargetInfo, Vec<ThreadSnapshot>)> {
        Err(too_old(pid, version))
    }

    /// Always an error: this build of gilprof lacks the crate.
    pub fn source(pid: Pid, version: &str) -> Result<Box<dyn SampleSource>> {
        Err(too_old(pid, version))
    }

    fn too_old(pid: Pid, version: &str) -> Error {
        let why = "this build reads 3.7 and later; older versions need the default features: cargo build --release";
        Error::UnsupportedVersion { pid, version: version.into(), why: why.into() }
    }
}
#[cfg(not(feature = "peers"))]
pub use absent::{dump, source};
