//! npcache through its C ABI: what a call costs in any host.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

const UINT8: i32 = 6;
const NAME: &CStr = c"kernel";
const VERSION: &CStr = c"1";

pub const COMPUTED: i32 = 1;
pub const MEMORY: i32 = 2;
pub const DISK: i32 = 3;

type Function = unsafe extern "C-unwind" fn(*mut c_void, *const c_void, usize, *mut c_void) -> i32;

// From include/npcache.h.
unsafe extern "C" {
    fn npcache_new(
        path: *const c_char,
        options: *const c_void,
        out: *mut *mut c_void,
        err: *mut *mut c_void,
    ) -> i32;
    fn npcache_free(cache: *mut c_void);
    fn npcache_options_new() -> *mut c_void;
    fn npcache_options_set(
        options: *mut c_void,
        name: *const c_char,
        value: *const c_char,
        err: *mut *mut c_void,
    ) -> i32;
    fn npcache_options_free(options: *mut c_void);
    fn npcache_output_alloc(
        out: *mut c_void,
        name: *const c_char,
        dtype: i32,
        ndim: i32,
        shape: *const i64,
        flags: u32,
    ) -> *mut c_void;
    fn npcache_output_write(
        out: *mut c_void,
        name: *const c_char,
        dtype: i32,
        ndim: i32,
        shape: *const i64,
        strides: *const i64,
        data: *const c_void,
    ) -> i32;
    fn npcache_output_commit(out: *mut c_void) -> i32;
    fn npcache_buffer_data(buffer: *const c_void, i: i32, dtype: i32, count: *mut usize) -> *const c_void;
    fn npcache_buffer_origin(buffer: *const c_void) -> i32;
    fn npcache_buffer_stored(buffer: *const c_void) -> i32;
    fn npcache_buffer_path(buffer: *const c_void) -> *const c_char;
    fn npcache_buffer_release(buffer: *mut c_void);
}
unsafe extern "C-unwind" {
    fn npcache_call(
        cache: *mut c_void,
        name: *const c_char,
        version: *const c_char,
        args: *const c_void,
        args_len: usize,
        function: Function,
        user_data: *mut c_void,
        out: *mut *mut c_void,
        err: *mut *mut c_void,
    ) -> i32;
}

/// An open cache.
pub struct Cache(*mut c_void);

// SAFETY: the header says that a cache can be used from any thread.
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

/// A result.
pub struct Buffer(*mut c_void);

/// How the function of a miss makes its result, and how long it took.
pub struct Compute<'a> {
    pub len: usize,
    /// Given by pointer, else computed in place.
    pub given: Option<&'a [u8]>,
    pub took: f64,
}

impl Compute<'_> {
    pub fn of(len: usize) -> Compute<'static> {
        Compute { len, given: None, took: 0.0 }
    }
}

unsafe extern "C-unwind" fn compute(
    user_data: *mut c_void,
    _: *const c_void,
    _: usize,
    out: *mut c_void,
) -> i32 {
    // SAFETY: `call` passes a Compute, and the library an output.
    unsafe {
        let compute = &mut *user_data.cast::<Compute>();
        let shape = [compute.len as i64];
        if let Some(given) = compute.given {
            npcache_output_write(
                out,
                null_mut(),
                UINT8,
                1,
                shape.as_ptr(),
                null_mut(),
                given.as_ptr().cast(),
            );
        } else {
            let place = npcache_output_alloc(out, null_mut(), UINT8, 1, shape.as_ptr(), 0);
            let start = crate::now();
            fill(std::slice::from_raw_parts_mut(place.cast(), compute.len));
            compute.took = crate::now() - start;
        }
        npcache_output_commit(out)
    }
}

/// The function whose results are cached.
pub fn fill(place: &mut [u8]) {
    place.fill(7);
}

impl Cache {
    /// With the default options but for these.
    pub fn new(path: &Path, options: &[(&CStr, &CStr)]) -> Cache {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut cache = null_mut();
        // SAFETY: valid pointers throughout.
        unsafe {
            let set = npcache_options_new();
            for (name, value) in options {
                assert_eq!(npcache_options_set(set, name.as_ptr(), value.as_ptr(), null_mut()), 0);
            }
            assert_eq!(npcache_new(path.as_ptr(), set, &mut cache, null_mut()), 0, "npcache_new");
            npcache_options_free(set);
        }
        Cache(cache)
    }

    /// With default options, as npcache_new alone.
    pub fn plain(path: &CStr) -> Cache {
        let mut cache = null_mut();
        // SAFETY: valid pointers throughout.
        let status = unsafe { npcache_new(path.as_ptr(), null_mut(), &mut cache, null_mut()) };
        assert_eq!(status, 0, "npcache_new");
        Cache(cache)
    }

    pub fn without_memory(path: &Path) -> Cache {
        Cache::new(path, &[(c"memory_bytes", c"0")])
    }

    pub fn call(&self, args: &[u8], how: &mut Compute<'_>) -> Buffer {
        let mut buffer = null_mut();
        let how: *mut Compute = how;
        // SAFETY: valid pointers throughout.
        let status = unsafe {
            npcache_call(
                self.0,
                NAME.as_ptr(),
                VERSION.as_ptr(),
                args.as_ptr().cast(),
                args.len(),
                compute,
                how.cast(),
                &mut buffer,
                null_mut(),
            )
        };
        assert_eq!(status, 0, "npcache_call");
        Buffer(buffer)
    }

    /// A call that has to be answered from `origin`.
    pub fn expect(&self, args: &[u8], len: usize, origin: i32) -> Buffer {
        let buffer = self.call(args, &mut Compute::of(len));
        assert_eq!((buffer.origin(), buffer.bytes().len()), (origin, len), "origin and length");
        buffer
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        // SAFETY: from npcache_new, freed once.
        unsafe { npcache_free(self.0) }
    }
}

impl Buffer {
    pub fn bytes(&self) -> &[u8] {
        let mut count = 0;
        // SAFETY: the buffer lives as long as the slice.
        unsafe {
            let data = npcache_buffer_data(self.0, 0, UINT8, &mut count);
            std::slice::from_raw_parts(data.cast(), count)
        }
    }

    pub fn origin(&self) -> i32 {
        // SAFETY: not released.
        unsafe { npcache_buffer_origin(self.0) }
    }

    pub fn is_stored(&self) -> bool {
        // SAFETY: not released.
        unsafe { npcache_buffer_stored(self.0) == 0 }
    }

    pub fn path(&self) -> PathBuf {
        // SAFETY: not released; stored results have a path.
        let path = unsafe { CStr::from_ptr(npcache_buffer_path(self.0)) };
        std::ffi::OsStr::from_bytes(path.to_bytes()).into()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: from npcache_call, released once.
        unsafe { npcache_buffer_release(self.0) }
    }
}
