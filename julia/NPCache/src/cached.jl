# The ways to say what is cached: a definition, a function with a version, one call.

"""
A function whose calls are cached, made by [`cached`](@ref). `uncached` of it is the function itself.
"""
struct Cached{F}
    uncached::F
    cache::Cache
    name::String
    version::String
    flight::String
    layout::String
    depends::Any
    view::Bool
end

Base.show(io::IO, c::Cached) = print(io, "NPCache.cached(", c.uncached, ", ", c.cache, "; name=", repr(c.name), ", version=",
                                     repr(c.version), ")")

"""
    cached(f, cache; version, name=nameof(f), depends=(), view=false, flight, layout)

The function `f` with its calls cached. `version` is your promise that results stay the same as long as it does; it and
`name` are what shares them with programs in other languages. What `f` captures, if it is a closure, or has in its
fields, counts too.

- `depends`: a value, or a tuple of values, that results depend on besides; encoded like arguments at every call.
- `view`: return stored arrays read-only and without a copy, see [`NPCache.ReadOnlyArray`](@ref).
- `flight`: `"process"`, `"thread"` or `"off"`, as for `NPCache.open`, for this function.
- `layout`: `"strict"` keeps calls with column-major, row-major and other arrays apart, for functions whose rounding
  depends on it; otherwise arrays of equal contents are equal arguments.

A positional argument that is left out is another call than its default given, since `f`'s signature is not known; with
[`@cached`](@ref) it is the same.

    solve = cached(cache; name="solve", version="1") do n
        expensive(n)
    end
"""
function cached(f, cache::Cache; version, name=nothing, depends=(), view::Bool=false, flight="", layout="")
    if name === nothing
        name = f isa Function ? string(nameof(f)) : ""
        (isempty(name) || startswith(name, '#')) && refuse("a function without a name needs one: cached(f, cache; name, version)")
    end
    return Cached(f, cache, string(name), string(version), string(flight), string(layout), depends, view)
end

(c::Cached)(args...; kwargs...) = first(perform(call_of(c, args, kwargs)))

function call_of(c::Cached, args, kwargs)
    dependencies = given_dependencies(c.cache, c.depends)
    captured(c.cache, c.uncached, c, dependencies)
    return Call(c.cache, c.name, c.version, c.flight, c.layout, dependencies, c.uncached, args, kwargs, c.view)
end

function given_dependencies(cache, depends)
    dependencies = Pair{String,String}[]
    depends === () || push!(dependencies, "depends" => dependency_value(cache, depends, "`depends`"))
    return dependencies
end

"""
    produce(cache, f, args...; version, name=nameof(f), view=false, kwargs...) -> data, file
    produce(f, cache, args...; …)

Makes one call, or finds its result, and tells the file, as DrWatson's `produce_or_load` does; `file` is `nothing` where
the result could not be stored. Arrays with names, of a dictionary or a named tuple, come as a `Dict{String,Any}`.
`version` and `name` are those of [`cached`](@ref); other keyword arguments are `f`'s.

    data, file = produce(cache, (n=100, step=0.1); name="heat", version="1") do config
        Dict("x" => xs(config), "u" => solve(config))
    end
"""
function produce(cache::Cache, f, args...; version, name=nothing, view::Bool=false, kwargs...)
    data, file = perform(call_of(cached(f, cache; version=version, name=name, view=view), args, kwargs))
    return by_name(data), file
end
produce(f::Function, cache::Cache, args...; options...) = produce(cache, f, args...; options...)

by_name(data) = data
by_name(data::Union{NamedTuple,AbstractDict}) = Dict{String,Any}(string(name) => item for (name, item) in pairs(data))

# --------------------------------------------------------------------------------------------------------------- @cached

"""
    @cached cache [option=value …] function f(x, y=1; z=2) … end

Defines a function whose calls are cached. Its identity is its name, with that of its module, and its definition: the
expression without line numbers and comments. A definition that changes finds no results of the old one; changed back,
it finds its own again. What else counts:

- the arguments, with the defaults of those left out: `f(1)`, `f(1, 1)` and `f(1, 1; z=2)` are one call;
- the variables that it captures, if it is defined inside of another function;
- the globals that it names, if they are numbers, strings, symbols or tuples of these. Others are warned about.

What does not: the code of other functions that it calls, and of macros. `version` or `depends` says it.

Every method is a definition of its own. `cache` is evaluated at every call. Options:

- `name="solve"`: the name, instead of the function's own;
- `version="2"`: the version, instead of the definition: your promise that results stay the same as long as it does;
- `depends=(table, "v2")`, `view=true`, `flight="off"`, `layout="strict"`: as for [`cached`](@ref).

Arguments are encoded, see `docs/julia.md`: numbers, strings, symbols, `nothing`, arrays of numbers, tuples, named tuples
and dictionaries; other types are an [`NPCacheError`](@ref) until `NPCache.describe` says what they are. Results are
numbers, arrays of numbers, tuples and named tuples of these. Arrays are yours to write to: that does not reach the cache.

An exception of the function passes through, nothing is stored, and the next who waits for the result computes.

    @cached cache function evolve(state::Vector{Float64}, steps; dt=0.01)
        …
    end
"""
macro cached(cache, items...)
    isempty(items) && refuse("@cached cache function f(x) … end: the definition is missing")
    options = Dict{Symbol,Any}()
    for item in items[1:end-1]
        item isa Expr && item.head === :(=) && item.args[1] in (:name, :version, :depends, :view, :flight, :layout) ||
            refuse("@cached has no option $item: there are name, version, depends, view, flight, layout")
        options[item.args[1]] = item.args[2]
    end
    return esc(definition(cache, options, items[end], __module__))
end

# The name, the positional and the keyword arguments of a signature, and its `where` parameters.
function signature(def)
    def isa Expr && def.head in (:function, :(=)) && length(def.args) == 2 ||
        refuse("@cached takes the definition of a function: @cached cache function f(x) … end")
    head, wheres = def.args[1], Any[]
    while head isa Expr && head.head in (:where, :(::)) && is_signature(head)
        head.head === :where && append!(wheres, head.args[2:end])
        head = head.args[1]
    end
    head isa Expr && head.head === :call && head.args[1] isa Symbol ||
        refuse("@cached takes a function with a name of its own; for others there is NPCache.cached(f, cache; name, version)")
    args = head.args[2:end]
    keywords = Any[]
    if !isempty(args) && args[1] isa Expr && args[1].head === :parameters
        keywords = args[1].args
        args = args[2:end]
    end
    return head.args[1], args, keywords, wheres
end

# An argument as the wrapper declares it and passes it on, and its name.
function argument(arg)
    arg isa Symbol && return arg, arg, arg
    if arg isa Expr && arg.head === :kw
        declared, passed, name = argument(arg.args[1])
        return Expr(:kw, declared, arg.args[2]), passed, name
    elseif arg isa Expr && arg.head === :(...)
        declared, passed, name = argument(arg.args[1])
        return Expr(:(...), declared), Expr(:(...), passed), name
    elseif arg isa Expr && arg.head === :(::) && length(arg.args) == 2 && arg.args[1] isa Symbol
        return arg, arg.args[1], arg.args[1]
    elseif arg isa Expr && arg.head === :(::) && length(arg.args) == 1
        name = gensym("argument")
        return Expr(:(::), name, arg.args[1]), name, name
    end
    refuse("@cached cannot tell the name of the argument $arg")
end

passed_keyword(declared, name) = declared isa Expr && declared.head === :(...) ? Expr(:(...), name) : Expr(:kw, name, name)

function definition(cache, options, def, mod)
    fname, positional, keywords, wheres = signature(def)
    args, kwargs = argument.(positional), argument.(keywords)

    inner = Symbol(fname, " (uncached)")
    default_name = mod === Main ? string(fname) : string(mod, '.', fname)
    # Of a version that is given, only the text counts; and a definition that has no text is refused.
    version = haskey(options, :version) ? :(string($(options[:version]))) : version_of(def)

    bound = Set{Symbol}([fname; last.(args); last.(kwargs)])
    collect_parameters!(bound, wheres)
    given = Set{Path}()
    collect_names!(given, get(options, :depends, nothing))
    names = free_names(Expr(:block, def.args[2], defaults(positional)..., defaults(keywords)...), bound, given)

    head = Expr(:call, fname, Expr(:parameters, getindex.(kwargs, 1)...), getindex.(args, 1)...)
    isempty(wheres) || (head = Expr(:where, head, wheres...))
    described = :($Definition($cache, string($(get(options, :name, default_name))), $version,
                              string($(get(options, :flight, ""))), string($(get(options, :layout, ""))),
                              $(get(options, :depends, ())), $(get(options, :view, false)), $mod, $(Tuple(names))))
    passed = [passed_keyword(declared, name) for (declared, _, name) in kwargs]
    body = :($run_cached($described, $fname, $inner, $(Expr(:tuple, getindex.(args, 2)...)),
                         $(Expr(:tuple, Expr(:parameters, passed...)))))
    wrapper = Expr(:function, head, Expr(:block, body))
    return quote
        $(renamed(def, inner))
        Base.@__doc__ $wrapper
        $fname
    end
end

defaults(args) = [arg.args[2] for arg in args if arg isa Expr && arg.head === :kw]

collect_parameters!(names, wheres) = foreach(wheres) do parameter
    parameter isa Expr ? collect_parameters!(names, [x for x in parameter.args if x isa Symbol]) : push!(names, parameter)
end

# The definition under another name.
function renamed(def, name)
    rename(head) =
        head.head === :call ? Expr(:call, name, head.args[2:end]...) : Expr(head.head, rename(head.args[1]), head.args[2:end]...)
    return Expr(def.head, rename(def.args[1]), def.args[2])
end

# What @cached says of a function, as it is at a call.
struct Definition
    cache::Cache
    name::String
    version::String
    flight::String
    layout::String
    depends::Any
    view::Bool
    mod::Module
    names::Tuple
end

function run_cached(d::Definition, self, inner, args, kwargs)
    dependencies = given_dependencies(d.cache, d.depends)
    captured(d.cache, inner, self, dependencies)
    globals(d.cache, d.mod, d.names, d.name, dependencies)
    call = Call(d.cache, d.name, d.version, d.flight, d.layout, dependencies, inner, args, kwargs, d.view)
    return is_asked(self) ? call : first(perform(call))
end

# --------------------------------------------------------------------------------------------------------- about a call

# A function of @cached has defaults to fill in and methods to choose from: only calling it tells the call. What asks about
# a call leaves a mark in the task, for this one function, which then returns the Call instead of making it.
const ASKED = :npcache_asked

function is_asked(self)
    storage = current_task().storage
    storage === nothing && return false
    get(storage, ASKED, nothing) === self || return false
    delete!(storage, ASKED)
    return true
end

ask(c::Cached, args, kwargs) = call_of(c, args, kwargs)
function ask(f::Function, args, kwargs)
    call = task_local_storage(() -> f(args...; kwargs...), ASKED, f)
    call isa Call || refuse("$f is not made by @cached or cached")
    return call
end

"""
    NPCache.iscached(f, args...; kwargs...) -> Bool

Whether the result of the call `f(args...; kwargs...)` is stored. Never computes, never waits, and counts as no hit. `f` is
a function of `@cached` or `cached`.
"""
function iscached(f, args...; kwargs...)
    return with_objects(is_stored, ask(f, args, kwargs))
end

"""
    NPCache.seconds(f, args...; kwargs...)

How long computing the stored result of the call took, in seconds: what a hit saves. `nothing` where it is not stored.
"""
function seconds(f, args...; kwargs...)
    buffer = lookup(ask(f, args, kwargs))
    buffer === nothing && return nothing
    return GC.@preserve buffer @c npcache_buffer_seconds(buffer.handle::Handle)::Cdouble
end

function lookup(call::Call)
    with_objects(call) do f, args
        hit, err = Ref{Handle}(C_NULL), Ref{Handle}(C_NULL)
        check(@blocking(npcache_lookup(f::Handle, args::Handle, hit::Ref{Handle}, err::Ref{Handle})::Int32), err)
        hit[] == C_NULL ? nothing : Buffer(hit[])
    end
end

"""
    NPCache.forget!(f, args...; kwargs...)

Removes the stored result of one call, if there is one.
"""
function forget!(f, args...; kwargs...)
    with_objects(ask(f, args, kwargs)) do g, arguments
        err = Ref{Handle}(C_NULL)
        check(@blocking(npcache_forget(g::Handle, arguments::Handle, err::Ref{Handle})::Int32), err)
    end
    return nothing
end

"""
    NPCache.explain(f, args...; kwargs...) -> String

Says in words whether a call is stored, and if not, which stored calls of the function come nearest and what differs: an
argument, the version, a captured variable, a global. The wording may change.
"""
function explain(f, args...; kwargs...)
    with_objects(ask(f, args, kwargs)) do g, arguments
        text, err = Ref{Ptr{UInt8}}(C_NULL), Ref{Handle}(C_NULL)
        check(@blocking(npcache_explain(C_NULL::Handle, g::Handle, arguments::Handle, text::Ref{Ptr{UInt8}},
                                        err::Ref{Handle})::Int32), err)
        explanation = unsafe_string(text[])
        @c npcache_text_free(text[]::Ptr{UInt8})::Cvoid
        explanation
    end
end

"""
    NPCache.key(f, args...; kwargs...) -> String

The key of a call, 64 hexadecimal digits: the name of its file.
"""
key(f, args...; kwargs...) = with_objects(key_of, ask(f, args, kwargs))
