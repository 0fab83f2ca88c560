# The C library: where it is, how its functions are called, and how its errors become exceptions. The names, types and
# numbers are those of include/npcache.h.

const FUNCTIONS = (
    :npcache_abi_version,
    :npcache_args_add_array,
    :npcache_args_add_bigint,
    :npcache_args_add_bool,
    :npcache_args_add_bytes,
    :npcache_args_add_file,
    :npcache_args_add_int,
    :npcache_args_add_null,
    :npcache_args_add_scalar,
    :npcache_args_add_string,
    :npcache_args_begin_list,
    :npcache_args_begin_map,
    :npcache_args_end,
    :npcache_args_free,
    :npcache_args_key,
    :npcache_args_new,
    :npcache_begin,
    :npcache_buffer_count,
    :npcache_buffer_origin,
    :npcache_buffer_path,
    :npcache_buffer_read,
    :npcache_buffer_release,
    :npcache_buffer_seconds,
    :npcache_buffer_stored,
    :npcache_buffer_view,
    :npcache_clear,
    :npcache_clear_function,
    :npcache_configure,
    :npcache_end,
    :npcache_error_code,
    :npcache_error_free,
    :npcache_error_message,
    :npcache_explain,
    :npcache_forget,
    :npcache_free,
    :npcache_function_add_dependency,
    :npcache_function_free,
    :npcache_function_key,
    :npcache_function_new,
    :npcache_function_set,
    :npcache_is_cached,
    :npcache_lookup,
    :npcache_new,
    :npcache_options_free,
    :npcache_options_new,
    :npcache_options_set,
    :npcache_output_commit,
    :npcache_output_note,
    :npcache_output_write,
    :npcache_set_log,
    :npcache_stats,
    :npcache_status_string,
    :npcache_text_free,
)

const ABI_VERSION = 1

# Addresses are of one process: filled in by load_library, never stored in a precompiled file.
for name in FUNCTIONS
    @eval const $(Symbol(:address_, name)) = Ref{Ptr{Cvoid}}(C_NULL)
end

const OK = Int32(0)
const BUSY = Int32(1)
const UNSTORED_NO_DIRECTORY = Int32(2)
const UNSTORED_READ_ONLY_MODE = Int32(3)
const UNSTORED_CLEARED = Int32(7)
const UNSTORED_CHEAP = Int32(10)
const UNSTORED_TOO_LARGE = Int32(11)
const ERR_ARGUMENT = Int32(-1)
const ERR_DTYPE = Int32(-8)
const ORDER_F = UInt32(1)
const CLEAR_REMOVE_DIR = UInt32(1)

const Handle = Ptr{Cvoid}

"""
What went wrong and what to do about it: `status`, a negative number of npcache.h, and `message`. Where the function had
been computed already, `result` is what it returned.
"""
struct NPCacheError <: Exception
    status::Int32
    message::String
    result::Any
end
NPCacheError(status, message) = NPCacheError(status, message, nothing)

Base.showerror(io::IO, e::NPCacheError) = print(io, "NPCacheError: ", e.message)

refuse(message) = throw(NPCacheError(ERR_ARGUMENT, message))

# `npcache_name(x::T, y::U)::R`, as for Base's @ccall: its arguments, their types, and the type of the result.
function call_parts(call)
    call.head === :(::) && call.args[1].head === :call || error("expected npcache_name(x::T)::R")
    name = call.args[1].args[1]
    typed = call.args[1].args[2:end]
    name in FUNCTIONS || error("$name is not in FUNCTIONS")
    return Symbol(:address_, name), [x.args[1] for x in typed], [x.args[2] for x in typed], call.args[2]
end

"Calls a function of the library that returns at once."
macro c(call)
    address, values, types, result = call_parts(call)
    return esc(:(ccall($address[], $result, ($(types...),), $(values...))))
end

"Calls a function of the library that reads or writes a lot: where Julia can, the garbage collector goes on meanwhile."
macro blocking(call)
    return esc(blocking_call(call, VERSION, __source__))
end

# Base's @ccall takes `gc_safe` from Julia 1.12 on.
function blocking_call(call, version, source)
    address, values, types, result = call_parts(call)
    version < v"1.12" && return :(ccall($address[], $result, ($(types...),), $(values...)))
    typed = [Expr(:(::), value, type) for (value, type) in zip(values, types)]
    called = Expr(:(::), Expr(:call, Expr(:$, :($address[])), typed...), result)
    return Expr(:macrocall, GlobalRef(Base, Symbol("@ccall")), source, Expr(:(=), :gc_safe, true), called)
end

# Throws what the library says went wrong, if anything did.
function check(status::Int32, err::Ref{Handle})
    status >= 0 && return status
    message = describe_error(status, err)
    throw(NPCacheError(status, message))
end

function describe_error(status::Int32, err::Ref{Handle})
    err[] == C_NULL && return status_text(status)
    message = unsafe_string(@c npcache_error_message(err[]::Handle)::Cstring)
    @c npcache_error_free(err[]::Handle)::Cvoid
    err[] = C_NULL
    return message
end

status_text(status) = unsafe_string(@c npcache_status_string(status::Int32)::Cstring)

# NPCACHE_LIBRARY, else what the system's loader finds, else what `make build` left in this checkout.
function library_paths()
    given = get(ENV, "NPCACHE_LIBRARY", "")
    isempty(given) || return [given]
    return ["libnpcache.so.1", normpath(joinpath(@__DIR__, "..", "..", "..", "target", "release", "libnpcache.so"))]
end

function load_library()
    paths = library_paths()
    for path in paths
        library = Libdl.dlopen(path; throw_error=false)
        library === nothing && continue
        for name in FUNCTIONS
            address = Libdl.dlsym(library, name; throw_error=false)
            address === nothing && error("the npcache library $path is too old for this package: it has no $name")
            getfield(NPCache, Symbol(:address_, name))[] = address
        end
        version = @c npcache_abi_version()::UInt32
        version == ABI_VERSION || error("the npcache library $path has ABI $version; this package needs $ABI_VERSION")
        return nothing
    end
    error("libnpcache is not found as ", join(paths, " or "), ": install it, run `make build`, or set NPCACHE_LIBRARY")
end

# What the library has to say comes in whichever thread called it, from within that call, where Julia may not switch tasks:
# so it is noted down, and shown by a task of its own.
const MESSAGES = Tuple{Int32,String}[]
const MESSAGES_LOCK = Threads.SpinLock()
const MESSAGES_CAME = Ref{Base.AsyncCondition}()

function listen(::Ptr{Cvoid}, level::Int32, message::Cstring)
    text = unsafe_string(message)
    lock(() -> push!(MESSAGES, (level, text)), MESSAGES_LOCK)
    ccall(:uv_async_send, Cint, (Ptr{Cvoid},), MESSAGES_CAME[])
    return nothing
end

function show_messages()
    messages = lock(() -> splice!(MESSAGES, 1:length(MESSAGES)), MESSAGES_LOCK)
    for (level, text) in messages
        # Said by `warn_unstored` too, with the function's name and where it was called.
        occursin("not stored", text) && continue
        level == 1 ? (@info text) : level == 2 ? (@warn text) : (@error text)
    end
end

function start_listening()
    # A package that is being precompiled is not to wait for more.
    ccall(:jl_generating_output, Cint, ()) == 1 && return nothing
    MESSAGES_CAME[] = Base.AsyncCondition(_ -> show_messages())
    listener = @cfunction(listen, Cvoid, (Ptr{Cvoid}, Int32, Cstring))
    @c npcache_set_log(listener::Ptr{Cvoid}, C_NULL::Ptr{Cvoid})::Cvoid
    atexit() do
        @c npcache_set_log(C_NULL::Ptr{Cvoid}, C_NULL::Ptr{Cvoid})::Cvoid
        show_messages()
    end
    return nothing
end
