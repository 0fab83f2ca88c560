/*
 * npcache for C++11 and later: owners for the C handles, and exceptions for the C errors.
 *
 * A task from npcache_begin that an exception skips would leave everybody who waits for its result hanging; held by
 * npcache::output it is given up, and the next of them computes. Relies on npcache.h and the standard library alone,
 * and needs nothing linked but libnpcache.
 *
 *     npcache::cache cache = npcache::open("results");
 *     npcache::function solve = npcache::describe(cache, "solve", "1");
 *     npcache::begun call = npcache::begin(solve);
 *     if (call.todo) {
 *         double *x = static_cast<double *>(npcache_output_alloc(call.todo.get(), nullptr, NPCACHE_FLOAT64, ...));
 *         compute(x);                              // may throw
 *         call.hit = npcache::commit_and_end(std::move(call.todo));
 *     }
 *
 * A function that is given to npcache_call needs none of this: its exceptions pass through the call, which gives the
 * task up on their way.
 *
 * `npcache` is a struct, whose members are what would stand in a namespace, because C has that name for its handle and
 * C++ allows no namespace beside a struct.
 */

#ifndef NPCACHE_HPP
#define NPCACHE_HPP

#include "npcache.h"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

struct npcache final {
    npcache() = delete;
    ~npcache() = delete;

    /* An owner is a std::unique_ptr to a C handle, of the size of a pointer; get() is the handle for the C functions. */

    template <typename Handle, void (*free)(Handle *)> struct deleter {
        void operator()(Handle *handle) const noexcept { free(handle); }
    };
    template <typename Handle, void (*free)(Handle *)> using owner = std::unique_ptr<Handle, deleter<Handle, free>>;

    /** An open cache. */
    using cache = owner<::npcache, npcache_free>;
    /** How to open a cache. */
    using options = owner<npcache_options, npcache_options_free>;
    /** A function whose calls are cached. */
    using function = owner<npcache_function, npcache_function_free>;
    /** The arguments of a call. */
    using args = owner<npcache_args, npcache_args_free>;
    /** An array that was read once. */
    using digest = owner<npcache_digest, npcache_digest_free>;
    /** One reference to a result; npcache_buffer_retain makes another. */
    using buffer = owner<npcache_buffer, npcache_buffer_release>;
    /** The C object of an error; check() makes an exception of it. */
    using error_object = owner<npcache_error, npcache_error_free>;

    /** Ends a task without a result: nothing is stored, even if it was committed, and the next who waits computes. */
    static void abandon(npcache_output *todo) noexcept
    {
        npcache_output_fail(todo, "given up by an exception");
        npcache_end(todo, nullptr, nullptr);
    }
    /** A task: abandoned where its scope is left without commit_and_end(). Not for the output that npcache_call lends. */
    using output = owner<npcache_output, abandon>;

    /** What went wrong, as an exception; what() is the message. */
    class error : public std::runtime_error {
      public:
        error(npcache_status status, std::int32_t function_code, const std::string &message)
            : std::runtime_error(message), status_(status), function_code_(function_code)
        {
        }
        /** An NPCACHE_ERR status. */
        npcache_status status() const noexcept { return status_; }
        /** What the user's function returned, for NPCACHE_ERR_FUNCTION. */
        std::int32_t function_code() const noexcept { return function_code_; }

      private:
        npcache_status status_;
        std::int32_t function_code_;
    };

    /**
     * Throws error if `status` is negative, else returns it. `object` is what the same call wrote to its `err`, NULL or an
     * error, which is freed. By reference, so that one expression can hold both: `check(npcache_clear(c, 0, &e), e)`.
     */
    static npcache_status check(npcache_status status, npcache_error *&object)
    {
        const error_object owned(object);
        object = nullptr;
        if (status < 0) {
            const char *message = owned ? npcache_error_message(owned.get()) : npcache_status_string(status);
            throw error(status, npcache_error_function_code(owned.get()), message);
        }
        return status;
    }

    /** For functions that have no `err`: the message is npcache_status_string. */
    static npcache_status check(npcache_status status)
    {
        npcache_error *none = nullptr;
        return check(status, none);
    }

    /** npcache_new. */
    static cache open(const char *path, const npcache_options *how = nullptr)
    {
        ::npcache *opened = nullptr;
        npcache_error *object = nullptr;
        check(npcache_new(path, how, &opened, &object), object);
        return cache(opened);
    }

    /** npcache_function_new. */
    static function describe(const cache &in, const char *name, const char *version)
    {
        npcache_function *described = nullptr;
        npcache_error *object = nullptr;
        check(npcache_function_new(in.get(), name, version, &described, &object), object);
        return function(described);
    }

    /** The first half of a call: one of the two is set, or neither where another caller was busy all the time. */
    struct begun {
        buffer hit;
        output todo;
    };

    /** npcache_begin. */
    static begun begin(const function &of, const npcache_args *with = nullptr, std::int64_t wait_ms = -1)
    {
        npcache_buffer *hit = nullptr;
        npcache_output *todo = nullptr;
        npcache_error *object = nullptr;
        check(npcache_begin(of.get(), with, wait_ms, &hit, &todo, &object), object);
        begun result;
        result.hit.reset(hit);
        result.todo.reset(todo);
        return result;
    }

    /** npcache_output_commit and npcache_end. Where the result is not whole it throws, and the next who waits computes. */
    static buffer commit_and_end(output todo)
    {
        npcache_buffer *result = nullptr;
        npcache_error *object = nullptr;
        npcache_output_commit(todo.get()); // npcache_end returns its error, with a message
        check(npcache_end(todo.release(), &result, &object), object);
        return buffer(result);
    }
};

#endif /* NPCACHE_HPP */
