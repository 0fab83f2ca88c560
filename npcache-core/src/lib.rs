//! A persistent memo table for functions that return n-dimensional numeric arrays.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!("npcache runs on 64-bit little-endian Linux");

mod args;
mod audit;
mod bounds;
mod buffer;
mod build_id;
mod cache;
mod cbor;
mod digest;
mod dtype;
mod entry;
mod error;
mod evict;
mod explain;
mod flight;
mod fork;
mod holder;
mod import;
mod key;
mod list;
mod log;
mod lower;
mod map;
mod memory;
mod npy;
mod options;
mod output;
mod policy;
mod publish;
mod state;
mod statistics;
mod store;

pub use args::{Args, ArrayBytes, ArrayDigest, Canonical};
pub use buffer::{Buffer, Origin};
pub use cache::{Begun, Cache, Function, Version, Wait};
pub use cbor::{Call, Value};
pub use digest::{Content, Digest, from_hex, hex};
pub use dtype::{DType, Descr};
pub use entry::Array;
pub use error::{Error, Result, Unstored};
pub use evict::Pruned;
pub use key::{Identity, Key};
pub use list::{Entry, Metadata, Recorded};
pub use log::{Level, Listener, Log, set_log};
pub use npy::MAX_NDIM;
pub use options::{Map, Mode, Options, Sharing, Trust, Verify, parse_bytes};
pub use output::Output;
pub use policy::Policy;
pub use statistics::Statistics;

/// The README's example in Rust, run as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
