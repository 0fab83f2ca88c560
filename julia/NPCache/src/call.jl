# One call: found, or computed by one task while the others that ask for the same wait.

# A call of a cached function, whole but for its result.
struct Call
    cache::Cache
    name::String
    version::String
    # Without a default: the caller says so.
    flight::String
    layout::String
    dependencies::Vector{Pair{String,String}}
    f::Any
    args::Tuple
    kwargs::Any
    view::Bool
end

# Makes the library's objects of a call and gives them to `use`.
function with_objects(use, cache::Cache, name, version, flight, layout, dependencies, args, kwargs, place="")
    handle_of(cache)
    handle = @c npcache_args_new()::Handle
    handle == C_NULL && throw(OutOfMemoryError())
    own = C_NULL
    try
        to = Arguments(handle, String[])
        for (i, arg) in enumerate(args)
            add!(to, arg, isempty(place) ? i : place)
        end
        for (key, arg) in pairs(kwargs)
            add_named!(to, string(key), arg, key)
        end
        if isempty(dependencies) && isempty(to.types)
            f = kept_function(cache, (name, version, flight, layout))
        else
            # Sorted: keyword arguments and what is in a Dict have no order.
            isempty(to.types) || (dependencies = [dependencies; "julia types" => join(sort!(to.types), ", ")])
            f = own = new_function(cache, name, version, flight, layout, dependencies)
        end
        return GC.@preserve cache use(f, handle)
    finally
        own == C_NULL || @c npcache_function_free(own::Handle)::Cvoid
        @c npcache_args_free(handle::Handle)::Cvoid
    end
end

with_objects(use, call::Call) =
    with_objects(use, call.cache, call.name, call.version, call.flight, call.layout, call.dependencies, call.args, call.kwargs)

function kept_function(cache::Cache, identity)
    lock(cache.lock) do
        get!(() -> new_function(cache, identity..., ()), cache.functions, identity)
    end
end

function new_function(cache::Cache, name, version, flight, layout, dependencies)
    f, err = Ref{Handle}(C_NULL), Ref{Handle}(C_NULL)
    check(@c(npcache_function_new(cache.handle::Handle, name::Cstring, version::Cstring, f::Ref{Handle},
                                  err::Ref{Handle})::Int32), err)
    try
        for (option, value) in ("flight" => flight, "layout" => layout)
            isempty(value) && continue
            check(@c(npcache_function_set(f[]::Handle, option::Cstring, value::Cstring, err::Ref{Handle})::Int32), err)
        end
        for (dependency, value) in dependencies
            check(@c(npcache_function_add_dependency(f[]::Handle, dependency::Cstring, value::Cstring,
                                                     err::Ref{Handle})::Int32), err)
        end
    catch
        @c npcache_function_free(f[]::Handle)::Cvoid
        rethrow()
    end
    return f[]
end

function key_of(f::Handle, args::Handle)
    key, err = zeros(UInt8, 65), Ref{Handle}(C_NULL)
    check(@c(npcache_function_key(f::Handle, args::Handle, key::Ptr{UInt8}, err::Ref{Handle})::Int32), err)
    return String(key[1:64])
end

raw_key(cache, name, version, dependencies, args, kwargs, place=""; layout="") =
    with_objects(key_of, cache, name, version, "", layout, dependencies, args, kwargs, place)

# ------------------------------------------------------------------------------------------------------------- the wait

# Nobody waits inside the library: a thread in there would stop the garbage collector for all others, and every other
# task of its own. Waiting is sleeping in between tries, in seconds: short at first, for short functions; later no longer
# than an idle look costs nothing (a try is about 10 µs).
const FIRST_PAUSE = 0.001
const LONGEST_PAUSE = 0.02

# The library knows threads, not tasks: to it, another task of the same thread is the caller itself further up the stack,
# and a task that moved to another thread is somebody else. So what the tasks of this process are computing is kept here.
const COMPUTING = Dict{Tuple{String,String},Task}()
const COMPUTING_LOCK = ReentrantLock()

computing(id) = lock(() -> get(COMPUTING, id, nothing), COMPUTING_LOCK)

function computed_by_another(id)
    other = computing(id)
    return !(other === nothing || other === current_task() || istaskdone(other))
end

# Whether the current task is the one to compute `id`; no other is to then, until it is let go of.
function claim(id)
    lock(COMPUTING_LOCK) do
        other = get(COMPUTING, id, nothing)
        other === nothing || istaskdone(other) || return false
        COMPUTING[id] = current_task()
        return true
    end
end

function let_go(id)
    lock(COMPUTING_LOCK) do
        get(COMPUTING, id, nothing) === current_task() && delete!(COMPUTING, id)
    end
    return nothing
end

# The task of computing a result. It has to be ended, or those who wait for the result wait in vain; where an exception,
# Ctrl-C at any time, comes in between, the garbage collector does it.
mutable struct Todo
    handle::Handle
    Todo(handle::Handle) = finalizer(abandon, new(handle))
end

function abandon(todo::Todo)
    handle, todo.handle = todo.handle, C_NULL
    handle == C_NULL || @c npcache_end(handle::Handle, C_NULL::Ptr{Handle}, C_NULL::Ptr{Handle})::Int32
    return nothing
end

# What a call returns, and the file it is stored in, or nothing.
function perform(call::Call)
    with_objects(call) do f, args
        shares = call.cache.shares && call.flight != "off" && call.cache.path !== nothing
        id = ("", "")
        pause, deadline = FIRST_PAUSE, Inf
        looked_again = false
        while true
            begun = begin_call(f, args)
            begun isa Buffer && return found(call, begun)
            begun isa Todo && !shares && return compute(call, begun)
            # From here on it costs a computation or a wait anyhow.
            if isempty(id[1])
                id = (something(call.cache.path, ""), key_of(f, args))
                deadline = time() + call.cache.lock_timeout
            end
            if computing(id) === current_task()
                # It calls itself with the same arguments, and cannot wait for itself.
                return begun isa Todo ? compute(call, begun) : (call.f(call.args...; call.kwargs...), nothing)
            end
            if begun isa Todo
                if claim(id)
                    try
                        # Since this one looked, another task may have stored it, and have let go of it.
                        !looked_again && is_stored(f, args) || return compute(call, begun)
                        looked_again = true
                    finally
                        let_go(id)
                    end
                    abandon(begun)
                    continue
                end
                time() >= deadline && return compute(call, begun)
                abandon(begun)
            end
            # While a task of this process computes it, the library is not asked: it would count every look as a miss.
            while true
                sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
                time() < deadline && computed_by_another(id) || break
            end
        end
    end
end

# A result, or the task of computing it, or nothing while another computes it.
function begin_call(f::Handle, args::Handle)
    hit, todo, err = Ref{Handle}(C_NULL), Ref{Handle}(C_NULL), Ref{Handle}(C_NULL)
    check(@blocking(npcache_begin(f::Handle, args::Handle, 0::Int64, hit::Ref{Handle}, todo::Ref{Handle},
                                  err::Ref{Handle})::Int32), err)
    return hit[] != C_NULL ? Buffer(hit[]) : todo[] != C_NULL ? Todo(todo[]) : nothing
end

function is_stored(f::Handle, args::Handle)
    cached, err = Ref{Int32}(0), Ref{Handle}(C_NULL)
    check(@blocking(npcache_is_cached(f::Handle, args::Handle, cached::Ref{Int32}, err::Ref{Handle})::Int32), err)
    return cached[] != 0
end

function found(call::Call, buffer::Buffer)
    path = path_of(buffer)
    return value_of(buffer, call.view), path
end

# Computes and stores. The task is ended whatever happens: those who wait for the result depend on it.
function compute(call::Call, todo::Todo)
    try
        result = call.f(call.args...; call.kwargs...)
        try
            write_result(todo.handle, result)
        catch e
            e isa NPCacheError ? throw(NPCacheError(e.status, "$(call.name): $(e.message)", result)) : rethrow()
        end
        @c npcache_output_commit(todo.handle::Handle)::Int32
        out, err = Ref{Handle}(C_NULL), Ref{Handle}(C_NULL)
        handle, todo.handle = todo.handle, C_NULL
        status = @blocking npcache_end(handle::Handle, out::Ref{Handle}, err::Ref{Handle})::Int32
        if status != OK
            # A fault of the cache does not cost the result.
            warn_once(call.cache, status, "a result of $(call.name) is not stored: $(describe_error(status, err))")
            return result, nothing
        end
        buffer = Buffer(out[])
        warn_unstored(call, buffer)
        path = path_of(buffer)
        return !call.view && reads_back(result) ? result : value_of(buffer, call.view), path
    finally
        abandon(todo)
    end
end

# What somebody chose is no surprise.
const EXPECTED =
    (OK, UNSTORED_NO_DIRECTORY, UNSTORED_READ_ONLY_MODE, UNSTORED_CLEARED, UNSTORED_CHEAP, UNSTORED_TOO_LARGE)

function warn_unstored(call::Call, buffer::Buffer)
    status = @c npcache_buffer_stored(buffer.handle::Handle)::Int32
    status in EXPECTED && return
    reason = replace(status_text(status), "not stored: " => "")
    warn_once(call.cache, status, "a result of $(call.name) is not stored in $(call.cache.path): $reason")
end
