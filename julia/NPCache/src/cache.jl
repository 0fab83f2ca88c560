# An open cache, and what is done to it as a whole.

"""
An open cache, made by `NPCache.open`. It is closed when it is no longer used.
"""
mutable struct Cache
    handle::Handle
    path::Union{Nothing,String}
    # Whether callers in different tasks share one computation, and for how many seconds they wait for it.
    shares::Bool
    lock_timeout::Float64
    # The library's objects for functions without dependencies, by name, version, flight and layout.
    functions::Dict{NTuple{4,String},Handle}
    # What was warned about already.
    warned::Set{Any}
    lock::ReentrantLock

    function Cache(handle, path, shares, lock_timeout)
        functions = Dict{NTuple{4,String},Handle}()
        return finalizer(close_cache, new(handle, path, shares, lock_timeout, functions, Set(), ReentrantLock()))
    end
end

# Only as a finalizer: nobody else has the cache then, so that no lock is taken.
function close_cache(cache::Cache)
    for f in values(cache.functions)
        @c npcache_function_free(f::Handle)::Cvoid
    end
    @c npcache_free(cache.handle::Handle)::Cvoid
end

# One cache, whoever has it: a copy would have the handle, and not keep it.
Base.deepcopy_internal(cache::Cache, ::IdDict) = cache

# Julia stores no addresses in a package's precompiled file, nor sends them: a cache from there has none.
function handle_of(cache::Cache)
    cache.handle == C_NULL && refuse("this cache was opened while its package was precompiled, or was sent from another " *
                                     "process: open it in the package's __init__, const CACHE = Ref{NPCache.Cache}(), and " *
                                     "say @cached CACHE[] function …; or in the process that uses it")
    return cache.handle
end

"""
    NPCache.open(path; options...) -> Cache

Opens the cache in the directory `path`, which is made if it is not there. `nothing` as the path: every call computes.

The options are those of the library, by their names there, and an environment variable, `NPCACHE_MODE` for `mode`,
overrides each of them for a run:

- `mode`: `"readwrite"`, `"readonly"`, `"refresh"` (compute every call and replace what is stored) or `"off"`;
- `lock_timeout`: seconds that a call waits for another one that computes the same, 600 by default;
- `flight`: with whom a call shares the work, `"process"` (callers in all processes), `"thread"` or `"off"`;
- `verify`: `"auto"`, `"always"` or `"never"`;
- and the others that npcache.h has at `npcache_options_set`.

An unknown option, a path that is a file, or one that cannot be made is an `NPCacheError`. A directory that cannot be
written to is none: what is stored in it is found, the rest is computed.

    cache = NPCache.open("results"; lock_timeout=60)
"""
function open(path::Union{Nothing,AbstractString}; options...)
    settings = @c npcache_options_new()::Handle
    handle, err = Ref{Handle}(C_NULL), Ref{Handle}(C_NULL)
    try
        for (name, value) in options
            check(@c(npcache_options_set(settings::Handle, string(name)::Cstring, string(value)::Cstring,
                                         err::Ref{Handle})::Int32), err)
        end
        if path === nothing
            check(@c(npcache_new(C_NULL::Ptr{UInt8}, settings::Handle, handle::Ref{Handle}, err::Ref{Handle})::Int32), err)
        else
            check(@blocking(npcache_new(String(path)::Cstring, settings::Handle, handle::Ref{Handle},
                                        err::Ref{Handle})::Int32), err)
        end
    finally
        @c npcache_options_free(settings::Handle)::Cvoid
    end
    setting(name, default) = get(ENV, "NPCACHE_" * uppercase(string(name)), string(get(options, name, default)))
    timeout = something(tryparse(Float64, setting(:lock_timeout, LOCK_TIMEOUT)), LOCK_TIMEOUT)
    shares = setting(:flight, "process") != "off" && setting(:mode, "readwrite") != "off"
    return Cache(handle[], path === nothing ? nothing : abspath(path), shares, timeout)
end

# Seconds; the library's own default.
const LOCK_TIMEOUT = 600.0

Base.show(io::IO, cache::Cache) = print(io, "NPCache.open(", repr(cache.path), ")")

"""
    NPCache.clear!(cache; remove_dir=false)
    NPCache.clear!(cache, name)

Removes all stored results, or those of the function `name` with all its versions. What was computed before this
returns, or is being computed, here or in any other process, is not found afterwards. Only what npcache made is removed;
with `remove_dir`, the directory too, and it is an `NPCacheError` if it has other files. Arrays that were returned stay
valid.
"""
function clear!(cache::Cache; remove_dir::Bool=false)
    err = Ref{Handle}(C_NULL)
    flags = remove_dir ? CLEAR_REMOVE_DIR : UInt32(0)
    GC.@preserve cache check(@blocking(npcache_clear(handle_of(cache)::Handle, flags::UInt32,
                                                     err::Ref{Handle})::Int32), err)
    return cache
end

function clear!(cache::Cache, name::AbstractString)
    err = Ref{Handle}(C_NULL)
    GC.@preserve cache check(@blocking(npcache_clear_function(handle_of(cache)::Handle, String(name)::Cstring,
                                                              err::Ref{Handle})::Int32), err)
    return cache
end

"""
    configure!(cache; max_bytes, max_entries, max_age, min_free_bytes, policy)

Sets bounds, with the values that options of [`Cache`](@ref) take, for all who use the directory and do not set them
themselves.
"""
function configure!(cache::Cache; bounds...)
    for (name, value) in bounds
        err = Ref{Handle}(C_NULL)
        GC.@preserve cache check(@c(npcache_configure(handle_of(cache)::Handle, String(name)::Cstring,
                                                      string(value)::Cstring, err::Ref{Handle})::Int32), err)
    end
    return cache
end

# npcache_statistics.
const Totals = @NamedTuple begin
    memory::Int64
    disk::Int64
    shared::Int64
    lower::Int64
    misses::Int64
    stored::Int64
    cheap::Int64
    unstored::Int64
    evicted::Int64
    corrupt::Int64
    waits::Int64
    seconds_waited::Float64
    seconds_spent::Float64
    seconds_saved::Float64
    complete::Int64
    audited::Int64
    differing::Int64
end

"""
    NPCache.totals(cache) -> NamedTuple
    NPCache.totals(cache, name)

What all processes, in all languages, counted since the cache was made: of all functions, or of the function `name` with
all its versions. `memory`, `disk`, `shared` and `lower` are hits, `misses` calls that computed, `seconds_saved` what
computing the hits would have taken; what each field counts is at `npcache_statistics` in npcache.h. Clearing does not
set it back.

What a process found in memory is in it after some thousand calls of a thread, with the next result that it computes, or
when it exits.
"""
totals(cache::Cache) = totals(cache, nothing)
totals(cache::Cache, name::AbstractString) = totals(cache, String(name))

function totals(cache::Cache, name::Union{Nothing,String})
    found, err = Ref{Totals}(), Ref{Handle}(C_NULL)
    function_name = name === nothing ? Cstring(C_NULL) : Base.unsafe_convert(Cstring, name)
    GC.@preserve cache name check(@blocking(npcache_stats(handle_of(cache)::Handle, function_name::Cstring,
        found::Ref{Totals}, sizeof(Totals)::Csize_t, err::Ref{Handle})::Int32), err)
    return found[]
end

# Once in the life of a cache for each `what`.
function warn_once(cache::Cache, what, message)
    lock(cache.lock) do
        what in cache.warned && return
        push!(cache.warned, what)
        @warn message
    end
end
