//! The input is a sequence of calls of the C ABI, each with pointers to objects that are there, or with NULL; with lengths,
//! indices, dtypes and texts that are wrong; and some from within a function that is being computed. What is held:
//! nothing crashes; a status says what the out-parameters say; the memory of every result can be read and has the
//! layout that its view says; and a result of a function that keeps to a law is by that law.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};

use ::npcache::args::*;
use ::npcache::buffer::*;
use ::npcache::cache::*;
use ::npcache::dlpack::npcache_buffer_to_dlpack;
use ::npcache::error::*;
use ::npcache::function::*;
use ::npcache::log::*;
use ::npcache::options::*;
use ::npcache::output::*;
use ::npcache::statistics::*;
use ::npcache::status::*;
use arbitrary::{Arbitrary, Unstructured};

/// The functions of these names keep to the law: their results are [`law`]. The others return anything.
const LAWFUL: usize = 2;
const NAMES: [&CStr; 5] = [c"f", c"\xc3\xbc/..", c"g", c"", c"\xff"];
const VERSIONS: [&CStr; 3] = [c"1", c"", c"\xff"];
const OPTIONS: [(&CStr, &[&CStr]); 21] = [
    (c"mode", &[c"readwrite", c"readonly", c"refresh", c"off"]),
    (c"flight", &[c"process", c"thread", c"off", c"layout"]),
    (c"layout", &[c"equal", c"strict"]),
    (c"verify", &[c"auto", c"always", c"never"]),
    (c"memory_bytes", &[c"0", c"2K", c"1M", c"-1"]),
    (c"min_compute_ms", &[c"0", c"1000", c"1e300"]),
    (c"umask", &[c"process", c"group"]),
    (c"lock_timeout", &[c"0", c"0.01", c"600"]),
    (c"log", &[c"none", c"/dev/null"]),
    (c"audit", &[c"0", c"1", c"0.5", c"2"]),
    (c"audit_ulps", &[c"0", c"4"]),
    (c"trust", &[c"any", c"owner"]),
    (LOWER, &[c"/nowhere"]),
    (c"promote", &[c"no", c"yes"]),
    (c"map", &[c"auto", c"always", c"never"]),
    (c"max_bytes", &[c"none", c"0", c"4096", c"20K"]),
    (c"max_entries", &[c"none", c"0", c"1", c"3"]),
    (c"max_age", &[c"none", c"0", c"1d"]),
    (c"min_free_bytes", &[c"0", c"900T"]),
    (c"policy", &[c"cost", c"lru", c"none"]),
    (c"nothing", &[c"", c"\xff"]),
];
/// Of an object's options, its value is a path below the root.
const LOWER: &CStr = c"lower";
const DESCRS: [&CStr; 8] =
    [c"<f8", c"|u1", c"<U0", c">c16", c"[('a', '<f4'), ('', '|V3')]", c"|O", c"", c"\xff"];
/// Past the last dtype, and what no number of one is.
const DTYPES: i32 = 17;

type Handle = u8;

#[derive(Debug, Arbitrary)]
struct Shape {
    ndim: i8,
    dims: [u8; 4],
    strides: Option<[i8; 4]>,
}

#[derive(Debug, Arbitrary)]
struct Memory<'a> {
    bytes: &'a [u8],
    null: bool,
    offset: u8,
}

#[derive(Debug, Arbitrary)]
enum Op<'a> {
    OptionsNew,
    OptionsSet(Handle, u8, u8),
    OptionsFree(Handle),
    New(u8, Handle),
    Free(Handle),
    Call { cache: Handle, name: u8, version: u8, args: Memory<'a>, end: u8, steps: u8 },
    Clear(Handle, u8),
    ClearFunction(Handle, u8),
    FunctionNew(Handle, u8, u8),
    FunctionAddObject(Handle, bool),
    FunctionAddDependency(Handle, u8, u8),
    FunctionSet(Handle, u8, u8),
    FunctionFree(Handle),
    FunctionKey(Handle, Handle, bool),
    Begin(Handle, Handle, i16),
    Lookup(Handle, Handle),
    Forget(Handle, Handle),
    Explain(Handle, Handle, Handle),
    ArgsNew,
    ArgsFromBytes(Memory<'a>),
    ArgsFree(Handle),
    AddInt(Handle, i64),
    AddUint(Handle, u64),
    AddBigint(Handle, bool, Memory<'a>),
    AddFloat(Handle, u64),
    AddScalar(Handle, i8, [u8; 16]),
    AddBool(Handle, i32),
    AddNull(Handle),
    AddString(Handle, Memory<'a>),
    AddBytes(Handle, Memory<'a>),
    AddFile(Handle, u8),
    AddArray(Handle, i8, Shape, Memory<'a>),
    AddArrayDescr(Handle, u8, Shape, Memory<'a>),
    AddDigest(Handle, Handle),
    BeginList(Handle),
    BeginMap(Handle),
    End(Handle),
    Key(Handle, u8),
    DigestNew(u8, Shape, Memory<'a>),
    DigestFree(Handle),
    OutputAlloc(Handle, u8, i8, Shape, u8),
    OutputAllocDescr(Handle, u8, u8, Shape, u8),
    OutputWrite(Handle, u8, i8, Shape, bool),
    OutputNote(Handle, u8, u8),
    OutputCommit(Handle),
    OutputFail(Handle, u8),
    OutputEnd(Handle, bool),
    BufferView(Handle, i8, u8),
    BufferData(Handle, i8, i8),
    BufferRead(Handle, i8, i8, u8),
    BufferRetain(Handle),
    BufferRelease(Handle),
    BufferWritable(Handle),
    BufferToDlpack(Handle, i8),
    StatusString(i32),
    Stats(Handle, u8, u8),
    Configure(Handle, u8, u8),
    SetLog(u8),
}

/// Name and version of a lawful function.
type Law = Option<(u8, u8)>;

struct Output {
    raw: *mut npcache_output,
    law: Law,
    /// It is `npcache_call`'s, which ends it itself.
    lent: bool,
}

struct World<'a> {
    input: Unstructured<'a>,
    root: String,
    /// How many functions are being computed, each within the one before.
    depth: u8,
    options: Vec<*mut npcache_options>,
    caches: Vec<*mut npcache>,
    functions: Vec<(*mut npcache_function, Law)>,
    args: Vec<*mut npcache_args>,
    digests: Vec<*mut npcache_digest>,
    outputs: Vec<Output>,
    buffers: Vec<(*mut npcache_buffer, Law)>,
}

/// One of the objects, or `None`, for NULL.
fn pick<T>(objects: &[T], handle: Handle) -> Option<&T> {
    if handle == 255 { None } else { objects.get(usize::from(handle) % objects.len().max(1)) }
}

fn pointer<T>(objects: &[*mut T], handle: Handle) -> *mut T {
    pick(objects, handle).copied().unwrap_or(null_mut())
}

fn take<T>(objects: &mut Vec<T>, handle: Handle) -> Option<T> {
    (handle != 255 && !objects.is_empty()).then(|| objects.swap_remove(usize::from(handle) % objects.len()))
}

/// What stands in an out-parameter that a call forgot to write.
fn unset<T>() -> *mut T {
    std::ptr::without_provenance_mut(8)
}

fn text(texts: &[&CStr], which: u8) -> *const c_char {
    if which == 255 { null() } else { texts[usize::from(which) % texts.len()].as_ptr() }
}

fn law_of(name: u8, version: u8) -> Law {
    let (name, version) = (usize::from(name) % NAMES.len(), usize::from(version) % VERSIONS.len());
    (name < LAWFUL).then_some((name as u8, version as u8))
}

fn law((name, version): (u8, u8)) -> [u64; 3] {
    [u64::from(name) + 1, u64::from(version) + 1, !0]
}

/// Whether a status and the error beside it belong together.
///
/// # Safety
///
/// `error` is NULL or not freed.
unsafe fn check(status: npcache_status, error: *mut npcache_error) -> npcache_status {
    sound(status);
    assert_eq!(status < 0, !error.is_null(), "status {status}");
    // SAFETY: the caller's promise; the texts live as long as the error, and for ever.
    unsafe {
        assert!(!CStr::from_ptr(npcache_status_string(status)).is_empty());
        if !error.is_null() {
            assert_eq!(npcache_error_code(error), status);
            assert!(npcache_error_function_code(error) == 0 || status == NPCACHE_ERR_FUNCTION);
            CStr::from_ptr(npcache_error_message(error)).to_str().expect("a message is UTF-8");
        }
        npcache_error_free(error);
    }
    status
}

/// Checks the status of a call without an error object.
fn sound(status: npcache_status) {
    assert!((NPCACHE_ERR_MEMORY..=20).contains(&status), "status {status}");
}

/// The status of a call with an error object, checked.
macro_rules! ask {
    ($function:ident($($argument:expr),*)) => {{
        let mut error = null_mut();
        let status = $function($($argument,)* &mut error);
        check(status, error)
    }};
}

impl Shape {
    /// Dimensions that are small, or that no array can have.
    fn dims(&self) -> [i64; 4] {
        self.dims.map(|n| match n {
            255 => -1,
            254 => i64::MIN,
            253 => i64::MAX,
            n => i64::from(n % 6),
        })
    }

    /// NULL where a dimension is beyond all memory: elements that lie on each other would fit any.
    fn strides(&self) -> Option<[i64; 4]> {
        let strides = self.strides.filter(|_| !self.dims.contains(&253))?;
        Some(strides.map(i64::from))
    }

    /// As many as there are numbers for, or too many, or less than none.
    fn ndim(&self) -> i32 {
        match self.ndim {
            ndim @ 0..=4 => ndim.into(),
            5..=63 => 4,
            64..=127 => 33,
            _ => -1,
        }
    }
}

fn start<T>(items: &Option<[T; 4]>) -> *const T {
    items.as_ref().map_or(null(), |items| items.as_ptr())
}

impl Memory<'_> {
    fn parts(&self) -> (*const c_void, usize) {
        (if self.null { null() } else { self.bytes.as_ptr().cast() }, self.bytes.len())
    }
}

pub fn run(data: &[u8]) {
    let directory = crate::directory();
    let root = directory.path().to_str().expect("a text").to_owned();
    ROOT.set(root.clone());
    std::fs::write(directory.path().join("file"), "no cache").unwrap();
    let mut world = World {
        input: Unstructured::new(data),
        root,
        depth: 0,
        options: Vec::new(),
        caches: Vec::new(),
        functions: Vec::new(),
        args: Vec::new(),
        digests: Vec::new(),
        outputs: Vec::new(),
        buffers: Vec::new(),
    };
    // SAFETY: the world's objects are those that it was given and has not freed.
    unsafe {
        world.go(usize::MAX);
        world.end();
        npcache_set_log(None, null_mut());
    }
    ROOT.take();
}

/// The function of `npcache_call`: what is done next is done from within it.
unsafe extern "C-unwind" fn compute(
    user_data: *mut c_void,
    _args: *const c_void,
    _args_len: usize,
    raw: *mut npcache_output,
) -> i32 {
    // SAFETY: `user_data` is the computation that npcache_call was given.
    let task = unsafe { &mut *user_data.cast::<Computation<'_, '_>>() };
    let world = &mut *task.world;
    world.outputs.push(Output { raw, law: task.law, lent: true });
    world.depth += 1;
    // SAFETY: as in `run`.
    unsafe { world.go(task.steps) };
    world.depth -= 1;
    world.outputs.retain(|output| output.raw != raw);
    match task.end {
        0..=15 => i32::from(task.end) - 8,
        // SAFETY: npcache_call's own.
        _ if task.law.is_some() => unsafe { fill(raw, task.law) },
        // SAFETY: as above.
        128.. => unsafe { npcache_output_commit(raw) },
        _ => 0,
    }
}

thread_local! {
    /// Of the run that this thread is doing; empty where it does none.
    static ROOT: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What [`hear`] is given when it is to use the cache.
const USE_THE_CACHE: *mut c_void = std::ptr::without_provenance_mut(1);

/// The listener: uses the directory that the message may be about, which hangs where a lock is held.
unsafe extern "C" fn hear(user_data: *mut c_void, level: i32, message: *const c_char) {
    assert!((NPCACHE_LOG_INFO..=NPCACHE_LOG_ERROR).contains(&level));
    // SAFETY: a C string during the call.
    let message = unsafe { CStr::from_ptr(message) }.to_str().expect("a message is UTF-8");
    assert!(!message.is_empty() && !message.contains('\n'), "{message}");
    let root = ROOT.with_borrow(Clone::clone);
    if user_data.is_null() || root.is_empty() {
        return;
    }
    let path = CString::new(root + "/a").expect("no NUL");
    let mut cache = null_mut();
    // SAFETY: the cache is this call's own; NULL where it could not be opened.
    unsafe {
        let mut counted: npcache_statistics = std::mem::zeroed();
        ask!(npcache_new(path.as_ptr(), null(), &mut cache));
        ask!(npcache_stats(cache, null(), &mut counted, size_of::<npcache_statistics>()));
        ask!(npcache_clear_function(cache, NAMES[0].as_ptr()));
        npcache_free(cache);
    }
}

struct Computation<'w, 'a> {
    world: &'w mut World<'a>,
    law: Law,
    steps: usize,
    end: u8,
}

/// Makes the result that the law says.
///
/// # Safety
///
/// `output` is not ended.
unsafe fn fill(output: *mut npcache_output, by: Law) -> npcache_status {
    // SAFETY: the caller's promise, and an allocation of three numbers.
    unsafe {
        let place = npcache_output_alloc(output, null(), NPCACHE_UINT64, 1, &3, NPCACHE_ORDER_C);
        if !place.is_null() {
            place.cast::<[u64; 3]>().write(law(by.expect("lawful")));
        }
        npcache_output_commit(output)
    }
}

impl<'a> World<'a> {
    unsafe fn go(&mut self, steps: usize) {
        for _ in 0..steps {
            if self.input.is_empty() {
                return;
            }
            let Ok(op) = Op::arbitrary(&mut self.input) else { return };
            // SAFETY: as in `run`.
            unsafe { self.step(op) };
        }
    }

    /// A result that a call returned: its memory is what its views say, and it is by the law.
    unsafe fn keep(&mut self, buffer: *mut npcache_buffer, by: Law) {
        // SAFETY: a buffer that is not released, and views of it.
        unsafe {
            self.look(buffer, by);
            self.buffers.push((buffer, by));
        }
    }

    unsafe fn look(&self, buffer: *const npcache_buffer, by: Law) {
        // SAFETY: as above.
        unsafe {
            assert!((1..=4).contains(&npcache_buffer_origin(buffer)));
            assert!((0..=20).contains(&npcache_buffer_stored(buffer)));
            assert!(npcache_buffer_seconds(buffer) >= 0.0);
            let path = npcache_buffer_path(buffer);
            assert!(path.is_null() || CStr::from_ptr(path).to_str().unwrap().starts_with(&self.root));
            let count = npcache_buffer_count(buffer);
            assert!(count > 0);
            for i in 0..count {
                let mut view = std::mem::zeroed();
                assert_eq!(npcache_buffer_view(buffer, i, &mut view, size_of::<npcache_view>()), NPCACHE_OK);
                let shape = slice(view.shape, view.ndim as usize);
                assert_eq!(shape.iter().product::<i64>() * view.itemsize, view.nbytes as i64);
                assert_eq!(view.data.addr() % 64, 0);
                let data = slice(view.data.cast::<u8>(), view.nbytes);
                std::hint::black_box(data.iter().fold(0u8, |sum, byte| sum ^ byte));
                if let Some(by) = by {
                    assert_eq!(view.dtype, NPCACHE_UINT64);
                    assert_eq!(data, law(by).map(u64::to_le_bytes).concat());
                }
            }
        }
    }

    fn path(&self, which: u8) -> Option<CString> {
        let below = ["a", "b", "a/f", "file", "file/a", "a/../b"];
        let path = match which {
            255 => return None,
            254 => String::new(),
            which => format!("{}/{}", self.root, below[usize::from(which) % below.len()]),
        };
        Some(CString::new(path).expect("no NUL"))
    }

    unsafe fn step(&mut self, op: Op<'a>) {
        let name = |which| text(&NAMES, which);
        // SAFETY: every object is there or NULL, every other pointer is to something that is as long as is said.
        unsafe {
            match op {
                Op::OptionsNew => self.options.push(npcache_options_new()),
                Op::OptionsSet(options, option, value) => {
                    let (option, values) = OPTIONS[usize::from(option) % OPTIONS.len()];
                    let options = pointer(&self.options, options);
                    let path = self.path(value).filter(|_| option == LOWER);
                    let value = path.as_ref().map_or(text(values, value), |path| path.as_ptr());
                    ask!(npcache_options_set(options, option.as_ptr(), value));
                }
                Op::OptionsFree(options) => {
                    npcache_options_free(take(&mut self.options, options).unwrap_or(null_mut()));
                }
                Op::New(path, options) => {
                    let path = self.path(path);
                    let path = path.as_ref().map_or(null(), |path| path.as_ptr());
                    let mut out = unset();
                    let status = ask!(npcache_new(path, pointer(&self.options, options), &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    self.caches.extend((status == 0).then_some(out));
                }
                Op::Free(cache) => npcache_free(take(&mut self.caches, cache).unwrap_or(null_mut())),
                Op::Call { cache, name: which, version, args, end, steps } => {
                    let law = law_of(which, version);
                    let cache = pointer(&self.caches, cache);
                    let ((bytes, len), mut out) = (args.parts(), unset());
                    let steps = if self.depth < 3 { usize::from(steps % 8) } else { 0 };
                    let mut task = Computation { world: self, law, steps, end };
                    let task: *mut c_void = (&raw mut task).cast();
                    let version = text(&VERSIONS, version);
                    let function: npcache_fn = (end != 255).then_some(compute);
                    let status =
                        ask!(npcache_call(cache, name(which), version, bytes, len, function, task, &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    if status == 0 {
                        // With version NULL, that of this program, nothing else has its name.
                        self.keep(out, law.filter(|_| !version.is_null()));
                    }
                }
                Op::Clear(cache, flags) => {
                    ask!(npcache_clear(pointer(&self.caches, cache), u32::from(flags % 3)));
                }
                Op::ClearFunction(cache, which) => {
                    ask!(npcache_clear_function(pointer(&self.caches, cache), name(which)));
                }
                Op::FunctionNew(cache, which, version) => {
                    let mut out = unset();
                    let cache = pointer(&self.caches, cache);
                    let status =
                        ask!(npcache_function_new(cache, name(which), text(&VERSIONS, version), &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    // With version NULL it gets that of an object.
                    let law = law_of(which, version).filter(|_| version != 255);
                    self.functions.extend((status == 0).then_some((out, law)));
                }
                Op::FunctionAddObject(function, null) => {
                    let address = (!null).then_some(nothing as unsafe extern "C" fn());
                    ask!(npcache_function_add_object(self.function(function).0, address));
                }
                Op::FunctionAddDependency(function, which, value) => {
                    let function = self.function(function).0;
                    ask!(npcache_function_add_dependency(function, name(which), text(&VERSIONS, value)));
                }
                Op::FunctionSet(function, option, value) => {
                    let (option, values) = OPTIONS[usize::from(option) % OPTIONS.len()];
                    let function = self.function(function).0;
                    ask!(npcache_function_set(function, option.as_ptr(), text(values, value)));
                }
                Op::FunctionFree(function) => {
                    npcache_function_free(take(&mut self.functions, function).map_or(null_mut(), |it| it.0));
                }
                Op::FunctionKey(function, args, null) => {
                    let mut key = [1 as c_char; 65];
                    let place = if null { null_mut() } else { key.as_mut_ptr() };
                    let args = pointer(&self.args, args);
                    let status = ask!(npcache_function_key(self.function(function).0, args, place));
                    let len = key.iter().position(|byte| *byte == 0);
                    assert_eq!(len.filter(|_| !null), (!null).then_some(if status == 0 { 64 } else { 0 }));
                }
                Op::Begin(function, args, wait) => {
                    let (function, law) = self.function(function);
                    let (mut hit, mut todo) = (unset(), unset());
                    let args = pointer(&self.args, args);
                    let wait = i64::from(wait % 3);
                    let status = ask!(npcache_begin(function, args, wait, &mut hit, &mut todo));
                    assert_eq!(u8::from(!hit.is_null()) + u8::from(!todo.is_null()), u8::from(status == 0));
                    if !hit.is_null() {
                        self.keep(hit, law);
                    }
                    if !todo.is_null() {
                        self.outputs.push(Output { raw: todo, law, lent: false });
                    }
                }
                Op::Lookup(function, args) => {
                    let ((function, law), mut hit) = (self.function(function), unset());
                    let status = ask!(npcache_lookup(function, pointer(&self.args, args), &mut hit));
                    assert!(status == 0 || hit.is_null());
                    if !hit.is_null() {
                        self.keep(hit, law);
                    }
                    let mut cached = 7;
                    let asked = ask!(npcache_is_cached(function, pointer(&self.args, args), &mut cached));
                    assert_eq!(asked, status);
                    assert!((0..=i32::from(status == 0)).contains(&cached));
                }
                Op::Forget(function, args) => {
                    ask!(npcache_forget(self.function(function).0, pointer(&self.args, args)));
                }
                Op::Explain(cache, function, args) => {
                    let (mut out, function) = (unset(), self.function(function).0);
                    let (cache, args) = (pointer(&self.caches, cache), pointer(&self.args, args));
                    let status = ask!(npcache_explain(cache, function, args, &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    if !out.is_null() {
                        CStr::from_ptr(out).to_str().expect("UTF-8");
                    }
                    npcache_text_free(out);
                }
                Op::ArgsNew => self.args.push(npcache_args_new()),
                Op::ArgsFromBytes(memory) => {
                    let ((bytes, len), mut out) = (memory.parts(), unset());
                    let status = ask!(npcache_args_from_bytes(bytes, len, &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    self.args.extend((status == 0).then_some(out));
                }
                Op::ArgsFree(args) => npcache_args_free(take(&mut self.args, args).unwrap_or(null_mut())),
                Op::AddInt(args, value) => self.add(args, |args| npcache_args_add_int(args, value)),
                Op::AddUint(args, value) => self.add(args, |args| npcache_args_add_uint(args, value)),
                Op::AddBigint(args, negative, memory) => self.add(args, |args| {
                    npcache_args_add_bigint(args, negative.into(), memory.parts().0, memory.parts().1)
                }),
                Op::AddFloat(args, bits) => {
                    self.add(args, |args| npcache_args_add_float(args, f64::from_bits(bits)));
                }
                Op::AddScalar(args, dtype, value) => self.add(args, |args| {
                    npcache_args_add_scalar(args, i32::from(dtype) % DTYPES, value.as_ptr().cast())
                }),
                Op::AddBool(args, value) => self.add(args, |args| npcache_args_add_bool(args, value)),
                Op::AddNull(args) => self.add(args, |args| npcache_args_add_null(args)),
                Op::AddString(args, memory) => self.add(args, |args| {
                    npcache_args_add_string(args, memory.parts().0.cast(), memory.parts().1)
                }),
                Op::AddBytes(args, memory) => {
                    self.add(args, |args| npcache_args_add_bytes(args, memory.parts().0, memory.parts().1))
                }
                Op::AddFile(args, path) => {
                    let path = self.path(path);
                    let path = path.as_ref().map_or(null(), |path| path.as_ptr());
                    self.add(args, |args| npcache_args_add_file(args, path));
                }
                Op::AddArray(args, dtype, shape, memory) => {
                    let (dims, strides, (bytes, len)) = (shape.dims(), shape.strides(), memory.parts());
                    let (dtype, ndim, offset) =
                        (i32::from(dtype) % DTYPES, shape.ndim(), memory.offset.into());
                    let (dims, strides) = (dims.as_ptr(), start(&strides));
                    self.add(args, |args| {
                        npcache_args_add_array(args, dtype, ndim, dims, strides, bytes, len, offset)
                    });
                }
                Op::AddArrayDescr(args, descr, shape, memory) => {
                    let (dims, strides, (bytes, len)) = (shape.dims(), shape.strides(), memory.parts());
                    let (descr, ndim, offset) = (text(&DESCRS, descr), shape.ndim(), memory.offset.into());
                    let (dims, strides) = (dims.as_ptr(), start(&strides));
                    self.add(args, |args| {
                        npcache_args_add_array_descr(args, descr, ndim, dims, strides, bytes, len, offset)
                    });
                }
                Op::AddDigest(args, digest) => {
                    let digest = pointer(&self.digests, digest);
                    self.add(args, |args| npcache_args_add_digest(args, digest));
                }
                Op::BeginList(args) => self.add(args, |args| npcache_args_begin_list(args)),
                Op::BeginMap(args) => self.add(args, |args| npcache_args_begin_map(args)),
                Op::End(args) => self.add(args, |args| npcache_args_end(args)),
                Op::Key(args, which) => self.add(args, |args| npcache_args_key(args, name(which))),
                Op::DigestNew(descr, shape, memory) => {
                    let (dims, strides, (bytes, len)) = (shape.dims(), shape.strides(), memory.parts());
                    let (descr, ndim, offset) = (text(&DESCRS, descr), shape.ndim(), memory.offset.into());
                    let (dims, strides) = (dims.as_ptr(), start(&strides));
                    let mut out = unset();
                    let status =
                        ask!(npcache_digest_new(descr, ndim, dims, strides, bytes, len, offset, &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    self.digests.extend((status == 0).then_some(out));
                }
                Op::DigestFree(digest) => {
                    npcache_digest_free(take(&mut self.digests, digest).unwrap_or(null_mut()));
                }
                Op::OutputAlloc(output, which, dtype, shape, flags) => {
                    let Some(output) = self.lawless(output) else { return };
                    let (dtype, dims) = (i32::from(dtype) % DTYPES, shape.dims());
                    let flags = u32::from(flags % 4);
                    npcache_output_alloc(output, name(which), dtype, shape.ndim(), dims.as_ptr(), flags);
                }
                Op::OutputAllocDescr(output, which, descr, shape, flags) => {
                    let Some(output) = self.lawless(output) else { return };
                    let (descr, dims) = (text(&DESCRS, descr), shape.dims());
                    let (ndim, flags) = (shape.ndim(), u32::from(flags % 4));
                    npcache_output_alloc_descr(output, name(which), descr, ndim, dims.as_ptr(), flags);
                }
                Op::OutputWrite(output, which, dtype, shape, null) => {
                    let Some(output) = self.lawless(output) else { return };
                    // Whatever way the strides lead, for five steps in four dimensions, and an element.
                    let memory = vec![7u8; 2 * (4 * 5 * 128) + 16];
                    let data = memory[4 * 5 * 128..].as_ptr().cast();
                    // In C order it would take what the shape says.
                    let strides = shape.strides.unwrap_or_default().map(i64::from);
                    let dims = shape.dims().map(|n| if n > 5 { -1 } else { n });
                    let (ndim, data) = (shape.ndim(), if null { std::ptr::null() } else { data });
                    let (dims, strides) = (dims.as_ptr(), strides.as_ptr());
                    let dtype = i32::from(dtype) % DTYPES;
                    sound(npcache_output_write(output, name(which), dtype, ndim, dims, strides, data));
                }
                Op::OutputNote(output, which, value) => {
                    let Some(output) = self.lawless(output) else { return };
                    sound(npcache_output_note(output, name(which), text(&VERSIONS, value)));
                }
                Op::OutputCommit(output) => {
                    let Some(output) = self.lawless(output) else { return };
                    sound(npcache_output_commit(output));
                }
                Op::OutputFail(output, which) => {
                    let output = pick(&self.outputs, output).map_or(null_mut(), |output| output.raw);
                    sound(npcache_output_fail(output, name(which)));
                }
                Op::OutputEnd(output, lawful) => {
                    let index = usize::from(output) % self.outputs.len().max(1);
                    if self.outputs.get(index).is_none_or(|output| output.lent) {
                        return;
                    }
                    let output = self.outputs.swap_remove(index);
                    if lawful && output.law.is_some() {
                        fill(output.raw, output.law);
                    }
                    let mut out = unset();
                    let status = ask!(npcache_end(output.raw, &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    if status == 0 {
                        self.keep(out, output.law);
                    }
                }
                Op::BufferView(buffer, i, size) => {
                    let mut view = [0u64; 16];
                    let size = usize::from(size) % (size_of_val(&view) + 1);
                    let buffer = self.buffer(buffer);
                    sound(npcache_buffer_view(buffer, i.into(), view.as_mut_ptr().cast(), size));
                    let bytes = slice(view.as_ptr().cast::<u8>(), size_of_val(&view));
                    assert!(bytes[size..].iter().all(|byte| *byte == 0), "written past the given size");
                }
                Op::BufferData(buffer, i, dtype) => {
                    let (buffer, mut count) = (self.buffer(buffer), 1usize);
                    let data = npcache_buffer_data(buffer, i.into(), i32::from(dtype) % DTYPES, &mut count);
                    assert!(!data.is_null() || count == 0);
                    // Every element is at least a byte.
                    std::hint::black_box(slice(data.cast::<u8>(), count).to_vec());
                }
                Op::BufferRead(buffer, i, more, order) => {
                    let buffer = self.buffer(buffer);
                    let mut view = std::mem::zeroed();
                    sound(npcache_buffer_view(buffer, i.into(), &mut view, size_of::<npcache_view>()));
                    let nbytes = view.nbytes.saturating_add_signed(isize::from(more / 64));
                    let mut place = vec![0u8; nbytes];
                    let (place, order) = (place.as_mut_ptr().cast(), u32::from(order % 3));
                    let status = npcache_buffer_read(buffer, i.into(), place, nbytes, order);
                    sound(status);
                    assert!(status < 0 || nbytes == view.nbytes);
                }
                Op::BufferRetain(buffer) => {
                    let Some((buffer, law)) = pick(&self.buffers, buffer).copied() else {
                        return assert!(npcache_buffer_retain(null()).is_null());
                    };
                    self.keep(npcache_buffer_retain(buffer), law);
                }
                Op::BufferRelease(buffer) => {
                    let Some((buffer, law)) = take(&mut self.buffers, buffer) else {
                        return npcache_buffer_release(null_mut());
                    };
                    // To its end it is what it was.
                    self.look(buffer, law);
                    npcache_buffer_release(buffer);
                }
                Op::BufferWritable(buffer) => {
                    let (buffer, mut out) = (self.buffer(buffer), unset());
                    let status = ask!(npcache_buffer_writable(buffer, &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    if status == 0 {
                        let mut view = std::mem::zeroed();
                        sound(npcache_buffer_view(out, 0, &mut view, size_of::<npcache_view>()));
                        assert_eq!(view.flags & NPCACHE_WRITABLE, NPCACHE_WRITABLE);
                        view.data.cast_mut().cast::<u8>().write_bytes(0xaa, view.nbytes);
                        self.keep(out, None);
                    }
                }
                Op::BufferToDlpack(buffer, i) => {
                    let (buffer, mut out) = (self.buffer(buffer), unset());
                    let status = ask!(npcache_buffer_to_dlpack(buffer, i.into(), &mut out));
                    assert_eq!(status == 0, !out.is_null());
                    if let Some(tensor) = out.cast::<Tensor>().as_ref() {
                        (tensor.deleter)(out);
                    }
                }
                Op::StatusString(status) => {
                    assert!(!CStr::from_ptr(npcache_status_string(status)).is_empty());
                    assert_eq!(::npcache::npcache_abi_version(), 1);
                }
                Op::Stats(cache, which, size) => {
                    let (cache, mut place) = (pointer(&self.caches, cache), [!0u64; 24]);
                    let size = usize::from(size) % (size_of_val(&place) + 1);
                    let to = if size == 0 { null_mut() } else { place.as_mut_ptr().cast() };
                    let status = ask!(npcache_stats(cache, name(which), to, size));
                    assert!(status < 0 || size > 0);
                    let bytes = slice(place.as_ptr().cast::<u8>(), size_of_val(&place));
                    assert!(bytes[size..].iter().all(|byte| *byte == 255), "written past the given size");
                    let known = size.min(size_of::<npcache_statistics>());
                    assert!(
                        bytes[known..size].iter().all(|byte| *byte == 0),
                        "not cleared to the given size"
                    );
                }
                Op::Configure(cache, option, value) => {
                    let (option, values) = OPTIONS[usize::from(option) % OPTIONS.len()];
                    let cache = pointer(&self.caches, cache);
                    ask!(npcache_configure(cache, option.as_ptr(), text(values, value)));
                }
                Op::SetLog(listener) => match listener % 3 {
                    0 => npcache_set_log(None, null_mut()),
                    1 => npcache_set_log(Some(hear), null_mut()),
                    _ => npcache_set_log(Some(hear), USE_THE_CACHE),
                },
            }
        }
    }

    unsafe fn add(&self, args: Handle, add: impl FnOnce(*mut npcache_args) -> npcache_status) {
        let args = pointer(&self.args, args);
        let status = add(args);
        assert!((NPCACHE_ERR_MEMORY..=0).contains(&status));
        assert!(!args.is_null() || status < 0);
    }

    fn function(&self, handle: Handle) -> (*mut npcache_function, Law) {
        pick(&self.functions, handle).copied().unwrap_or((null_mut(), None))
    }

    fn buffer(&self, handle: Handle) -> *mut npcache_buffer {
        pick(&self.buffers, handle).map_or(null_mut(), |(buffer, _)| *buffer)
    }

    /// An output that may become anything, or NULL; `None` for one of a function that keeps to the law.
    fn lawless(&self, handle: Handle) -> Option<*mut npcache_output> {
        match pick(&self.outputs, handle) {
            Some(output) => output.law.is_none().then_some(output.raw),
            None => Some(null_mut()),
        }
    }

    /// Frees what is left.
    unsafe fn end(&mut self) {
        // SAFETY: each was given by its own function, and is freed here for the first time.
        unsafe {
            self.caches.drain(..).for_each(|it| npcache_free(it));
            self.options.drain(..).for_each(|it| npcache_options_free(it));
            self.functions.drain(..).for_each(|it| npcache_function_free(it.0));
            self.args.drain(..).for_each(|it| npcache_args_free(it));
            self.digests.drain(..).for_each(|it| npcache_digest_free(it));
            for output in std::mem::take(&mut self.outputs) {
                let mut out = null_mut();
                ask!(npcache_end(output.raw, &mut out));
                npcache_buffer_release(out);
            }
            for (buffer, law) in std::mem::take(&mut self.buffers) {
                self.look(buffer, law);
                npcache_buffer_release(buffer);
            }
        }
    }
}

/// The beginning of dlpack.h's structure.
#[repr(C)]
struct Tensor {
    version: [u32; 2],
    manager: *mut c_void,
    deleter: unsafe extern "C" fn(*mut c_void),
}

unsafe extern "C" fn nothing() {}

/// # Safety
///
/// `start` is NULL, or `len` items are there.
unsafe fn slice<'s, T>(start: *const T, len: usize) -> &'s [T] {
    // SAFETY: the caller's promise.
    if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(start, len) } }
}
