//! What can go wrong, said so that a user knows what to do about it.
//!
//! [`Error`] is for calls that could not do what they were asked. A result that was computed but could not
//! be kept is no error: it is returned, and [`Unstored`] says why the cache does not have it.

use std::io;
use std::path::{Path, PathBuf};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of the call is not usable; the message names it and what it may be.
    #[error("{0}")]
    Argument(String),
    /// An element type that npcache does not store, or one that differs from the stored one.
    #[error("{0}")]
    Dtype(String),
    /// The user's function reported failure.
    #[error("function `{name}` failed with code {code}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Function {
        /// The function's name.
        name: String,
        /// What it returned.
        code: i32,
        /// What it said, empty where it said nothing.
        message: String,
        /// Its own error, where it is a Rust function.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The user's function returned success without declaring its result whole.
    #[error(
        "function `{0}` returned without committing its result; nothing was cached (call npcache_output_commit \
         when every array is filled)"
    )]
    NotCommitted(String),
    /// The operating system refused; the message names the operation and the path.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb phrase: "create the directory".
        operation: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The directory is not one that this library can use as a cache.
    #[error("{}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A file in the place of an entry is none, or not a whole one. No call finds it: the next computes and replaces it.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Files that npcache did not make keep a directory from being removed.
    #[error(
        "{} was emptied but not removed, because it holds what npcache did not make: {}",
        path.display(), files.join(", ")
    )]
    NotEmpty {
        /// The cache directory.
        path: PathBuf,
        /// The first few names in it, relative to the directory.
        files: Vec<String>,
    },
    /// The code that a function pointer belongs to has no identity that could serve as a version.
    #[error("{0}")]
    BuildId(String),
    /// Memory for a result could not be had.
    #[error("cannot allocate {0} bytes for a result")]
    Memory(usize),
}

impl Error {
    /// An [`Error::Io`] for `operation` on `path`.
    pub(crate) fn io(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::Io { operation, path: path.to_owned(), source: source.into() }
    }

    /// A second error of the same kind and with the same text, for what is to be reported twice.
    pub fn duplicate(&self) -> Error {
        match self {
            Error::Dtype(message) => Error::Dtype(message.clone()),
            Error::Memory(len) => Error::Memory(*len),
            Error::Io { operation, path, source } => {
                let source = match source.raw_os_error() {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::new(source.kind(), source.to_string()),
                };
                Error::Io { operation, path: path.clone(), source }
            }
            other => Error::Argument(other.to_string()),
        }
    }
}

/// Why a result that was returned is not in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unstored {
    /// The cache has no directory: it was opened without a path, or with mode `off`.
    #[error("the cache has no directory")]
    NoDirectory,
    /// The cache was opened with mode `readonly`.
    #[error("the cache is open read-only")]
    ReadOnlyMode,
    /// The directory or its file system does not let this process write.
    #[error("the directory cannot be written")]
    NotWritable,
    /// The disk is full, or a quota is, or less is free than the option `min_free_bytes`, or the process may not write so
    /// large a file.
    #[error("the disk is full, or less of it is free than min_free_bytes")]
    DiskFull,
    /// The directory was removed while it was open.
    #[error("the directory was removed")]
    Removed,
    /// The cache was cleared after the call began.
    #[error("the cache was cleared meanwhile")]
    Cleared,
    /// The process forked after the call began, and this is the child.
    #[error("begun before a fork")]
    Forked,
    /// Any other fault of the file system.
    #[error("input/output error")]
    Io,
    /// It took less than the option `min_compute_ms`: it is kept in memory only.
    #[error("too cheap to be worth it")]
    Cheap,
    /// It does not fit within the cache's bounds: it is larger than `max_bytes` by itself, nothing goes to make room for it
    /// (`policy=none`), or too little could be removed in the time that there is for that.
    #[error("no room within the cache's bounds")]
    TooLarge,
    /// The call was a hit that was audited, and the stored result is another than was computed.
    #[error("an audited hit, whose stored result is another")]
    Differs,
}
