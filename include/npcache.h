/*
 * npcache: a persistent memo table for functions that return n-dimensional numeric arrays.
 *
 * The first call of a function with given arguments computes; every later one, in any thread, process, program or
 * language that shares the directory, returns the stored arrays. README.md has a whole program of thirty lines.
 *
 * Generated from npcache-ffi by `make header`: do not edit.
 *
 * What can still be stale
 * -----------------------
 * A stored result is found by the function's name, its version and the argument bytes, and by nothing else. What
 * the function reads besides is not seen, and a change of it returns the old result:
 *
 *   - what a pointer inside the argument bytes points to: pass the data, by npcache_args_add_array or by its bytes;
 *   - user_data, globals, files, the environment, the time: pass them as arguments, or declare them with
 *     npcache_function_add_dependency;
 *   - the code of other libraries: the default version, the build ID, covers the one program or library that
 *     holds the function; add others with npcache_function_add_object;
 *   - with a version text of your own: every change of the code that you forget to give a new version.
 *
 * The other way round, bytes that mean nothing count: padding inside a struct is part of the argument bytes. Clear
 * it (memset before filling), or use the argument builder, or every call is a miss.
 *
 * Conventions
 * -----------
 * - Status: 0 is success, positive an outcome, negative an error. Where a function takes `err`, an error is also
 *   given as an object with a message, if `err` is not NULL; it is NULL otherwise. Free it with npcache_error_free.
 * - Out-parameters are always written: the result on success, NULL otherwise.
 * - `_new` has a `_free`, for one owner; `_retain` has a `_release`, for what is counted. NULL is a no-op for both
 *   kinds of freeing. Everything is freed by these functions alone, never by free().
 * - Text is UTF-8 and ends in NUL. Pointers that are given to a function are not kept by it.
 * - Unless said otherwise, a function can be called from any thread at any time, and objects can be handed to
 *   other threads; an object that a call changes must not be used by another call at the same time.
 */

#ifndef NPCACHE_H
#define NPCACHE_H

#include <stddef.h>
#include <stdint.h>

/**
 * npcache_clear: remove the directory as well.
 */
#define NPCACHE_CLEAR_REMOVE_DIR 1

/**
 * Arrays in C (row-major) order: the last index varies fastest.
 */
#define NPCACHE_ORDER_C 0

/**
 * Arrays in Fortran (column-major) order: the first index varies fastest.
 */
#define NPCACHE_ORDER_F 1

/**
 * 1 byte, 0 or 1.
 */
#define NPCACHE_BOOL 1

/**
 * int8_t.
 */
#define NPCACHE_INT8 2

/**
 * int16_t.
 */
#define NPCACHE_INT16 3

/**
 * int32_t.
 */
#define NPCACHE_INT32 4

/**
 * int64_t.
 */
#define NPCACHE_INT64 5

/**
 * uint8_t.
 */
#define NPCACHE_UINT8 6

/**
 * uint16_t.
 */
#define NPCACHE_UINT16 7

/**
 * uint32_t.
 */
#define NPCACHE_UINT32 8

/**
 * uint64_t.
 */
#define NPCACHE_UINT64 9

/**
 * IEEE 754 half precision.
 */
#define NPCACHE_FLOAT16 10

/**
 * float.
 */
#define NPCACHE_FLOAT32 11

/**
 * double.
 */
#define NPCACHE_FLOAT64 12

/**
 * Two floats: real, imaginary.
 */
#define NPCACHE_COMPLEX64 13

/**
 * Two doubles: real, imaginary.
 */
#define NPCACHE_COMPLEX128 14

/**
 * This call computed it.
 */
#define NPCACHE_ORIGIN_COMPUTED 1

/**
 * It was in this process's memory.
 */
#define NPCACHE_ORIGIN_MEMORY 2

/**
 * It was in the directory, or in that of the option lower: npcache_buffer_path tells.
 */
#define NPCACHE_ORIGIN_DISK 3

/**
 * Another thread computed it while this call waited.
 */
#define NPCACHE_ORIGIN_SHARED 4

/**
 * In the flags of a view: its data may be written to. See npcache_buffer_writable.
 */
#define NPCACHE_WRITABLE 2

/**
 * All is well, but something takes its time, or a directory allows less than another would.
 */
#define NPCACHE_LOG_INFO 1

/**
 * The cache does less than it was asked to: results are not stored, or computed more often than once.
 */
#define NPCACHE_LOG_WARNING 2

/**
 * A stored result is not what its function returns.
 */
#define NPCACHE_LOG_ERROR 3

/**
 * An open cache. It can be used from any thread, and after fork() in the child.
 */
typedef struct npcache npcache;

/**
 * The arguments of a call. What is added is read at once, and not kept.
 */
typedef struct npcache_args npcache_args;

/**
 * A result: one or several arrays, read-only, reference counted. It outlives the cache, a clear, and its file.
 */
typedef struct npcache_buffer npcache_buffer;

/**
 * An array that was read once, to be an argument of many calls.
 */
typedef struct npcache_digest npcache_digest;

/**
 * What went wrong: a status and a message. Belongs to who asked for it by a non-NULL `err`.
 */
typedef struct npcache_error npcache_error;

/**
 * A function whose calls are cached: its name, its version, and what else its results depend on.
 */
typedef struct npcache_function npcache_function;

/**
 * How to open a cache.
 */
typedef struct npcache_options npcache_options;

/**
 * One result under construction: belongs to the one caller that computes it.
 */
typedef struct npcache_output npcache_output;

/**
 * What became of a call: 0 is success, a positive number an outcome that is no error, a negative one an error.
 */
typedef int32_t npcache_status;

/**
 * A function whose results are cached.
 *
 * `user_data` and `args` are the caller's own pointers. It makes its arrays with npcache_output_alloc or
 * npcache_output_write, calls npcache_output_commit(out) and returns 0; any other number is its own error code. It may
 * call the cache again, and it may throw a C++ exception or call pthread_exit: nothing is stored then, and the next
 * caller that waits computes. (A longjmp out of it leaves others waiting for lock_timeout.)
 */
typedef int32_t (*npcache_fn)(void *user_data, const void *args, size_t args_len, npcache_output *out);

/**
 * How the calls of a function went, or of all: counted by all processes since the cache was made. Clearing does not set it
 * back.
 */
typedef struct {
    /**
     * Hits in a process's memory.
     */
    uint64_t memory;
    /**
     * Hits on disk.
     */
    uint64_t disk;
    /**
     * Calls that were given the result that another thread computed, or found, meanwhile.
     */
    uint64_t shared;
    /**
     * Hits in the cache below, of the option lower.
     */
    uint64_t lower;
    /**
     * Calls that found nothing and began to compute. One whose function failed, or returned what its language cannot store
     * as arrays, is in none of the next three.
     */
    uint64_t misses;
    /**
     * Results that were computed and stored.
     */
    uint64_t stored;
    /**
     * Results that were computed and, by the option min_compute_ms, kept in memory only.
     */
    uint64_t cheap;
    /**
     * Results that were computed and not stored for any other reason.
     */
    uint64_t unstored;
    /**
     * Entries that were removed to keep within bounds.
     */
    uint64_t evicted;
    /**
     * Entries that were found damaged, and were computed again or, by the option `promote`, replaced.
     */
    uint64_t corrupt;
    /**
     * Calls that waited for another caller which computed the same.
     */
    uint64_t waits;
    /**
     * Seconds that calls waited for other callers.
     */
    double seconds_waited;
    /**
     * Seconds that computing took, of all results.
     */
    double seconds_spent;
    /**
     * Seconds that computing what was found would have taken.
     */
    double seconds_saved;
    /**
     * 1; or 0 where only this process's calls are counted: on network file systems, and in a directory that it cannot
     * write.
     */
    uint64_t complete;
    /**
     * Hits that were computed again, by the option audit.
     */
    uint64_t audited;
    /**
     * Of these the ones whose stored result was another than was computed.
     */
    uint64_t differing;
} npcache_statistics;

/**
 * One array of a result. Its pointers are valid as long as the buffer.
 */
typedef struct {
    /**
     * The elements, read-only, aligned to 64 bytes. Not NULL, also without elements.
     */
    const void *data;
    /**
     * Bytes of all elements.
     */
    size_t nbytes;
    /**
     * `ndim` numbers.
     */
    const int64_t *shape;
    /**
     * Bytes from an element to the next along each dimension; `ndim` numbers.
     */
    const int64_t *strides;
    /**
     * numpy's name for the element type: "<f8".
     */
    const char *descr;
    /**
     * The array's name, or NULL.
     */
    const char *name;
    /**
     * NPCACHE_FLOAT64 and its like; 0 for a type that only `descr` tells.
     */
    int32_t dtype;
    /**
     * 0 to 32.
     */
    int32_t ndim;
    /**
     * Bytes of an element.
     */
    int64_t itemsize;
    /**
     * NPCACHE_ORDER_C or NPCACHE_ORDER_F; with NPCACHE_WRITABLE where `data` may be written to.
     */
    uint32_t flags;
} npcache_view;

/**
 * A function that hears what the cache has to say.
 *
 * `level` is NPCACHE_LOG_INFO or above; `message` is a line of UTF-8 without its end, for a person, and valid during the
 * call. It is called in whichever thread has something to say, at times in several at once. No lock is held: it may use
 * the cache. It must not throw an exception, and neither longjmp nor end its thread.
 */
typedef void (*npcache_log_fn)(void *user_data, int32_t level, const char *message);

/**
 * Done.
 */
#define NPCACHE_OK 0

/**
 * Another caller computes it and was not done within the time given to npcache_begin.
 */
#define NPCACHE_BUSY 1

/**
 * Not stored: the cache has no directory (path NULL, or mode=off).
 */
#define NPCACHE_UNSTORED_NO_DIRECTORY 2

/**
 * Not stored: the cache was opened with mode=readonly.
 */
#define NPCACHE_UNSTORED_READ_ONLY_MODE 3

/**
 * Not stored: the directory or its file system cannot be written by this process.
 */
#define NPCACHE_UNSTORED_NOT_WRITABLE 4

/**
 * Not stored: the disk, or a quota, is full, or less of it is free than min_free_bytes.
 */
#define NPCACHE_UNSTORED_DISK_FULL 5

/**
 * Not stored: the directory was removed while it was open.
 */
#define NPCACHE_UNSTORED_REMOVED 6

/**
 * Not stored: the cache was cleared after the call began.
 */
#define NPCACHE_UNSTORED_CLEARED 7

/**
 * Not stored: the process forked after the call began, and this is the child.
 */
#define NPCACHE_UNSTORED_FORKED 8

/**
 * Not stored: another fault of the file system.
 */
#define NPCACHE_UNSTORED_IO 9

/**
 * Not stored, but kept in memory: computing it took less than the option min_compute_ms.
 */
#define NPCACHE_UNSTORED_CHEAP 10

/**
 * Not stored: it does not fit within the cache's bounds. It is larger than max_bytes by itself, policy=none lets nothing go
 * for it, or too little could be removed in the time that there is for that.
 */
#define NPCACHE_UNSTORED_TOO_LARGE 11

/**
 * Not stored: the call was a hit, and by the option audit computed again; the stored result is another.
 */
#define NPCACHE_UNSTORED_DIFFERS 12

/**
 * An argument is NULL, out of range, not UTF-8, or unknown; the message says which.
 */
#define NPCACHE_ERR_ARGUMENT -1

/**
 * The user's function returned non-zero: npcache_error_function_code tells what.
 */
#define NPCACHE_ERR_FUNCTION -2

/**
 * The user's function returned 0, but did not call npcache_output_commit.
 */
#define NPCACHE_ERR_NOT_COMMITTED -3

/**
 * The operating system refused; the message names the operation and the path.
 */
#define NPCACHE_ERR_IO -4

/**
 * The directory cannot serve as a cache: it is a file, cannot be written, or has a newer format.
 */
#define NPCACHE_ERR_DIRECTORY -5

/**
 * The directory was emptied but not removed: it holds files that npcache did not make, named in the message.
 */
#define NPCACHE_ERR_NOT_EMPTY -6

/**
 * The version is NULL, but the function's code has no build ID.
 */
#define NPCACHE_ERR_BUILD_ID -7

/**
 * A dtype or descr that is not supported, or another than the array has.
 */
#define NPCACHE_ERR_DTYPE -8

/**
 * Out of memory.
 */
#define NPCACHE_ERR_MEMORY -9

/**
 * A bug in npcache.
 */
#define NPCACHE_ERR_INTERNAL -10

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of this header and library's ABI: 1. It rises when something that a compiled program uses changes, and so
 * does the number in the library's file name, `libnpcache.so.1`.
 */
uint32_t npcache_abi_version(void);

/**
 * What a status means, in a few words: a constant text, also for numbers that are no status.
 */
const char *npcache_status_string(npcache_status status);

/**
 * The status of an error, negative. 0 for NULL.
 *
 * The caller sees to it that: `error` is NULL or an error not yet freed.
 */
npcache_status npcache_error_code(const npcache_error *error);

/**
 * What the user's function returned, for NPCACHE_ERR_FUNCTION; 0 for other errors and for NULL.
 *
 * The caller sees to it that: `error` is NULL or an error not yet freed.
 */
int32_t npcache_error_function_code(const npcache_error *error);

/**
 * What went wrong and what to do about it, for a person. Lives until npcache_error_free. "" for NULL.
 *
 * The caller sees to it that: `error` is NULL or an error not yet freed.
 */
const char *npcache_error_message(const npcache_error *error);

/**
 * Frees an error. NULL is a no-op.
 *
 * The caller sees to it that: `error` is NULL or an error not yet freed.
 */
void npcache_error_free(npcache_error *error);

/**
 * New options, all at their defaults. Free them with npcache_options_free; npcache_new does not keep them.
 *
 * NULL only for want of memory.
 */
npcache_options *npcache_options_new(void);

/**
 * Sets the option `name` to `value`, a text:
 *
 * - `mode`: `readwrite` (default), `readonly` (look up, store nothing), `refresh` (compute every call and replace what
 *   is stored), `off` (compute every call);
 * - `lock_timeout`: seconds that a call waits for another one that computes the same, before it computes it too;
 *   600 by default;
 * - `flight`: with whom a call shares the work, `process` (callers in all processes; default), `thread` (in this
 *   process), or `off`: for functions that end in a barrier between their callers;
 * - `verify`: when the data of a stored result over 256 KiB is verified, `auto` (default: once in a process, and
 *   not where the file is known to be as it was written during this boot of the machine), `always` or `never`.
 *   Smaller ones always are;
 * - `memory_bytes`: how much of the results asked for in this process is kept in memory, `64M` or `1.5G`; an eighth of
 *   the machine's by default, 0 for nothing. All handles on a directory with the same `trust` and `umask` share one
 *   memory, that of the first;
 * - `min_compute_ms`: a result that took less than so many milliseconds is kept in memory only; 0 by default;
 * - `umask`: `process` (default), or `group`: the directory, where it is made, and what is made in it is for its whole
 *   group, whatever the umask;
 * - `log`: where messages are written that npcache_set_log describes, `none` (default), `stderr` or the path of a file, to
 *   whose end they are added. Of the whole process, from when the cache is opened;
 * - `audit`: which share of the hits is computed again and compared with what is stored, from 0 (default) to 1. A
 *   difference is logged as an NPCACHE_LOG_ERROR; the call then returns what it computed, and npcache_buffer_stored is
 *   NPCACHE_UNSTORED_DIFFERS. The stored result stays;
 * - `audit_ulps`: by how many units in the last place floating-point numbers may then differ; 0 by default, not by a bit;
 * - `trust`: `any` (default), or `owner`: a directory that another user but root owns or can write to is an error of
 *   npcache_new, and an entry of one is computed again. umask=group excludes it;
 * - `map`: whether stored results over 256 KiB are mapped or read: `auto` (default: read on network file systems, where another
 *   machine can take a mapped file away, which kills who touches it), `always` or `never`;
 * - `lower`: the directory of another cache, which is asked for what this one does not have and never written to: a site's,
 *   or a colleague's. Where it cannot be opened, it has nothing. A clear of this cache leaves it as it is, so what it
 *   has is found again;
 * - `promote`: `no` (default), or `yes`: what is found there is copied to this cache;
 * - `max_bytes`: at most this much is kept on disk, `50G`, counting each result in blocks of 4 KiB; what is least worth
 *   keeping goes when something is stored;
 * - `max_entries`: at most so many results are kept;
 * - `max_age`: what was computed longer ago is computed again, in seconds or as `12h`, `30d`, `1y`;
 * - `min_free_bytes`: so much of the file system stays free; 0 by default;
 * - `policy`: what goes first: `cost` (default: what is quickest to compute again for the room that it takes, and was not
 *   used for long), `lru` (what was not used for longest), or `none`: nothing, and what does not fit is not stored.
 *
 * These last five hold for what this cache stores and finds. What is not set is as npcache_configure has set it for all
 * who use the directory, which is no bound at first. `none` is no bound, whatever the directory says.
 *
 * In a run, the environment variable of that name in capitals after NPCACHE_ overrides it: NPCACHE_MODE=refresh.
 *
 * NPCACHE_ERR_ARGUMENT: there is no such option, or it takes no such value.
 *
 * The caller sees to it that: `options` is from npcache_options_new and not freed; `name` and `value` are C strings.
 */
npcache_status npcache_options_set(npcache_options *options,
                                   const char *name,
                                   const char *value,
                                   npcache_error **err);

/**
 * Frees options. NULL is a no-op.
 *
 * The caller sees to it that: `options` is NULL, or from npcache_options_new and not freed yet.
 */
void npcache_options_free(npcache_options *options);

/**
 * Opens the cache in a directory.
 *
 * - `path`: the directory; made with its parents if it is not there. NULL for a cache without one: every call
 *   computes.
 * - `options`: NULL for the defaults.
 * - `out`: the cache; free it with npcache_free.
 *
 * NPCACHE_ERR_DIRECTORY or NPCACHE_ERR_IO: the path is a file, cannot be made, is not a cache yet and cannot be
 * written, or was written by a newer format. A cache that cannot be written is no error: results in it are found,
 * others are computed.
 *
 * Costs a few dozen system calls, independent of what is stored.
 *
 * The caller sees to it that: `path` is NULL or a C string, `options` NULL or not freed, `out` and `err` NULL or writable.
 */
npcache_status npcache_new(const char *path,
                           const npcache_options *options,
                           npcache **out,
                           npcache_error **err);

/**
 * Closes a cache. Results, functions and outputs made with it stay usable. NULL is a no-op.
 *
 * The caller sees to it that: `cache` is NULL, or from npcache_new and not freed yet, and no call uses it.
 */
void npcache_free(npcache *cache);

/**
 * The result of a call of `function`: found, or computed now, by one caller while all others that ask for the
 * same, in any process, wait.
 *
 * - `name`: the function's name, 1 to 4,096 bytes.
 * - `version`: which code computes it. NULL for the build ID of the program or library that `function` is in: a rebuild
 *   that changes it computes anew. Any other text is your promise that results stay the same as long as it does, and
 *   shares them with other programs. "" promises it for ever.
 * - `args`, `args_len`: the argument bytes, which identify the call: equal bytes, equal call. NULL with 0 is
 *   legal. They are read before `function` is called, so it may overwrite them.
 * - `user_data`: given to `function`; not part of the key.
 * - `out`: the result; release it with npcache_buffer_release.
 *
 * 0 exactly when `*out` is set. That the result could not be stored is no error: npcache_buffer_stored tells.
 * NPCACHE_ERR_FUNCTION: `function` returned non-zero, and npcache_error_function_code gives it.
 * NPCACHE_ERR_NOT_COMMITTED: it returned 0 without a commit. NPCACHE_ERR_BUILD_ID: `version` is NULL and there is no
 * build ID (link with -Wl,--build-id; a callback of ctypes or Julia has none, give a version).
 *
 * Blocks while `function` runs, or while another caller computes the same, for at most the option lock_timeout; then
 * it computes too. `function` must not wait for other callers of the same key (an MPI barrier, say): with the option
 * flight=off it may, but then it hangs where one caller finds the result and another does not: docs/mpi.md has what holds.
 * Its exceptions pass through this call.
 *
 * The caller sees to it that: Pointers are NULL or valid, `args` for `args_len` bytes.
 */
npcache_status npcache_call(npcache *cache,
                            const char *name,
                            const char *version,
                            const void *args,
                            size_t args_len,
                            npcache_fn function,
                            void *user_data,
                            npcache_buffer **out,
                            npcache_error **err);

/**
 * Removes all stored results. What was computed before this returns, or is being computed, here or in any other process,
 * is not found afterwards. Only what npcache made is removed; buffers stay valid.
 *
 * - `flags`: 0, or NPCACHE_CLEAR_REMOVE_DIR to remove the directory too. The cache then computes every call.
 *
 * NPCACHE_ERR_NOT_EMPTY: the directory holds files that npcache did not make, some of which the message names. It
 * stays, an empty cache.
 *
 * The caller sees to it that: `cache` is not freed; `err` is NULL or writable.
 */
npcache_status npcache_clear(npcache *cache,
                             uint32_t flags,
                             npcache_error **err);

/**
 * Sets a bound for all who use the directory, now and in future, and do not set it by an option of their own.
 *
 * - `name`, `value`: max_bytes, max_entries, max_age, min_free_bytes or policy, as npcache_options_set takes them.
 *
 * It is kept in the directory. Where it makes the stored results too many, they go while others are stored, up to 64
 * each time. Other processes of this machine know of it from their next call.
 *
 * NPCACHE_ERR_ARGUMENT: there is no such bound, it takes no such value, or the cache has no directory or is open
 * read-only. NPCACHE_ERR_IO or NPCACHE_ERR_DIRECTORY: the directory cannot be written.
 *
 * The caller sees to it that: `cache` is not freed; `name` and `value` are C strings; `err` is NULL or writable.
 */
npcache_status npcache_configure(npcache *cache,
                                 const char *name,
                                 const char *value,
                                 npcache_error **err);

/**
 * npcache_clear for one function, by its name, with all its versions.
 *
 * The caller sees to it that: `cache` is not freed; `name` is a C string; `err` is NULL or writable.
 */
npcache_status npcache_clear_function(npcache *cache, const char *name, npcache_error **err);

/**
 * How the calls of a function went, or of all functions.
 *
 * - `function`: its name, for all its versions; NULL for all functions. From one start of the machine to the next, the first
 *   127 functions of a directory are counted by name, and the others together: NULL has them, their names have zeros.
 * - `statistics`, `statistics_size`: where to, and its size, sizeof(npcache_statistics): a program compiled against an
 *   older header gets the fields that it knows. All zeros on failure, and for a cache without a directory but for
 *   `complete`.
 *
 * A hit in memory is counted at once, but seen by other processes only after some thousand of a thread, with the next
 * call of the function that computes, or when the process exits; one that is killed, or ends by `_exit`, loses what was not
 * seen, unless it calls this before. Does not depend on how many entries there are.
 *
 * NPCACHE_ERR_IO: the files with the counts of earlier boots cannot be read.
 *
 * The caller sees to it that: `cache` is not freed; `function` is NULL or a C string; `statistics` is NULL or writable for `statistics_size` bytes;
 * `err` is NULL or writable.
 */
npcache_status npcache_stats(npcache *cache,
                             const char *function,
                             npcache_statistics *statistics,
                             size_t statistics_size,
                             npcache_error **err);

/**
 * Adds an array to the result and returns its memory, for the function to fill in place.
 *
 * - `array_name`: up to 1,024 bytes; NULL or "" for none. No two arrays of a result have the same.
 * - `dtype`: NPCACHE_FLOAT64 and its like.
 * - `ndim`, `shape`: 0 to 32 dimensions. NULL with 0 is one element.
 * - `flags`: NPCACHE_ORDER_C or NPCACHE_ORDER_F.
 *
 * The memory is zeroed, aligned to 64 bytes, and valid until the output is ended. Not NULL for an array without
 * elements. NULL: an argument is wrong or there is no memory; npcache_output_commit then returns the error, and the
 * call reports it.
 *
 * The caller sees to it that: `output` is not ended, and no other call uses it; `shape` has `ndim` numbers.
 */
void *npcache_output_alloc(npcache_output *output,
                           const char *array_name,
                           int32_t dtype,
                           int32_t ndim,
                           const int64_t *shape,
                           uint32_t flags);

/**
 * npcache_output_alloc for any fixed-size element type, by numpy's name for it: `>f4`, `<U10`, `|S5`, `<M8[ns]`, or
 * for a structure `[('x', '<f8'), ('label', '|S4')]`. Object types are refused.
 *
 * The caller sees to it that: As npcache_output_alloc; `descr` is a C string.
 */
void *npcache_output_alloc_descr(npcache_output *output,
                                 const char *array_name,
                                 const char *descr,
                                 int32_t ndim,
                                 const int64_t *shape,
                                 uint32_t flags);

/**
 * Adds a copy of an array to the result.
 *
 * - `array_name`, `dtype`, `ndim`, `shape`: as for npcache_output_alloc.
 * - `strides`: bytes from an element to the next along each dimension, of any sign; NULL for C order. The copy keeps
 *   Fortran order; any other is stored in C order.
 * - `data`: the element with all indices 0.
 *
 * An error is returned again by npcache_output_commit.
 *
 * The caller sees to it that: As npcache_output_alloc; `strides` is NULL or has `ndim` numbers, and every element that they reach can be read.
 */
npcache_status npcache_output_write(npcache_output *output,
                                    const char *array_name,
                                    int32_t dtype,
                                    int32_t ndim,
                                    const int64_t *shape,
                                    const int64_t *strides,
                                    const void *data);

/**
 * Records something about the run in the stored file, without it being part of the key: a library's version, the number
 * of threads. The last value of a name stays.
 *
 * - `name`: up to 1,024 bytes. `value`: up to 4,096 bytes.
 *
 * The caller sees to it that: `output` is not ended, and no other call uses it; `name` and `value` are C strings.
 */
npcache_status npcache_output_note(npcache_output *output,
                                   const char *name,
                                   const char *value);

/**
 * Declares the result whole. Without it nothing is stored, whatever the function returns.
 *
 * Any error: that of the first call on this output that failed; or NPCACHE_ERR_ARGUMENT, there is no array.
 *
 * The caller sees to it that: `output` is not ended, and no other call uses it.
 */
npcache_status npcache_output_commit(npcache_output *output);

/**
 * Says why there will be no result: the message reaches the caller's error. Nothing is stored, even if it is committed.
 *
 * The caller sees to it that: `output` is not ended, and no other call uses it; `message` is a C string.
 */
npcache_status npcache_output_fail(npcache_output *output,
                                   const char *message);

/**
 * The second half of a call: stores the result if it was committed, and hands it to those who wait for it; else the
 * next of them computes.
 *
 * - `todo`: from npcache_begin; gone afterwards, whatever this returns. Not one that npcache_call gave a function.
 *   NULL is an error.
 * - `out`: the result; release it with npcache_buffer_release. NULL: not wanted, it is stored only.
 *
 * 0: the result is whole. NPCACHE_ERR_NOT_COMMITTED: it was not committed. NPCACHE_ERR_FUNCTION: npcache_output_fail was
 * called. Otherwise the first error of a call on this output. In any thread.
 *
 * The caller sees to it that: `todo` is NULL or not ended; `out` and `err` are NULL or writable.
 */
npcache_status npcache_end(npcache_output *todo,
                           npcache_buffer **out,
                           npcache_error **err);

/**
 * How many arrays the result has. 0 for NULL.
 *
 * The caller sees to it that: `buffer` is NULL or not released.
 */
int32_t npcache_buffer_count(const npcache_buffer *buffer);

/**
 * Describes the `i`th array, in the order in which the function made them.
 *
 * - `view`, `view_size`: where to, and its size, sizeof(npcache_view): a program compiled against an older header gets
 *   the fields that it knows.
 *
 * NPCACHE_ERR_ARGUMENT: there is no `i`th array, or a pointer is NULL; `view` is zeroed then.
 *
 * The caller sees to it that: `buffer` is NULL or not released; `view` is NULL or writable for `view_size` bytes.
 */
npcache_status npcache_buffer_view(const npcache_buffer *buffer,
                                   int32_t i,
                                   npcache_view *view,
                                   size_t view_size);

/**
 * The elements of the `i`th array, in the order in which they lie in memory, if they are of type `dtype`.
 *
 * - `count`: how many, if not NULL; 0 on failure.
 *
 * NULL: there is no `i`th array, or its elements are of another type. A stored result is never converted.
 *
 * The caller sees to it that: `buffer` is NULL or not released; `count` is NULL or writable.
 */
const void *npcache_buffer_data(const npcache_buffer *buffer, int32_t i, int32_t dtype, size_t *count);

/**
 * Copies the elements of the `i`th array to memory of the caller's.
 *
 * - `dst`, `nbytes`: where to; `nbytes` is exactly that of the array.
 * - `order`: NPCACHE_ORDER_C or NPCACHE_ORDER_F, the order in which they are wanted.
 *
 * NPCACHE_ERR_ARGUMENT: there is no `i`th array, `dst` is NULL, or its size is another; nothing is written then.
 *
 * The caller sees to it that: `buffer` is NULL or not released; `dst` is NULL or writable for `nbytes` bytes.
 */
npcache_status npcache_buffer_read(const npcache_buffer *buffer,
                                   int32_t i,
                                   void *dst,
                                   size_t nbytes,
                                   uint32_t order);

/**
 * Where the result came from: NPCACHE_ORIGIN_COMPUTED, _MEMORY, _DISK or _SHARED. 0 for NULL.
 *
 * The caller sees to it that: `buffer` is NULL or not released.
 */
int32_t npcache_buffer_origin(const npcache_buffer *buffer);

/**
 * Whether the cache has the result: 0, or why not, an NPCACHE_UNSTORED status.
 *
 * The caller sees to it that: `buffer` is NULL or not released.
 */
npcache_status npcache_buffer_stored(const npcache_buffer *buffer);

/**
 * The absolute path of the result's file, which numpy.load reads; NULL where it is not stored. It may be removed at any
 * time. Valid as long as the buffer.
 *
 * The caller sees to it that: `buffer` is NULL or not released.
 */
const char *npcache_buffer_path(const npcache_buffer *buffer);

/**
 * One more reference to the result, to be released for itself. Returns `buffer`. Any thread, no lock.
 *
 * The caller sees to it that: `buffer` is NULL or not released.
 */
npcache_buffer *npcache_buffer_retain(const npcache_buffer *buffer);

/**
 * Gives a reference back; the last one frees the result. NULL is a no-op. Any thread, no lock.
 *
 * The caller sees to it that: `buffer` is NULL, or a reference that was not released yet.
 */
void npcache_buffer_release(npcache_buffer *buffer);

/**
 * A result of which only the caller has the memory, to write to: changes reach neither the cache nor anybody else. A
 * large stored result is mapped once more, and only the pages that are written to are copied. The flags of its views
 * have NPCACHE_WRITABLE, which says that `data` may be cast to a pointer to non-const.
 *
 * - `out`: the new result; release it with npcache_buffer_release. `buffer` stays as it is.
 *
 * The caller sees to it that: `buffer` is NULL or not released; `out` and `err` are NULL or writable.
 */
npcache_status npcache_buffer_writable(const npcache_buffer *buffer,
                                       npcache_buffer **out,
                                       npcache_error **err);

/**
 * How long computing the result took, in seconds: what a hit saved. 0 for NULL.
 *
 * The caller sees to it that: `buffer` is NULL or not released.
 */
double npcache_buffer_seconds(const npcache_buffer *buffer);

/**
 * The `i`th array as a `DLManagedTensorVersioned` of DLPack 1.0, without a copy: read-only by its flag, unless the
 * buffer is from npcache_buffer_writable. It has a reference to the result of its own.
 *
 * - `out`: a pointer to a `DLManagedTensorVersioned *`, whose `deleter` the consumer calls, once, from any thread.
 *
 * NPCACHE_ERR_DTYPE: its element type is none that DLPack has.
 *
 * The caller sees to it that: `buffer` is NULL or not released; `out` and `err` are NULL or writable.
 */
npcache_status npcache_buffer_to_dlpack(const npcache_buffer *buffer,
                                        int32_t i,
                                        void **out,
                                        npcache_error **err);

/**
 * Describes a function whose calls are cached.
 *
 * - `name`: 1 to 4,096 bytes.
 * - `version`: as for npcache_call. With NULL, the first npcache_function_add_object gives the version, the build ID
 *   of the code at that address, and has to come before npcache_begin.
 * - `out`: the function; free it with npcache_function_free. It keeps the cache open.
 *
 * The caller sees to it that: Pointers are NULL or valid.
 */
npcache_status npcache_function_new(npcache *cache,
                                    const char *name,
                                    const char *version,
                                    npcache_function **out,
                                    npcache_error **err);

/**
 * Declares that results depend on the code of the program or library that holds `address`: on its build ID. For a
 * function made without a version, the first such object gives the version.
 *
 * NPCACHE_ERR_BUILD_ID: there is none. Not while another call uses the function.
 *
 * The caller sees to it that: `function` is not freed; `err` is NULL or writable. `address` is not called or read.
 */
npcache_status npcache_function_add_object(npcache_function *function,
                                           void (*address)(void),
                                           npcache_error **err);

/**
 * Declares that results depend on `value`, called `name`: the version of a library, an environment variable's content.
 * Another value is another call. The order of declarations does not matter. Not while another call uses the function.
 *
 * The caller sees to it that: `function` is not freed; `name` and `value` are C strings; `err` is NULL or writable.
 */
npcache_status npcache_function_add_dependency(npcache_function *function,
                                               const char *name,
                                               const char *value,
                                               npcache_error **err);

/**
 * Sets an option of one function:
 *
 * - `flight`: as for npcache_options_set;
 * - `layout`: `equal` (default: arrays of equal contents are equal arguments, however they lie in memory) or `strict`
 *   (calls with arrays in C order, in Fortran order and with gaps are kept apart, for functions whose rounding
 *   depends on it).
 *
 * Not while another call uses the function.
 *
 * The caller sees to it that: `function` is not freed; `name` and `value` are C strings; `err` is NULL or writable.
 */
npcache_status npcache_function_set(npcache_function *function,
                                    const char *name,
                                    const char *value,
                                    npcache_error **err);

/**
 * Frees a function. Outputs and buffers made with it stay valid. NULL is a no-op.
 *
 * The caller sees to it that: `function` is NULL, or from npcache_function_new and not freed yet, and no call uses it.
 */
void npcache_function_free(npcache_function *function);

/**
 * The first half of a call: the result, or the task of computing it. For hosts with exceptions or a garbage collector,
 * which compute in their own language in between.
 *
 * - `args`: the arguments; NULL for none, as empty ones from npcache_args_new (which are not the same as zero ready
 *   bytes). They are not changed and can be used again.
 * - `wait_ms`: how long to wait while another caller computes the same: milliseconds, 0 not at all, -1 as long
 *   as the option lock_timeout says. Calls that come back busy one after the other count as one wait: after
 *   lock_timeout in all, this one computes too. So a loop of short waits can look for Ctrl-C in between.
 * - `hit`: the result, if there is one; release it with npcache_buffer_release.
 * - `todo`: else the task: make the arrays, npcache_output_commit, and in any case npcache_end.
 *
 * 0: exactly one of `*hit` and `*todo` is set. NPCACHE_BUSY: neither, another caller computes it and the wait is
 * over. An error: neither.
 *
 * The caller sees to it that: Pointers are NULL or valid.
 */
npcache_status npcache_begin(npcache_function *function,
                             const npcache_args *args,
                             int64_t wait_ms,
                             npcache_buffer **hit,
                             npcache_output **todo,
                             npcache_error **err);

/**
 * The stored result of a call, if there is one: never computes, never waits. In npcache_stats it is a hit where there is
 * one, and nothing where there is none.
 *
 * - `args`: NULL for none.
 * - `hit`: the result, to be released with npcache_buffer_release; NULL where it is not stored, which is no error.
 *
 * The caller sees to it that: Pointers are NULL or valid.
 */
npcache_status npcache_lookup(npcache_function *function,
                              const npcache_args *args,
                              npcache_buffer **hit,
                              npcache_error **err);

/**
 * Whether a call would be answered without computing: whether npcache_lookup would find its result. Never computes, never
 * waits, and is not counted in npcache_stats.
 *
 * - `args`: NULL for none.
 * - `cached`: 1 or 0.
 *
 * The caller sees to it that: Pointers are NULL or valid.
 */
npcache_status npcache_is_cached(npcache_function *function,
                                 const npcache_args *args,
                                 int32_t *cached,
                                 npcache_error **err);

/**
 * Removes the stored result of one call, if there is one. Calls of the function that are being computed meanwhile return
 * their results unstored.
 *
 * The caller sees to it that: Pointers are NULL or valid.
 */
npcache_status npcache_forget(npcache_function *function,
                              const npcache_args *args,
                              npcache_error **err);

/**
 * Says in words whether a call is stored, or why what is stored is of no use to it: over age, damaged. If there is nothing, which
 * stored calls of the function come nearest and what exactly differs: an argument, the version, a dependency. For a person; the
 * wording may change.
 *
 * - `cache`: where to look; NULL for the function's own.
 * - `args`: NULL for none.
 * - `out`: the text; free it with npcache_text_free.
 *
 * Reads what is stored of the call in whole, else the records of up to 10,000 stored calls, and of as many in the cache below,
 * of the option `lower`.
 *
 * The caller sees to it that: Pointers are NULL or valid.
 */
npcache_status npcache_explain(npcache *cache,
                               const npcache_function *function,
                               const npcache_args *args,
                               char **out,
                               npcache_error **err);

/**
 * Frees a text that this library returned for freeing. NULL is a no-op.
 *
 * The caller sees to it that: `text` is NULL, or from npcache_explain and not freed yet.
 */
void npcache_text_free(char *text);

/**
 * New arguments, without any yet: the npcache_args_add_ functions add them by position, npcache_args_key names the next one. The same
 * arguments have the same key in every language; docs/keys.md has the bytes.
 *
 * An addition that fails leaves the arguments unusable: npcache_begin returns the first error. So the status of each
 * need not be looked at.
 *
 * Free it with npcache_args_free. NULL only for want of memory.
 */
npcache_args *npcache_args_new(void);

/**
 * Arguments as ready bytes: the same call as npcache_call with these bytes. Nothing can be added to them.
 *
 * The caller sees to it that: `bytes` is NULL or readable for `len` bytes; `out` and `err` are NULL or writable.
 */
npcache_status npcache_args_from_bytes(const void *bytes,
                                       size_t len,
                                       npcache_args **out,
                                       npcache_error **err);

/**
 * Frees arguments. NULL is a no-op.
 *
 * The caller sees to it that: `args` is NULL or not freed yet.
 */
void npcache_args_free(npcache_args *args);

/**
 * Adds an integer. Integers of equal value are equal arguments, whatever their width.
 *
 * The caller sees to it that: `args` is not freed, and no other call uses it. The same holds for all npcache_args_ functions.
 */
npcache_status npcache_args_add_int(npcache_args *args, int64_t value);

/**
 * Adds an unsigned integer; equal to a signed one of equal value.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_add_uint(npcache_args *args, uint64_t value);

/**
 * Adds an integer of any width: `magnitude` is its absolute value, `len` bytes, most significant first; `negative` is 0
 * or its sign. Equal to the others of equal value.
 *
 * The caller sees to it that: As npcache_args_add_int; `magnitude` is readable for `len` bytes.
 */
npcache_status npcache_args_add_bigint(npcache_args *args,
                                       int32_t negative,
                                       const void *magnitude,
                                       size_t len);

/**
 * Adds a double, bit for bit: 0.0 and -0.0 differ, and so do NaNs of different payload. A double, a float and an
 * integer of equal value are three arguments.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_add_float(npcache_args *args,
                                      double value);

/**
 * Adds one value of type `dtype`: an integer type as npcache_args_add_int, NPCACHE_BOOL as npcache_args_add_bool, a
 * floating-point type of its own width bit for bit, a complex one as the array without dimensions.
 *
 * The caller sees to it that: As npcache_args_add_int; `value` points to one such value, of any alignment.
 */
npcache_status npcache_args_add_scalar(npcache_args *args,
                                       int32_t dtype,
                                       const void *value);

/**
 * Adds a truth value: false for 0, else true. Not equal to any integer.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_add_bool(npcache_args *args, int32_t value);

/**
 * Adds the value that stands for none: Python's None, Julia's nothing.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_add_null(npcache_args *args);

/**
 * Adds a text of `len` bytes of UTF-8, which may contain NUL. Not equal to the same bytes as npcache_args_add_bytes.
 *
 * The caller sees to it that: As npcache_args_add_int; `value` is readable for `len` bytes.
 */
npcache_status npcache_args_add_string(npcache_args *args,
                                       const char *value,
                                       size_t len);

/**
 * Adds `len` bytes. More than 1 MiB are hashed, not copied.
 *
 * The caller sees to it that: As npcache_args_add_int; `value` is readable for `len` bytes.
 */
npcache_status npcache_args_add_bytes(npcache_args *args, const void *value, size_t len);

/**
 * Adds a file by its contents, which are read now. Its name does not count.
 *
 * NPCACHE_ERR_IO: it cannot be read.
 *
 * The caller sees to it that: As npcache_args_add_int; `path` is a C string.
 */
npcache_status npcache_args_add_file(npcache_args *args, const char *path);

/**
 * Adds an array. Arrays of equal shape, dtype and elements are equal arguments, however they lie in memory.
 *
 * - `dtype`: NPCACHE_FLOAT64 and its like.
 * - `ndim`, `shape`: 0 to 32 dimensions. NULL with 0 is one element.
 * - `strides`: bytes from an element to the next along each dimension, of any sign; NULL for C order without gaps.
 * - `buffer`, `buffer_len`: the memory that the array lies in, and its bytes. NULL with 0 for an array without elements.
 * - `offset`: where in it the element with all indices 0 begins; 0 unless a stride is negative.
 *
 * NPCACHE_ERR_ARGUMENT: an element would lie outside the buffer; nothing is read then.
 *
 * More than 1 MiB are hashed on all cores, with threads that are gone when this returns.
 *
 * The caller sees to it that: As npcache_args_add_int; `buffer` is readable for `buffer_len` bytes and nobody changes it meanwhile.
 */
npcache_status npcache_args_add_array(npcache_args *args,
                                      int32_t dtype,
                                      int32_t ndim,
                                      const int64_t *shape,
                                      const int64_t *strides,
                                      const void *buffer,
                                      size_t buffer_len,
                                      size_t offset);

/**
 * npcache_args_add_array for any fixed-size element type, by numpy's name for it; see npcache_output_alloc_descr.
 *
 * The caller sees to it that: As npcache_args_add_array; `descr` is a C string.
 */
npcache_status npcache_args_add_array_descr(npcache_args *args,
                                            const char *descr,
                                            int32_t ndim,
                                            const int64_t *shape,
                                            const int64_t *strides,
                                            const void *buffer,
                                            size_t buffer_len,
                                            size_t offset);

/**
 * Adds an array that was read before: the same argument as the array itself.
 *
 * The caller sees to it that: As npcache_args_add_int; `digest` is not freed.
 */
npcache_status npcache_args_add_digest(npcache_args *args, const npcache_digest *digest);

/**
 * Begins a list: what is added up to npcache_args_end is in it. Lists and maps nest at most 64 levels deep.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_begin_list(npcache_args *args);

/**
 * Begins a map: npcache_args_key before each value, up to npcache_args_end. Its order does not count.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_begin_map(npcache_args *args);

/**
 * Ends the innermost list or map.
 *
 * The caller sees to it that: As npcache_args_add_int.
 */
npcache_status npcache_args_end(npcache_args *args);

/**
 * Names the value that is added next: a key in a map, or outside of all lists and maps a keyword argument, whose place
 * among the others does not count. Each name once.
 *
 * The caller sees to it that: As npcache_args_add_int; `name` is a C string.
 */
npcache_status npcache_args_key(npcache_args *args,
                                const char *name);

/**
 * Reads an array once, so that it can be an argument of many calls at no cost. It does not follow later changes of the
 * array. `descr` is numpy's name for the element type ("<f8" for a double); the others as for npcache_args_add_array.
 *
 * - `out`: the digest; free it with npcache_digest_free.
 *
 * The caller sees to it that: As npcache_args_add_array_descr; `out` and `err` are NULL or writable.
 */
npcache_status npcache_digest_new(const char *descr,
                                  int32_t ndim,
                                  const int64_t *shape,
                                  const int64_t *strides,
                                  const void *buffer,
                                  size_t buffer_len,
                                  size_t offset,
                                  npcache_digest **out,
                                  npcache_error **err);

/**
 * Frees a digest. NULL is a no-op.
 *
 * The caller sees to it that: `digest` is NULL or not freed yet.
 */
void npcache_digest_free(npcache_digest *digest);

/**
 * Writes the key of a call as 64 hexadecimal digits and a NUL: the name of its file.
 *
 * - `args`: NULL for none.
 * - `key`: room for 65 characters.
 *
 * The caller sees to it that: `function` and `args` are not freed; `key` is NULL or writable for 65 bytes; `err` is NULL or writable.
 */
npcache_status npcache_function_key(const npcache_function *function,
                                    const npcache_args *args,
                                    char *key,
                                    npcache_error **err);

/**
 * Has a function of the program's hear what npcache has to say in this process: that results are not stored, and why; that
 * a file was damaged; whom a call has been waiting for for over a second. No such fault is an error of a call, so nobody
 * would notice otherwise. Each is said once for a directory and a cause, or a file.
 *
 * - `listener`: takes the place of an earlier one; NULL for none, as at the beginning.
 * - `user_data`: given to `listener`.
 *
 * The option log, NPCACHE_LOG=stderr or NPCACHE_LOG=file, writes the same without a program's doing.
 *
 * An earlier listener may still be running in another thread when this returns, so what one uses is best kept for the
 * life of the process. A child of fork() keeps the listener.
 *
 * The caller sees to it that: `listener` is NULL or a function that can be called with `user_data` from any thread.
 */
void npcache_set_log(npcache_log_fn listener,
                     void *user_data);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NPCACHE_H */
