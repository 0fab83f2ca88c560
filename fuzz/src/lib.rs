//! What the fuzz targets do with an input. Each panics where a promise of npcache does not hold.

pub mod abi;
pub mod args;
pub mod entry;

use tempfile::TempDir;

/// A directory in memory, where there is such a file system: most of an execution is files.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}
