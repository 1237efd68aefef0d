//! Why a sidecar does not start, with what to do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::journal::OpenError;
use crate::net::listen_at::BindError;
use crate::state;

/// Why a sidecar does not start.
#[derive(Debug)]
pub enum StartError {
    /// The state folder or a file in it cannot be written.
    State {
        /// What cannot be written.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The journal cannot be opened; it says why.
    Journal(OpenError),
    /// What an earlier process left cannot be used; it says why.
    Kept(state::OpenError),
    /// What an earlier command left at the end file's path cannot be removed.
    EndFile {
        /// Where.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A listener cannot be had.
    Listen {
        /// The flag that moves it.
        flag: &'static str,
        /// What the system says, and what to do.
        error: BindError,
    },
    /// Certificates cannot be read or made.
    Trust(String),
    /// The policy cannot be loaded; the text names file and line.
    Policy(String),
    /// Core refuses the key, or does not answer and must.
    Core(String),
    /// The system denies what every process has.
    Internal(String),
}

impl StartError {
    /// What should never fail, did.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::Internal(error.to_string())
    }

    /// Certificates cannot be read or made.
    pub fn trust(error: impl fmt::Display) -> Self {
        Self::Trust(error.to_string())
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State { path, source } => write!(
                f,
                "{} cannot be written: {source}; name a folder of your own with --state-dir",
                path.display()
            ),
            Self::EndFile { path, source } => write!(
                f,
                "{} is there already, and cannot be removed: {source}; it would end the sidecar (end_file)",
                path.display()
            ),
            Self::Journal(error) => write!(f, "{error}"),
            Self::Kept(error) => write!(f, "{error}"),
            Self::Listen { flag, error } => write!(f, "{error} ({flag})"),
            Self::Trust(text) => f.write_str(text),
            Self::Policy(text) => write!(f, "the policy cannot be loaded: {text}"),
            Self::Core(text) => write!(f, "OpenBox Core: {text}"),
            Self::Internal(text) => write!(f, "cannot start: {text}"),
        }
    }
}

impl std::error::Error for StartError {}
