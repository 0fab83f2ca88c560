//! Results for other array libraries, without a copy: DLPack 1.0, <https://dmlc.github.io/dlpack/latest/c_api.html>.

use std::ffi::c_void;

use npcache_core::{Buffer, DType, Error, Result};

use crate::buffer::{array, npcache_buffer};
use crate::error::npcache_error;
use crate::status::{NPCACHE_OK, npcache_status};
use crate::{answer, guard, required};

// The structures of dlpack.h, which a C program includes itself.

#[repr(C)]
struct ManagedTensor {
    version: [u32; 2],
    manager: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut ManagedTensor)>,
    flags: u64,
    tensor: Tensor,
}

#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    /// In elements.
    strides: *mut i64,
    byte_offset: u64,
}

const CPU: i32 = 1;
const READ_ONLY: u64 = 1;

/// What a tensor's pointers point into.
struct Owner {
    _buffer: Buffer,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// The `i`th array as a `DLManagedTensorVersioned` of DLPack 1.0, without a copy: read-only by its flag, unless the
/// buffer is from npcache_buffer_writable. It has a reference to the result of its own.
///
/// - `out`: a pointer to a `DLManagedTensorVersioned *`, whose `deleter` the consumer calls, once, from any thread.
///
/// NPCACHE_ERR_DTYPE: its element type is none that DLPack has.
///
/// # Safety
///
/// `buffer` is NULL or not released; `out` and `err` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn npcache_buffer_to_dlpack(
    buffer: *const npcache_buffer,
    i: i32,
    out: *mut *mut c_void,
    err: *mut *mut npcache_error,
) -> npcache_status {
    // SAFETY: the caller's promises, for each pointer.
    unsafe {
        answer(err, || {
            required(out, "out")?;
            let (buffer, i) = array(buffer, i)?;
            out.write(Box::into_raw(managed_tensor(&buffer, i)?).cast());
            Ok(NPCACHE_OK)
        })
    }
}

fn managed_tensor(buffer: &Buffer, i: usize) -> Result<Box<ManagedTensor>> {
    let array = &buffer.arrays()[i];
    let dtype = array.dtype().ok_or_else(|| {
        Error::Dtype(format!(
            "array {i} has elements of dtype {}, which DLPack has not",
            array.descr().as_str()
        ))
    })?;
    let code = match dtype {
        DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64 => 0,
        DType::UInt8 | DType::UInt16 | DType::UInt32 | DType::UInt64 => 1,
        DType::Float16 | DType::Float32 | DType::Float64 => 2,
        DType::Complex64 | DType::Complex128 => 5,
        DType::Bool => 6,
    };
    let itemsize = dtype.itemsize();
    let mut owner = Box::new(Owner {
        _buffer: buffer.clone(),
        shape: array.shape().to_vec(),
        strides: array.strides().iter().map(|step| step / itemsize as i64).collect(),
    });
    let tensor = Tensor {
        data: buffer.bytes(i).as_ptr().cast_mut().cast(),
        device_type: CPU,
        device_id: 0,
        ndim: array.shape().len() as i32,
        code,
        bits: 8 * itemsize as u8,
        lanes: 1,
        shape: owner.shape.as_mut_ptr(),
        strides: owner.strides.as_mut_ptr(),
        byte_offset: 0,
    };
    Ok(Box::new(ManagedTensor {
        version: [1, 0],
        manager: Box::into_raw(owner).cast(),
        deleter: Some(delete),
        flags: if buffer.is_writable() { 0 } else { READ_ONLY },
        tensor,
    }))
}

unsafe extern "C" fn delete(tensor: *mut ManagedTensor) {
    guard((), || {
        if !tensor.is_null() {
            // SAFETY: DLPack's consumer passes what `managed_tensor` made, once.
            unsafe {
                let tensor = Box::from_raw(tensor);
                drop(Box::from_raw(tensor.manager.cast::<Owner>()));
            }
        }
    });
}
