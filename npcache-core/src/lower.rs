//! The cache below: somebody else's directory, which is asked for what this cache does not have and never written to.

use std::cell::Cell;
use std::ffi::CStr;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use crate::buffer::Buffer;
use crate::entry::{self, Encoded};
use crate::evict::{Reserved, reserve};
use crate::fork::PerProcess;
use crate::key::Key;
use crate::log::{Level, say_once};
use crate::options::{Mode, Options};
use crate::state::{Generation, Slot, State};
use crate::store::{Directory, Published, write_all};

pub(crate) struct Lower {
    directory: Arc<Directory>,
    state: PerProcess<Arc<State>>,
}

impl Lower {
    /// The cache that the options name. One that cannot be opened, since it is not mounted just now, say, has nothing: it
    /// costs no program its results.
    pub(crate) fn open(above: &Directory, options: &Options) -> Option<Lower> {
        let path = options.lower.as_ref()?;
        let options = Options { mode: Mode::ReadOnly, ..options.clone() };
        match Directory::open(path, &options) {
            Ok(directory) if directory.identity() == above.identity() => None,
            Ok(directory) => Some(Lower { directory: Arc::new(directory), state: PerProcess::new() }),
            Err(e) => {
                say_once(Level::Warning, path, "lower", || format!("the cache below has nothing: {e}"));
                None
            }
        }
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What the processes that use it tell each other, to be read alone.
    pub(crate) fn state(&self) -> &Arc<State> {
        self.state.get(|state| state.is_current(), || State::of(self.directory.clone(), false, 0))
    }
}

/// Publishes a result that was found below as `name`, an entry of this cache's own; whether it is one now. `generation` was
/// read before it was found.
pub(crate) fn copy_up(
    state: &Arc<State>,
    name: &CStr,
    slot: Slot,
    generation: Generation,
    key: &Key,
    found: &Buffer,
) -> bool {
    let Some(Ok(metadata)) = found.file().map(entry::metadata) else { return false };
    let arrays = || found.arrays().iter().enumerate().map(|(i, array)| (array, found.bytes(i)));
    let took = Duration::from_nanos(found.compute_ns());
    let (bounds, len, mut reserved) = (state.bounds(), Cell::new(0), None);
    let published = state.directory.publish(
        name,
        false,
        took,
        |file, origin| {
            let encoded = Encoded::new(arrays());
            let footer = encoded.footer(key, metadata, origin, took, encoded.data_hash());
            len.set(encoded.len() + footer.len() as u64);
            let mut pieces = encoded.pieces();
            pieces.push(IoSlice::new(&footer));
            write_all(file, &mut pieces)
        },
        || {
            reserved = Some(reserve(state, &bounds, key, len.get())?);
            state.permit(slot, generation)
        },
    );
    if let Ok(Published::Now { .. }) = published {
        reserved.into_iter().for_each(Reserved::keep);
    }
    published.is_ok()
}
