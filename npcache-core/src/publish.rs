//! How a result becomes an entry: written, counted, and given its name in the generation that it belongs to.

use std::cell::Cell;
use std::ffi::CStr;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bounds::Bounds;
use crate::entry::{Encoded, Origin};
use crate::evict::{keep_free, reserve};
use crate::key::Key;
use crate::state::{Generation, Slot, State};
use crate::store::{Made, Published, Refused, below_size_limit, write_all};

/// Results from this length on are written in pieces, each hashed while it is in the processor's cache.
const IN_PIECES_FROM: u64 = 1 << 20;

/// An entry that is to be published.
pub(crate) struct Publication<'a> {
    pub(crate) name: &'a CStr,
    pub(crate) key: &'a Key,
    pub(crate) slot: Slot,
    /// Read before the call looked for a stored result.
    pub(crate) generation: Generation,
    /// Whether what stands there is to be replaced.
    pub(crate) replace: bool,
    pub(crate) made: Made,
    pub(crate) bounds: &'a Bounds,
    /// JSON, see `docs/format.md`.
    pub(crate) metadata: &'a [u8],
}

impl Publication<'_> {
    /// Publishes it, unless a clear came since its generation, or there is no room for it and none can be made.
    pub(crate) fn publish(self, state: &Arc<State>, encoded: &Encoded<'_>) -> Result<Published, Refused> {
        keep_free(state, self.bounds, encoded.len())?;
        let _change = state.tally().change(self.key.as_bytes()[0], self.replace);
        let (len, inode, mut reserved) = (Cell::new(0), Cell::new(0), None);
        let took = self.made.took;
        let write = |file: &OwnedFd, origin: &Origin| {
            inode.set(origin.inode);
            let footer = |data_hash| {
                let footer = encoded.footer(self.key, self.metadata, origin, took, data_hash);
                len.set(encoded.len() + footer.len() as u64);
                footer
            };
            if encoded.len() >= IN_PIECES_FROM {
                below_size_limit(encoded.len())?;
                let data_hash = encoded.hash_and_write(|pieces| write_all(file, pieces))?;
                return write_all(file, &mut [IoSlice::new(&footer(data_hash))]);
            }
            let footer = footer(encoded.data_hash());
            let mut pieces = encoded.pieces();
            pieces.push(IoSlice::new(&footer));
            write_all(file, &mut pieces)
        };
        let permit = |replaces| {
            // Before it is there, so that all entries together are never more than what is counted.
            reserved = Some(reserve(state, self.bounds, self.key, len.get(), inode.get(), replaces)?);
            state.permit(self.slot, self.generation)
        };
        let published = state.directory.publish(self.name, self.replace, self.made, write, permit)?;
        if let (Published::Now, Some(reserved)) = (&published, reserved) {
            reserved.keep(self.name, took);
        }
        Ok(published)
    }
}
