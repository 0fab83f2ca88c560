!> npcache for Fortran: the C functions of npcache.h under their own names, and a few of Fortran's own, npcache_f_*.
!>
!> A program compiles this file with itself, since a compiled module serves one compiler alone, and links libnpcache:
!>
!>     gfortran npcache.f90 program.f90 -lnpcache -Wl,--build-id
!>
!> It is Fortran 2008. What a function does, what it needs and what its status means stands in npcache.h; this is how
!> the two languages meet:
!>
!> - A handle (cache, function, args, todo, buffer, error, ...) is a type(c_ptr). c_null_ptr stands for C's NULL
!>   wherever npcache.h allows that for a handle, and for `path` of npcache_new and `version` of npcache_function_new and
!>   npcache_call, which are NULL or a text.
!> - A text that is given to a function ends in c_null_char: 'plate'//c_null_char. One that a function returns is a
!>   type(c_ptr); npcache_f_text makes a character(:) of it.
!> - The arrays of a result are counted from 0, as in C.
!> - Arrays are column-major, and both languages and the stored file must know: reserve results with NPCACHE_ORDER_F,
!>   and describe arguments by npcache_f_args_add_array. npcache_f_array returns a stored array's address only where its
!>   elements lie in Fortran's order.
!> - A result is read-only memory that others may share; npcache_buffer_writable makes a copy to write to.
!>
!> Left out: npcache_args_add_uint and _add_bigint, since Fortran has no such integers, and npcache_buffer_to_dlpack.
module npcache
    use, intrinsic :: iso_c_binding
    use, intrinsic :: iso_fortran_env, only: error_unit
    implicit none
    public
    private :: c_new, npcache_new_text, npcache_new_null
    private :: c_call, npcache_call_text, npcache_call_null
    private :: c_function_new, npcache_function_new_text, npcache_function_new_null
    private :: column_major, itemsize_of, error_unit

    ! npcache_clear: remove the directory as well.
    integer(c_int32_t), parameter :: NPCACHE_CLEAR_REMOVE_DIR = 1

    ! The order of an array's elements, and in the flags of a view: its data may be written to.
    integer(c_int32_t), parameter :: NPCACHE_ORDER_C = 0
    integer(c_int32_t), parameter :: NPCACHE_ORDER_F = 1
    integer(c_int32_t), parameter :: NPCACHE_WRITABLE = 2

    ! Element types. real(c_double) is NPCACHE_FLOAT64, complex(c_float_complex) is NPCACHE_COMPLEX64; logical(c_bool)
    ! is NPCACHE_BOOL, but other kinds of logical are none of them.
    integer(c_int32_t), parameter :: NPCACHE_BOOL = 1
    integer(c_int32_t), parameter :: NPCACHE_INT8 = 2
    integer(c_int32_t), parameter :: NPCACHE_INT16 = 3
    integer(c_int32_t), parameter :: NPCACHE_INT32 = 4
    integer(c_int32_t), parameter :: NPCACHE_INT64 = 5
    integer(c_int32_t), parameter :: NPCACHE_UINT8 = 6
    integer(c_int32_t), parameter :: NPCACHE_UINT16 = 7
    integer(c_int32_t), parameter :: NPCACHE_UINT32 = 8
    integer(c_int32_t), parameter :: NPCACHE_UINT64 = 9
    integer(c_int32_t), parameter :: NPCACHE_FLOAT16 = 10
    integer(c_int32_t), parameter :: NPCACHE_FLOAT32 = 11
    integer(c_int32_t), parameter :: NPCACHE_FLOAT64 = 12
    integer(c_int32_t), parameter :: NPCACHE_COMPLEX64 = 13
    integer(c_int32_t), parameter :: NPCACHE_COMPLEX128 = 14

    ! Where a result came from.
    integer(c_int32_t), parameter :: NPCACHE_ORIGIN_COMPUTED = 1
    integer(c_int32_t), parameter :: NPCACHE_ORIGIN_MEMORY = 2
    integer(c_int32_t), parameter :: NPCACHE_ORIGIN_DISK = 3
    integer(c_int32_t), parameter :: NPCACHE_ORIGIN_SHARED = 4

    ! How much what a log function is told matters.
    integer(c_int32_t), parameter :: NPCACHE_LOG_INFO = 1
    integer(c_int32_t), parameter :: NPCACHE_LOG_WARNING = 2
    integer(c_int32_t), parameter :: NPCACHE_LOG_ERROR = 3

    ! Statuses: 0 is success, a positive number an outcome that is no error, a negative one an error.
    integer(c_int32_t), parameter :: NPCACHE_OK = 0
    integer(c_int32_t), parameter :: NPCACHE_BUSY = 1
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_NO_DIRECTORY = 2
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_READ_ONLY_MODE = 3
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_NOT_WRITABLE = 4
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_DISK_FULL = 5
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_REMOVED = 6
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_CLEARED = 7
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_FORKED = 8
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_IO = 9
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_CHEAP = 10
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_TOO_LARGE = 11
    integer(c_int32_t), parameter :: NPCACHE_UNSTORED_DIFFERS = 12
    integer(c_int32_t), parameter :: NPCACHE_ERR_ARGUMENT = -1
    integer(c_int32_t), parameter :: NPCACHE_ERR_FUNCTION = -2
    integer(c_int32_t), parameter :: NPCACHE_ERR_NOT_COMMITTED = -3
    integer(c_int32_t), parameter :: NPCACHE_ERR_IO = -4
    integer(c_int32_t), parameter :: NPCACHE_ERR_DIRECTORY = -5
    integer(c_int32_t), parameter :: NPCACHE_ERR_NOT_EMPTY = -6
    integer(c_int32_t), parameter :: NPCACHE_ERR_BUILD_ID = -7
    integer(c_int32_t), parameter :: NPCACHE_ERR_DTYPE = -8
    integer(c_int32_t), parameter :: NPCACHE_ERR_MEMORY = -9
    integer(c_int32_t), parameter :: NPCACHE_ERR_INTERNAL = -10

    !> One array of a result. Its pointers are valid as long as the buffer.
    type, bind(C) :: npcache_view
        type(c_ptr) :: data
        integer(c_size_t) :: nbytes
        type(c_ptr) :: shape    ! ndim times integer(c_int64_t), as is strides
        type(c_ptr) :: strides
        type(c_ptr) :: descr
        type(c_ptr) :: name
        integer(c_int32_t) :: dtype
        integer(c_int32_t) :: ndim
        integer(c_int64_t) :: itemsize
        integer(c_int32_t) :: flags
    end type

    !> How calls went: in all processes, since the cache was made.
    type, bind(C) :: npcache_statistics
        integer(c_int64_t) :: memory
        integer(c_int64_t) :: disk
        integer(c_int64_t) :: shared
        integer(c_int64_t) :: lower
        integer(c_int64_t) :: misses
        integer(c_int64_t) :: stored
        integer(c_int64_t) :: cheap
        integer(c_int64_t) :: unstored
        integer(c_int64_t) :: evicted
        integer(c_int64_t) :: corrupt
        integer(c_int64_t) :: waits
        real(c_double) :: seconds_waited
        real(c_double) :: seconds_spent
        real(c_double) :: seconds_saved
        integer(c_int64_t) :: complete
        integer(c_int64_t) :: audited
        integer(c_int64_t) :: differing
    end type

    abstract interface
        !> A function for npcache_call, which takes its c_funloc. Returns 0, or an error code of its own.
        function npcache_fn(user_data, args, args_len, out) bind(C) result(code)
            import
            type(c_ptr), value :: user_data, args, out
            integer(c_size_t), value :: args_len
            integer(c_int32_t) :: code
        end function
    end interface

    ! Errors, messages and options

    interface
        !> `listener` is the c_funloc of a subroutine (user_data, level, message) bind(C), or c_null_funptr.
        subroutine npcache_set_log(listener, user_data) bind(C)
            import
            type(c_funptr), value :: listener
            type(c_ptr), value :: user_data
        end subroutine

        function npcache_abi_version() bind(C) result(version)
            import
            integer(c_int32_t) :: version
        end function

        function npcache_status_string(status) bind(C) result(text)
            import
            integer(c_int32_t), value :: status
            type(c_ptr) :: text
        end function

        function npcache_error_code(error) bind(C) result(status)
            import
            type(c_ptr), value :: error
            integer(c_int32_t) :: status
        end function

        function npcache_error_function_code(error) bind(C) result(code)
            import
            type(c_ptr), value :: error
            integer(c_int32_t) :: code
        end function

        function npcache_error_message(error) bind(C) result(text)
            import
            type(c_ptr), value :: error
            type(c_ptr) :: text
        end function

        subroutine npcache_error_free(error) bind(C)
            import
            type(c_ptr), value :: error
        end subroutine

        function npcache_options_new() bind(C) result(options)
            import
            type(c_ptr) :: options
        end function

        function npcache_options_set(options, name, value, error) bind(C) result(status)
            import
            type(c_ptr), value :: options
            character(kind=c_char), intent(in) :: name(*), value(*)
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_options_free(options) bind(C)
            import
            type(c_ptr), value :: options
        end subroutine
    end interface

    ! The cache. Where npcache.h allows NULL for a text, a generic name stands for two functions: one takes a text, one
    ! c_null_ptr. (A text in a generic call matches no `name(*)`, so these go through Fortran.)

    interface npcache_new
        procedure npcache_new_text, npcache_new_null
    end interface

    interface npcache_call
        procedure npcache_call_text, npcache_call_null
    end interface

    interface
        function c_new(path, options, cache, error) bind(C, name='npcache_new') result(status)
            import
            type(c_ptr), value :: path, options
            type(c_ptr), intent(out) :: cache, error
            integer(c_int32_t) :: status
        end function

        function c_call(cache, name, version, args, args_len, fn, user_data, buffer, error) &
                bind(C, name='npcache_call') result(status)
            import
            type(c_ptr), value :: cache, version, args, user_data
            character(kind=c_char), intent(in) :: name(*)
            integer(c_size_t), value :: args_len
            type(c_funptr), value :: fn
            type(c_ptr), intent(out) :: buffer, error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_free(cache) bind(C)
            import
            type(c_ptr), value :: cache
        end subroutine

        function npcache_clear(cache, flags, error) bind(C) result(status)
            import
            type(c_ptr), value :: cache
            integer(c_int32_t), value :: flags
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        function npcache_configure(cache, name, value, error) bind(C) result(status)
            import
            type(c_ptr), value :: cache
            character(kind=c_char), intent(in) :: name(*), value(*)
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        function npcache_clear_function(cache, name, error) bind(C) result(status)
            import
            type(c_ptr), value :: cache
            character(kind=c_char), intent(in) :: name(*)
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        !> `function`: the c_loc of a name that ends in c_null_char, or c_null_ptr for all functions.
        function npcache_stats(cache, function, statistics, statistics_size, error) bind(C) result(status)
            import
            type(c_ptr), value :: cache, function
            type(npcache_statistics), intent(out) :: statistics
            integer(c_size_t), value :: statistics_size
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function
    end interface

    ! Functions and the two halves of a call

    interface npcache_function_new
        procedure npcache_function_new_text, npcache_function_new_null
    end interface

    interface
        function c_function_new(cache, name, version, function, error) &
                bind(C, name='npcache_function_new') result(status)
            import
            type(c_ptr), value :: cache, version
            character(kind=c_char), intent(in) :: name(*)
            type(c_ptr), intent(out) :: function, error
            integer(c_int32_t) :: status
        end function

        ! `address` is the c_funloc of a bind(C) procedure of a module of the program or library that is meant; an
        ! internal procedure's is made at run time, and lies in none.
        function npcache_function_add_object(function, address, error) bind(C) result(status)
            import
            type(c_ptr), value :: function
            type(c_funptr), value :: address
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        function npcache_function_add_dependency(function, name, value, error) bind(C) result(status)
            import
            type(c_ptr), value :: function
            character(kind=c_char), intent(in) :: name(*), value(*)
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        function npcache_function_set(function, name, value, error) bind(C) result(status)
            import
            type(c_ptr), value :: function
            character(kind=c_char), intent(in) :: name(*), value(*)
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        ! `key` has room for 65 characters.
        function npcache_function_key(function, args, key, error) bind(C) result(status)
            import
            type(c_ptr), value :: function, args
            character(kind=c_char), intent(out) :: key(*)
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_function_free(function) bind(C)
            import
            type(c_ptr), value :: function
        end subroutine

        function npcache_begin(function, args, wait_ms, hit, todo, error) bind(C) result(status)
            import
            type(c_ptr), value :: function, args
            integer(c_int64_t), value :: wait_ms
            type(c_ptr), intent(out) :: hit, todo, error
            integer(c_int32_t) :: status
        end function

        function npcache_end(todo, buffer, error) bind(C) result(status)
            import
            type(c_ptr), value :: todo
            type(c_ptr), intent(out) :: buffer, error
            integer(c_int32_t) :: status
        end function

        function npcache_lookup(function, args, hit, error) bind(C) result(status)
            import
            type(c_ptr), value :: function, args
            type(c_ptr), intent(out) :: hit, error
            integer(c_int32_t) :: status
        end function

        function npcache_is_cached(function, args, cached, error) bind(C) result(status)
            import
            type(c_ptr), value :: function, args
            integer(c_int32_t), intent(out) :: cached
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        function npcache_forget(function, args, error) bind(C) result(status)
            import
            type(c_ptr), value :: function, args
            type(c_ptr), intent(out) :: error
            integer(c_int32_t) :: status
        end function

        function npcache_explain(cache, function, args, text, error) bind(C) result(status)
            import
            type(c_ptr), value :: cache, function, args
            type(c_ptr), intent(out) :: text, error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_text_free(text) bind(C)
            import
            type(c_ptr), value :: text
        end subroutine
    end interface

    ! Arguments. An addition that fails is returned again by npcache_begin: the status of each need not be looked at.

    interface
        function npcache_args_new() bind(C) result(args)
            import
            type(c_ptr) :: args
        end function

        function npcache_args_from_bytes(bytes, length, args, error) bind(C) result(status)
            import
            type(c_ptr), value :: bytes
            integer(c_size_t), value :: length
            type(c_ptr), intent(out) :: args, error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_args_free(args) bind(C)
            import
            type(c_ptr), value :: args
        end subroutine

        function npcache_args_add_int(args, value) bind(C) result(status)
            import
            type(c_ptr), value :: args
            integer(c_int64_t), value :: value
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_float(args, value) bind(C) result(status)
            import
            type(c_ptr), value :: args
            real(c_double), value :: value
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_scalar(args, dtype, value) bind(C) result(status)
            import
            type(c_ptr), value :: args, value
            integer(c_int32_t), value :: dtype
            integer(c_int32_t) :: status
        end function

        ! Of a logical: merge(1_c_int32_t, 0_c_int32_t, value).
        function npcache_args_add_bool(args, value) bind(C) result(status)
            import
            type(c_ptr), value :: args
            integer(c_int32_t), value :: value
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_null(args) bind(C) result(status)
            import
            type(c_ptr), value :: args
            integer(c_int32_t) :: status
        end function

        ! Takes a length, and so no c_null_char: npcache_args_add_string(args, text, len(text, c_size_t)).
        function npcache_args_add_string(args, value, length) bind(C) result(status)
            import
            type(c_ptr), value :: args
            character(kind=c_char), intent(in) :: value(*)
            integer(c_size_t), value :: length
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_bytes(args, value, length) bind(C) result(status)
            import
            type(c_ptr), value :: args, value
            integer(c_size_t), value :: length
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_file(args, path) bind(C) result(status)
            import
            type(c_ptr), value :: args
            character(kind=c_char), intent(in) :: path(*)
            integer(c_int32_t) :: status
        end function

        ! With `strides`, since without them C has another order: see npcache_f_args_add_array.
        function npcache_args_add_array(args, dtype, ndim, shape, strides, buffer, buffer_len, offset) bind(C) &
                result(status)
            import
            type(c_ptr), value :: args, buffer
            integer(c_int32_t), value :: dtype, ndim
            integer(c_int64_t), intent(in) :: shape(*), strides(*)
            integer(c_size_t), value :: buffer_len, offset
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_array_descr(args, descr, ndim, shape, strides, buffer, buffer_len, offset) bind(C) &
                result(status)
            import
            type(c_ptr), value :: args, buffer
            character(kind=c_char), intent(in) :: descr(*)
            integer(c_int32_t), value :: ndim
            integer(c_int64_t), intent(in) :: shape(*), strides(*)
            integer(c_size_t), value :: buffer_len, offset
            integer(c_int32_t) :: status
        end function

        function npcache_args_add_digest(args, digest) bind(C) result(status)
            import
            type(c_ptr), value :: args, digest
            integer(c_int32_t) :: status
        end function

        function npcache_args_begin_list(args) bind(C) result(status)
            import
            type(c_ptr), value :: args
            integer(c_int32_t) :: status
        end function

        function npcache_args_begin_map(args) bind(C) result(status)
            import
            type(c_ptr), value :: args
            integer(c_int32_t) :: status
        end function

        function npcache_args_end(args) bind(C) result(status)
            import
            type(c_ptr), value :: args
            integer(c_int32_t) :: status
        end function

        function npcache_args_key(args, name) bind(C) result(status)
            import
            type(c_ptr), value :: args
            character(kind=c_char), intent(in) :: name(*)
            integer(c_int32_t) :: status
        end function

        function npcache_digest_new(descr, ndim, shape, strides, buffer, buffer_len, offset, digest, error) bind(C) &
                result(status)
            import
            character(kind=c_char), intent(in) :: descr(*)
            integer(c_int32_t), value :: ndim
            integer(c_int64_t), intent(in) :: shape(*), strides(*)
            type(c_ptr), value :: buffer
            integer(c_size_t), value :: buffer_len, offset
            type(c_ptr), intent(out) :: digest, error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_digest_free(digest) bind(C)
            import
            type(c_ptr), value :: digest
        end subroutine
    end interface

    ! A result under construction. An array without a name is called c_null_char.

    interface
        function npcache_output_alloc(output, array_name, dtype, ndim, shape, flags) bind(C) result(address)
            import
            type(c_ptr), value :: output
            character(kind=c_char), intent(in) :: array_name(*)
            integer(c_int32_t), value :: dtype, ndim, flags
            integer(c_int64_t), intent(in) :: shape(*)
            type(c_ptr) :: address
        end function

        function npcache_output_alloc_descr(output, array_name, descr, ndim, shape, flags) bind(C) result(address)
            import
            type(c_ptr), value :: output
            character(kind=c_char), intent(in) :: array_name(*), descr(*)
            integer(c_int32_t), value :: ndim, flags
            integer(c_int64_t), intent(in) :: shape(*)
            type(c_ptr) :: address
        end function

        ! With `strides`, since without them C has another order: see npcache_f_output_write.
        function npcache_output_write(output, array_name, dtype, ndim, shape, strides, data) bind(C) result(status)
            import
            type(c_ptr), value :: output, data
            character(kind=c_char), intent(in) :: array_name(*)
            integer(c_int32_t), value :: dtype, ndim
            integer(c_int64_t), intent(in) :: shape(*), strides(*)
            integer(c_int32_t) :: status
        end function

        function npcache_output_note(output, name, value) bind(C) result(status)
            import
            type(c_ptr), value :: output
            character(kind=c_char), intent(in) :: name(*), value(*)
            integer(c_int32_t) :: status
        end function

        function npcache_output_commit(output) bind(C) result(status)
            import
            type(c_ptr), value :: output
            integer(c_int32_t) :: status
        end function

        function npcache_output_fail(output, message) bind(C) result(status)
            import
            type(c_ptr), value :: output
            character(kind=c_char), intent(in) :: message(*)
            integer(c_int32_t) :: status
        end function
    end interface

    ! A result

    interface
        function npcache_buffer_count(buffer) bind(C) result(count)
            import
            type(c_ptr), value :: buffer
            integer(c_int32_t) :: count
        end function

        ! `view_size` is c_sizeof(view).
        function npcache_buffer_view(buffer, i, view, view_size) bind(C) result(status)
            import
            type(c_ptr), value :: buffer
            integer(c_int32_t), value :: i
            type(npcache_view), intent(out) :: view
            integer(c_size_t), value :: view_size
            integer(c_int32_t) :: status
        end function

        function npcache_buffer_data(buffer, i, dtype, count) bind(C) result(address)
            import
            type(c_ptr), value :: buffer
            integer(c_int32_t), value :: i, dtype
            integer(c_size_t), intent(out) :: count
            type(c_ptr) :: address
        end function

        function npcache_buffer_read(buffer, i, dst, nbytes, order) bind(C) result(status)
            import
            type(c_ptr), value :: buffer, dst
            integer(c_int32_t), value :: i, order
            integer(c_size_t), value :: nbytes
            integer(c_int32_t) :: status
        end function

        function npcache_buffer_origin(buffer) bind(C) result(origin)
            import
            type(c_ptr), value :: buffer
            integer(c_int32_t) :: origin
        end function

        function npcache_buffer_stored(buffer) bind(C) result(status)
            import
            type(c_ptr), value :: buffer
            integer(c_int32_t) :: status
        end function

        function npcache_buffer_path(buffer) bind(C) result(text)
            import
            type(c_ptr), value :: buffer
            type(c_ptr) :: text
        end function

        function npcache_buffer_seconds(buffer) bind(C) result(seconds)
            import
            type(c_ptr), value :: buffer
            real(c_double) :: seconds
        end function

        function npcache_buffer_retain(buffer) bind(C) result(same)
            import
            type(c_ptr), value :: buffer
            type(c_ptr) :: same
        end function

        function npcache_buffer_writable(buffer, copy, error) bind(C) result(status)
            import
            type(c_ptr), value :: buffer
            type(c_ptr), intent(out) :: copy, error
            integer(c_int32_t) :: status
        end function

        subroutine npcache_buffer_release(buffer) bind(C)
            import
            type(c_ptr), value :: buffer
        end subroutine
    end interface

contains

    function npcache_new_text(path, options, cache, error) result(status)
        character(*, c_char), intent(in), target :: path
        type(c_ptr), intent(in) :: options
        type(c_ptr), intent(out) :: cache, error
        integer(c_int32_t) :: status

        status = c_new(c_loc(path), options, cache, error)
    end function

    function npcache_new_null(path, options, cache, error) result(status)
        type(c_ptr), intent(in) :: path, options
        type(c_ptr), intent(out) :: cache, error
        integer(c_int32_t) :: status

        status = c_new(path, options, cache, error)
    end function

    function npcache_call_text(cache, name, version, args, args_len, fn, user_data, buffer, error) result(status)
        type(c_ptr), intent(in) :: cache, args, user_data
        character(*, c_char), intent(in) :: name
        character(*, c_char), intent(in), target :: version
        integer(c_size_t), intent(in) :: args_len
        type(c_funptr), intent(in) :: fn
        type(c_ptr), intent(out) :: buffer, error
        integer(c_int32_t) :: status

        status = c_call(cache, name, c_loc(version), args, args_len, fn, user_data, buffer, error)
    end function

    function npcache_call_null(cache, name, version, args, args_len, fn, user_data, buffer, error) result(status)
        type(c_ptr), intent(in) :: cache, version, args, user_data
        character(*, c_char), intent(in) :: name
        integer(c_size_t), intent(in) :: args_len
        type(c_funptr), intent(in) :: fn
        type(c_ptr), intent(out) :: buffer, error
        integer(c_int32_t) :: status

        status = c_call(cache, name, version, args, args_len, fn, user_data, buffer, error)
    end function

    function npcache_function_new_text(cache, name, version, function, error) result(status)
        type(c_ptr), intent(in) :: cache
        character(*, c_char), intent(in) :: name
        character(*, c_char), intent(in), target :: version
        type(c_ptr), intent(out) :: function, error
        integer(c_int32_t) :: status

        status = c_function_new(cache, name, c_loc(version), function, error)
    end function

    function npcache_function_new_null(cache, name, version, function, error) result(status)
        type(c_ptr), intent(in) :: cache, version
        character(*, c_char), intent(in) :: name
        type(c_ptr), intent(out) :: function, error
        integer(c_int32_t) :: status

        status = c_function_new(cache, name, version, function, error)
    end function

    !> A text of C's as one of Fortran's, without its NUL; empty for c_null_ptr.
    function npcache_f_text(pointer) result(text)
        type(c_ptr), intent(in) :: pointer
        character(:), allocatable :: text
        character(kind=c_char), pointer :: letters(:)
        integer :: i
        interface
            function strlen(pointer) bind(C) result(length)
                import
                type(c_ptr), value :: pointer
                integer(c_size_t) :: length
            end function
        end interface

        text = ''
        if (.not. c_associated(pointer)) return
        call c_f_pointer(pointer, letters, [strlen(pointer)])
        deallocate (text)
        allocate (character(size(letters)) :: text)
        do i = 1, size(letters)
            text(i:i) = letters(i)
        end do
    end function

    !> Prints what went wrong and ends the program with exit status 1, if `status` is an error. Frees `error`.
    subroutine npcache_f_check(status, error)
        integer(c_int32_t), intent(in) :: status
        type(c_ptr), intent(inout) :: error

        if (status < 0) then
            if (c_associated(error)) then
                write (error_unit, '(2a)') 'npcache: ', npcache_f_text(npcache_error_message(error))
            else
                write (error_unit, '(2a)') 'npcache: ', npcache_f_text(npcache_status_string(status))
            end if
            flush (error_unit)
            error stop 1
        end if
        call npcache_error_free(error)
        error = c_null_ptr
    end subroutine

    !> Where the elements of the `i`th array of a result are, and its extents, for
    !>
    !>     real(c_double), pointer :: table(:, :)
    !>     integer(c_int64_t) :: extents(2)
    !>     status = npcache_f_array(buffer, 0, NPCACHE_FLOAT64, extents, address)
    !>     if (status == NPCACHE_OK) call c_f_pointer(address, table, extents)
    !>
    !> Nothing is copied: `table` is valid until `buffer` is released, and not to be written to.
    !>
    !> NPCACHE_ERR_DTYPE: its elements are of another type. NPCACHE_ERR_ARGUMENT: there is no `i`th array, it has not
    !> as many dimensions as `extents` elements, or it was stored in C's order; npcache_buffer_read with
    !> NPCACHE_ORDER_F copies it into Fortran's. `address` is c_null_ptr and `extents` zero then.
    function npcache_f_array(buffer, i, dtype, extents, address) result(status)
        type(c_ptr), intent(in) :: buffer
        integer(c_int32_t), intent(in) :: i, dtype
        integer(c_int64_t), intent(out) :: extents(:)
        type(c_ptr), intent(out) :: address
        integer(c_int32_t) :: status
        type(npcache_view) :: view
        integer(c_int64_t), pointer :: shape(:), strides(:)

        address = c_null_ptr
        extents = 0
        status = npcache_buffer_view(buffer, i, view, c_sizeof(view))
        if (status /= NPCACHE_OK) return
        if (view%dtype /= dtype) then
            status = NPCACHE_ERR_DTYPE
            return
        end if
        status = NPCACHE_ERR_ARGUMENT
        if (view%ndim /= size(extents)) return
        if (view%ndim > 0) then
            call c_f_pointer(view%shape, shape, [view%ndim])
            call c_f_pointer(view%strides, strides, [view%ndim])
            ! The stride along a dimension of one element is never taken.
            if (all(shape > 0) .and. any(shape > 1 .and. strides /= column_major(view%itemsize, shape))) return
            extents = shape
        end if
        address = view%data
        status = NPCACHE_OK
    end function

    !> Adds an array argument: npcache_f_args_add_array(args, NPCACHE_FLOAT64, shape(a, c_int64_t), c_loc(a)).
    !>
    !> `address` is that of a contiguous array of these extents. Equal to an array of the same shape and elements in any
    !> language, however it lies in memory there.
    function npcache_f_args_add_array(args, dtype, extents, address) result(status)
        type(c_ptr), intent(in) :: args, address
        integer(c_int32_t), intent(in) :: dtype
        integer(c_int64_t), intent(in) :: extents(:)
        integer(c_int32_t) :: status
        integer(c_int64_t) :: itemsize

        itemsize = itemsize_of(dtype)
        status = npcache_args_add_array(args, dtype, size(extents, kind=c_int32_t), extents, &
            column_major(itemsize, extents), address, int(itemsize * product(extents), c_size_t), 0_c_size_t)
    end function

    !> Adds a copy of an array to a result, in Fortran's order; the arguments are those of npcache_f_args_add_array. Use
    !> npcache_output_alloc to fill the array in place.
    function npcache_f_output_write(output, array_name, dtype, extents, address) result(status)
        type(c_ptr), intent(in) :: output, address
        character(kind=c_char), intent(in) :: array_name(*)
        integer(c_int32_t), intent(in) :: dtype
        integer(c_int64_t), intent(in) :: extents(:)
        integer(c_int32_t) :: status

        status = npcache_output_write(output, array_name, dtype, size(extents, kind=c_int32_t), extents, &
            column_major(itemsize_of(dtype), extents), address)
    end function

    ! Bytes from an element to the next along each dimension.
    pure function column_major(itemsize, extents) result(strides)
        integer(c_int64_t), intent(in) :: itemsize, extents(:)
        integer(c_int64_t) :: strides(size(extents))
        integer :: k

        do k = 1, size(extents)
            strides(k) = itemsize * product(extents(:k - 1))
        end do
    end function

    ! 0 for what is no type; the C function that is given the type refuses it.
    pure function itemsize_of(dtype) result(itemsize)
        integer(c_int32_t), intent(in) :: dtype
        integer(c_int64_t) :: itemsize

        select case (dtype)
        case (NPCACHE_BOOL, NPCACHE_INT8, NPCACHE_UINT8)
            itemsize = 1
        case (NPCACHE_INT16, NPCACHE_UINT16, NPCACHE_FLOAT16)
            itemsize = 2
        case (NPCACHE_INT32, NPCACHE_UINT32, NPCACHE_FLOAT32)
            itemsize = 4
        case (NPCACHE_INT64, NPCACHE_UINT64, NPCACHE_FLOAT64, NPCACHE_COMPLEX64)
            itemsize = 8
        case (NPCACHE_COMPLEX128)
            itemsize = 16
        case default
            itemsize = 0
        end select
    end function
end module
