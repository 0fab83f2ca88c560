//! A result under construction: what a function fills, and what becomes of it when it is done.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{ArrayRef, ArrayView, ArrayViewMut, Dimension, ShapeBuilder};
use ndarray_npy::{ViewMutElement, WritableElement};
use serde::{Serialize, Serializer};

use crate::args::{ArrayBytes, Canonical, element_descr};
use crate::audit;
use crate::bounds::Bounds;
use crate::buffer::{Buffer, Origin};
use crate::cache::{Known, remember};
use crate::cbor;
use crate::digest::hex;
use crate::dtype::Descr;
use crate::entry::{Array, Encoded, MAX_ARRAYS};
use crate::error::{Error, Result, Unstored};
use crate::explain::describe_call;
use crate::flight::Seat;
use crate::fork::epoch;
use crate::holder::host_name;
use crate::key::{Identity, Key};
use crate::log::{Level, say_once};
use crate::map::Memory;
use crate::npy::{Header, MAX_NDIM};
use crate::publish::Publication;
use crate::state::{Generation, State};
use crate::statistics::{Count, Tally};
use crate::store::{Made, Published, now};

/// Names of arrays and notes have at most this many bytes.
const MAX_NAME: usize = 1024;

/// Of the arguments, an entry keeps what fits in this; 4 KiB is what a page holds.
const MAX_ARGUMENTS: usize = 4096;

/// One result, being computed by this caller.
///
/// Made by [`Function::begin`](crate::Function::begin), ended by [`Output::end`]. Dropping it instead, also by a
/// panic, gives the work to the next caller that waits for it. It can be handed to another thread.
pub struct Output {
    /// Boxed: hits pass the same way, and would be copied at its size.
    task: Box<Task>,
    arrays: Vec<Array>,
    blocks: Vec<Memory>,
    notes: Vec<(String, String)>,
    committed: bool,
    /// The first thing that went wrong.
    error: Option<Error>,
    /// What the function says went wrong.
    complaint: Option<String>,
    started: Instant,
    /// What computing it took, where that was not between `started` and the end.
    took: Option<Duration>,
}

/// What is being computed, and where it goes.
pub(crate) struct Task {
    pub(crate) known: Arc<Known>,
    pub(crate) key: Key,
    pub(crate) args: Canonical,
    /// Where to store it, or why it will not be.
    pub(crate) place: Result<Box<Place>, Unstored>,
    /// The flight that this caller leads, if it shares its work.
    pub(crate) seat: Option<Seat>,
    /// Where to count it, if the cache has a directory.
    pub(crate) tally: Option<Tally>,
    /// What is stored already, where the call is a hit that is audited.
    pub(crate) audited: Option<Audited>,
}

/// A hit that is audited.
pub(crate) struct Audited {
    pub(crate) stored: Buffer,
    pub(crate) tally: Tally,
    pub(crate) ulps: u64,
}

/// Where a result is stored.
pub(crate) struct Place {
    pub(crate) state: Arc<State>,
    /// Read before the call looked for a stored result.
    pub(crate) generation: Generation,
    /// The entry's path, and where in it the path below the root begins.
    pub(crate) path: CString,
    pub(crate) below_root: usize,
    /// Whether what stands there is to be replaced: it is damaged, or over age, or the call is to refresh it. It goes also
    /// where the result is not stored.
    pub(crate) replace: bool,
    /// Whether something stands there that could not be read.
    pub(crate) unreadable: bool,
    /// What took less is not stored.
    pub(crate) min_compute: Duration,
    /// What the caller's handle says of them.
    pub(crate) bounds: Bounds,
    pub(crate) epoch: u64,
}

impl Place {
    fn name(&self) -> &CStr {
        &self.path.as_c_str()[self.below_root..]
    }
}

impl Output {
    pub(crate) fn new(task: Task) -> Output {
        Output {
            task: Box::new(task),
            arrays: Vec::new(),
            blocks: Vec::new(),
            notes: Vec::new(),
            committed: false,
            error: None,
            complaint: None,
            started: Instant::now(),
            took: None,
        }
    }

    /// Adds an array of this shape, all zeros, for the function to fill in place. `shape` is C order, or Fortran
    /// order with `.f()`.
    ///
    /// ```
    /// use ndarray::ShapeBuilder;
    /// # let directory = tempfile::tempdir()?;
    /// # let cache = npcache_core::Cache::open(directory.path())?;
    /// let result = cache.call("table", "1", b"", |out| {
    ///     let mut table = out.alloc::<f64, _>((2, 3).f())?;
    ///     table[[1, 2]] = 0.5;
    ///     Ok::<(), npcache_core::Error>(())
    /// })?;
    /// assert_eq!(result.view::<f64>(0)?[[1, 2]], 0.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn alloc<A, D>(&mut self, shape: impl ShapeBuilder<Dim = D>) -> Result<ArrayViewMut<'_, A, D>>
    where
        A: ViewMutElement + WritableElement,
        D: Dimension,
    {
        self.alloc_named(None, shape)
    }

    /// The same, for an array with a name.
    pub fn alloc_named<A, D>(
        &mut self,
        name: Option<&str>,
        shape: impl ShapeBuilder<Dim = D>,
    ) -> Result<ArrayViewMut<'_, A, D>>
    where
        A: ViewMutElement + WritableElement,
        D: Dimension,
    {
        let shape = shape.into_shape_with_order();
        let descr = element_descr::<A>()?;
        let too_large =
            || Error::Argument(format!("an array of shape {:?} is too large", shape.raw_dim().slice()));
        let count = shape.raw_dim().size_checked().ok_or_else(too_large)?;
        // ndarray does not tell a shape's order, but an array of it does; one of units has no memory.
        let units = vec![(); count];
        let fortran_order = !ArrayView::from_shape(shape.clone(), &units)
            .map_err(|e| Error::Argument(e.to_string()))?
            .is_standard_layout();
        let dims: Vec<i64> = shape.raw_dim().slice().iter().map(|n| *n as i64).collect();
        let bytes = self.alloc_bytes(name, descr, &dims, fortran_order)?;
        let elements = A::bytes_as_mut_slice(bytes, &A::type_descriptor(), count)
            .map_err(|e| Error::Dtype(format!("elements of this type cannot be filled in place: {e}")))?;
        ArrayViewMut::from_shape(shape, elements).map_err(|e| Error::Argument(e.to_string()))
    }

    /// Adds a copy of `array`, in C order, or in Fortran order where that is the array's own.
    pub fn write<A, D>(&mut self, array: &ArrayRef<A, D>) -> Result<()>
    where
        A: ViewMutElement + WritableElement + Clone,
        D: Dimension,
    {
        self.write_named(None, array)
    }

    /// The same, with a name.
    pub fn write_named<A, D>(&mut self, name: Option<&str>, array: &ArrayRef<A, D>) -> Result<()>
    where
        A: ViewMutElement + WritableElement + Clone,
        D: Dimension,
    {
        let fortran_order = !array.is_standard_layout() && array.t().is_standard_layout();
        let shape = array.raw_dim().set_f(fortran_order);
        self.alloc_named(name, shape)?.assign(array);
        Ok(())
    }

    /// Adds a copy of `array`, whose element type is known by its descr alone; in C order, or in Fortran order where
    /// that is the array's own.
    pub fn write_bytes(&mut self, name: Option<&str>, array: &ArrayBytes<'_>) -> Result<()> {
        let fortran_order = array.layout() == 'F';
        let shape: Vec<i64> = array.shape().iter().map(|n| *n as i64).collect();
        let descr = array.descr().clone();
        let place = self.add_array(name, descr, &shape, fortran_order, Memory::to_fill)?;
        array.copy_to(place);
        Ok(())
    }

    /// Adds an array by the name of its element type and gives the memory of its elements, zeroed and aligned to 64
    /// bytes; it stays where it is until the output is ended or dropped.
    ///
    /// # Errors
    ///
    /// For more than 32 dimensions, a negative one, a shape too large to address, or a name that another array has.
    /// The first error is kept: a result with one is not whole, and [`Output::end`] returns it.
    pub fn alloc_bytes(
        &mut self,
        name: Option<&str>,
        descr: Descr,
        shape: &[i64],
        fortran_order: bool,
    ) -> Result<&mut [u8]> {
        self.add_array(name, descr, shape, fortran_order, Memory::zeroed)
    }

    /// Adds an array in memory from `allocate`; an error is kept.
    fn add_array(
        &mut self,
        name: Option<&str>,
        descr: Descr,
        shape: &[i64],
        fortran_order: bool,
        allocate: fn(usize) -> Result<Memory>,
    ) -> Result<&mut [u8]> {
        match self.try_add_array(name, descr, shape, fortran_order, allocate) {
            Ok(()) => Ok(self.blocks.last_mut().expect("just added").as_mut_slice()),
            Err(e) => Err(self.keep(e)),
        }
    }

    fn try_add_array(
        &mut self,
        name: Option<&str>,
        descr: Descr,
        shape: &[i64],
        fortran_order: bool,
        allocate: fn(usize) -> Result<Memory>,
    ) -> Result<()> {
        if self.committed {
            return Err(Error::Argument(
                "an array is added to a result that is committed already".to_owned(),
            ));
        }
        if self.arrays.len() == MAX_ARRAYS {
            return Err(Error::Argument(format!("a result has at most {MAX_ARRAYS} arrays")));
        }
        if shape.len() > MAX_NDIM {
            let ndim = shape.len();
            return Err(Error::Argument(format!("an array has at most {MAX_NDIM} dimensions, not {ndim}")));
        }
        let name = name.filter(|name| !name.is_empty()).map(checked_name).transpose()?;
        if name.is_some() && self.arrays.iter().any(|array| array.name == name) {
            let name = name.as_deref().unwrap_or_default().to_string_lossy();
            return Err(Error::Argument(format!("two arrays of a result are called `{name}`")));
        }
        // With at most one dimension there is but one order.
        let header = Header { descr, fortran_order: fortran_order && shape.len() > 1, shape: shape.into() };
        let len = header.data_len().ok_or_else(|| {
            Error::Argument(format!(
                "an array of shape {shape:?} and dtype {} has a negative dimension or is too large to address",
                header.descr.as_str()
            ))
        })?;
        let block = self.blocks.len();
        self.blocks.push(allocate(len)?);
        let strides = header.strides();
        self.arrays.push(Array { name, header, strides, block, offset: 0, len });
        Ok(())
    }

    /// Records something about the run in the entry, as a name and a value, without it being part of the key:
    /// a library's version, the number of threads.
    pub fn note(&mut self, name: &str, value: &str) -> Result<()> {
        let name = checked_name(name).map_err(|e| self.keep(e))?.into_string().expect("was text");
        if value.len() > MAX_ARGUMENTS {
            let e = Error::Argument(format!(
                "the note `{name}` has {} bytes; at most {MAX_ARGUMENTS}",
                value.len()
            ));
            return Err(self.keep(e));
        }
        self.notes.retain(|(other, _)| *other != name);
        self.notes.push((name, value.to_owned()));
        Ok(())
    }

    /// Says what computing the result took, where it was computed before: by which it is recorded, and kept. Otherwise it
    /// is the time from the output's making to its end.
    pub fn set_compute_time(&mut self, took: Duration) {
        self.took = Some(took);
    }

    /// Declares the result whole. Without this, [`Output::end`] publishes nothing.
    ///
    /// # Errors
    ///
    /// The first that any call on this output had; or that it has no array.
    pub fn commit(&mut self) -> Result<()> {
        if self.arrays.is_empty() && self.error.is_none() {
            let name = self.task.known.identity.name();
            self.error =
                Some(Error::Argument(format!("function `{name}` committed a result without an array")));
        }
        self.committed = self.error.is_none();
        self.error.as_ref().map_or(Ok(()), |e| Err(e.duplicate()))
    }

    /// Says why there will be no result. What is committed after all is not published.
    pub fn fail(&mut self, message: &str) {
        self.complaint = Some(message.to_owned());
    }

    /// The error of a function that returned `code` for failure: with what it said by [`Output::fail`], else with the
    /// first error that a call on this output had, which is likely why it failed.
    pub fn function_error(&mut self, code: i32) -> Error {
        let cause = self.error.take().map(|e| e.to_string());
        let message = self.complaint.take().or(cause).unwrap_or_default();
        Error::Function { name: self.task.known.identity.name().to_owned(), code, message, source: None }
    }

    /// Ends the computation: publishes the result if it was committed, and hands it to those who wait for it.
    ///
    /// # Errors
    ///
    /// Where the result is not whole; the next caller that waits computes it then. That the result could not be stored
    /// is no error: [`Buffer::stored`] tells.
    pub fn end(mut self) -> Result<Buffer> {
        if self.complaint.is_some() {
            return Err(self.function_error(0));
        }
        if let Some(e) = self.error.take() {
            return Err(e);
        }
        if !self.committed {
            return Err(Error::NotCommitted(self.task.known.identity.name().to_owned()));
        }
        let took = self.took.unwrap_or_else(|| self.started.elapsed());
        let stored = self.publish(took);
        let Output { task, arrays, blocks, .. } = self;
        let Task { known, key, args, seat, place, tally, audited } = *task;
        if let Some(Tally { state, row }) = tally {
            let kind = match stored {
                Ok(()) => Count::Stored,
                Err(Unstored::Cheap) => Count::Cheap,
                Err(_) => Count::Unstored,
            };
            state.count(row, kind, 1);
            state.count(row, Count::SpentNs, took.as_nanos() as u64);
        }
        let path = place.as_ref().ok().filter(|_| stored.is_ok()).map(|place| place.path.clone());
        let buffer = Buffer::computed(arrays, blocks, path, stored, took.as_secs_f64());
        if let Some(audited) = audited {
            return Ok(audited.outcome(&known.identity, &args, &key, buffer));
        }
        // Of an older generation, or of another process, nothing is remembered; the rest is, stored or not.
        if let Ok(place) = &place
            && !matches!(stored, Err(Unstored::Cleared | Unstored::Forked))
        {
            remember(&place.state, place.generation, &known, &args, &key, &buffer, None);
        }
        if let Some(seat) = seat {
            seat.land(buffer.with_origin(Origin::Shared));
        }
        Ok(buffer)
    }

    fn publish(&self, took: Duration) -> Result<(), Unstored> {
        let place = self.task.place.as_ref().map_err(|why| *why)?;
        if place.epoch != epoch() {
            return Err(Unstored::Forked);
        }
        let stored = self.publish_to(place, took);
        if stored.is_err() && place.replace {
            // Else the next call would find it again: after a refresh, the old numbers.
            let _ = place.state.unlink_entry(place.name(), &self.task.key);
        }
        stored
    }

    fn publish_to(&self, place: &Place, took: Duration) -> Result<(), Unstored> {
        if took < place.min_compute {
            return Err(Unstored::Cheap);
        }
        let bounds = place.bounds.or(place.state.bounds());
        let data_len = self.blocks.iter().map(|block| block.as_slice().len() as u64).sum::<u64>();
        if data_len > bounds.max_bytes() {
            return Err(Unstored::TooLarge);
        }
        let metadata = self.metadata(took);
        let publication = Publication {
            name: place.name(),
            key: &self.task.key,
            slot: self.task.known.slot,
            generation: place.generation,
            replace: place.replace,
            made: Made::now(took),
            bounds: &bounds,
            metadata: &metadata,
        };
        let arrays = self.arrays.iter().map(|array| (array, self.blocks[array.block].as_slice()));
        match publication.publish(&place.state, &Encoded::new(arrays)) {
            Ok(Published::Now) => Ok(()),
            // What is there is another caller's result of the same call, as far as that can be told.
            Ok(Published::Already) if place.unreadable => Err(Unstored::Io),
            Ok(Published::Already) => Ok(()),
            // What a clear is for, or a bound.
            Err(refused) if matches!(refused.why, Unstored::Cleared | Unstored::TooLarge) => Err(refused.why),
            Err(refused) => {
                let directory = place.state.directory.path();
                say_once(Level::Warning, directory, &refused.why.to_string(), || {
                    format!("{}: results are returned, but not stored: {refused}", directory.display())
                });
                Err(refused.why)
            }
        }
    }

    /// What an entry says of itself: JSON, see `docs/format.md`.
    fn metadata(&self, took: Duration) -> Vec<u8> {
        let identity = &self.task.known.identity;
        let metadata = Metadata {
            name: identity.name(),
            version: identity.version(),
            dependencies: identity.dependencies(),
            layout: if identity.has_strict_layout() { self.task.args.layouts() } else { "" },
            arguments: describe_arguments(&self.task.args),
            created: now() as f64 / 1e9,
            compute_seconds: took.as_secs_f64(),
            host: host_name(),
            npcache: env!("CARGO_PKG_VERSION"),
            notes: &self.notes,
        };
        serde_json::to_vec(&metadata).expect("text and numbers")
    }

    /// Makes the result one that is not whole, because of `e`: for callers whose own arguments of a call on this output
    /// were wrong. The first such error is the one that [`Output::commit`] and [`Output::end`] return.
    pub fn keep_error(&mut self, e: Error) {
        self.keep(e);
    }

    fn keep(&mut self, e: Error) -> Error {
        if self.error.is_none() {
            self.error = Some(e.duplicate());
        }
        self.committed = false;
        e
    }
}

impl Audited {
    /// The stored result where the computed one is the same, so that an audit that finds nothing changes nothing. Else the
    /// computed one: what the function returns now is what its caller would have without a cache.
    fn outcome(self, identity: &Identity, args: &Canonical, key: &Key, computed: Buffer) -> Buffer {
        let Audited { stored, tally: Tally { state, row }, ulps } = self;
        state.count(row, Count::Audited, 1);
        let Some(difference) = audit::difference(&stored, &computed, ulps) else { return stored };
        state.count(row, Count::Differing, 1);
        let directory = state.directory.path();
        say_once(Level::Error, directory, &format!("audit {key}"), || {
            let entry = stored.path().unwrap_or(directory).display();
            format!(
                "{entry}: {} was computed again for an audit: {difference}",
                describe_call(identity, args)
            )
        });
        computed
    }
}

/// What an entry says of itself, in this order.
#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    version: &'a str,
    dependencies: &'a [(String, String)],
    layout: &'a str,
    arguments: serde_json::Value,
    created: f64,
    compute_seconds: f64,
    host: &'a str,
    npcache: &'a str,
    #[serde(serialize_with = "as_object")]
    notes: &'a [(String, String)],
}

fn as_object<S: Serializer>(
    pairs: &[(String, String)],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

/// The arguments as an entry keeps them: canonical ones with their long items as digests, other bytes as they are,
/// and of what is longer than [`MAX_ARGUMENTS`] the length alone.
pub(crate) fn describe_arguments(args: &Canonical) -> serde_json::Value {
    let Some(bytes) = args.bytes() else {
        return serde_json::json!({ "length": args.content().length() });
    };
    let (kind, described) = match cbor::Call::parse(bytes) {
        Some(call) => ("cbor", call.describe()),
        None => ("bytes", bytes.to_vec()),
    };
    if described.len() > MAX_ARGUMENTS {
        return serde_json::json!({ "length": bytes.len() });
    }
    serde_json::json!({ kind: hex(&described) })
}

fn checked_name(name: &str) -> Result<CString> {
    match CString::new(name) {
        Ok(name) if name.as_bytes().len() <= MAX_NAME => Ok(name),
        _ => Err(Error::Argument(format!(
            "the name `{}` of an array or a note has a NUL or more than {MAX_NAME} bytes",
            name.chars().take(20).collect::<String>().escape_debug()
        ))),
    }
}
