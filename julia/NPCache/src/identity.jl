# What a function is, beside its arguments: the text of its definition, the variables that it captures, the globals that
# it names.

# ------------------------------------------------------------------------------------------------- the definition's text

"""
The version of a function that is defined by `definition`: "julia:" and the SHA-256 of the expression without its line
numbers. So comments, white space and place do not count; everything else does.
"""
function version_of(definition)
    io = IOBuffer()
    write_expression(io, definition)
    return "julia:" * bytes2hex(SHA.sha256(take!(io)))
end

# Every item begins with a letter for its kind, and texts have their length before them: no two expressions are written
# alike.
function write_expression(io, x::Expr)
    args = filter(arg -> !(arg isa LineNumberNode), x.args)
    print(io, 'E')
    write_text(io, string(x.head))
    print(io, length(args), ';')
    foreach(arg -> write_expression(io, arg), args)
end
function write_expression(io, x::QuoteNode)
    print(io, 'Q')
    write_expression(io, x.value)
end
write_expression(io, x::Symbol) = (print(io, 'S'); write_text(io, string(x)))
write_expression(io, x::GlobalRef) = (print(io, 'G'); write_text(io, string(x.mod)); write_text(io, string(x.name)))
function write_expression(io, x::Union{Number,AbstractString,Char,Nothing,VersionNumber,Regex})
    print(io, 'L')
    write_text(io, string(typeof(x)))
    write_text(io, literal(x))
end
function write_expression(io, x)
    refuse("the definition contains a $(typeof(x)) by its value, interpolated or made by a macro: NPCache cannot tell " *
           "when it changes; say @cached cache version=\"1\" …")
end

literal(x) = repr(x)
# Bit for bit: repr shows all NaNs alike.
literal(x::Union{Float16,Float32,Float64}) = isnan(x) ? string("NaN ", bitstring(x)) : repr(x)

write_text(io, text) = print(io, sizeof(text), ':', text)

# -------------------------------------------------------------------------------------------------------------- globals

# A variable as it is written, `a` or `a.b.c`, which can be a global of another module, or a field.
const Path = Tuple{Symbol,Vararg{Symbol}}

# The variables in a definition that can be globals: all but its arguments, what is assigned in the function's own
# scope, what stands for something else than a variable, and `given`, which count by other ways.
function free_names(body, bound, given)
    names = Set{Path}()
    collect_names!(names, body)
    has_globals(body) || collect_assigned!(bound, body)
    return sort!(filter(path -> !(path[1] in bound || any(n -> path[1:n] in given, 1:length(path))), collect(names)))
end

collect_names!(names, x) = nothing
collect_names!(names, x::Symbol) = push!(names, (x,))
function collect_names!(names, x::Expr)
    x.head in (:quote, :inert, :meta, :line) && return
    path = path_in(x)
    path === nothing || return push!(names, path)
    args = is_field(x) ? x.args[1:1] :
           x.head === :kw ? x.args[2:end] :
           x.head === :macrocall ? x.args[2:end] :
           x.head === :tuple ? items(x) : x.args
    foreach(arg -> collect_names!(names, arg), args)
end

is_field(x) = x.head === :(.) && length(x.args) == 2 && x.args[2] isa QuoteNode && x.args[2].value isa Symbol

# The path that an expression is, or nothing.
path_in(x) = nothing
path_in(x::Symbol) = (x,)
function path_in(x::Expr)
    outer = is_field(x) ? path_in(x.args[1]) : nothing
    return outer === nothing ? nothing : (outer..., x.args[2].value)
end

# What a tuple is made of: in a named one, `a=b` assigns nothing, and `a` is no variable.
items(x) = [arg isa Expr && arg.head === :(=) ? arg.args[2] : arg for arg in x.args]

has_globals(x) = x isa Expr && (x.head === :global || any(has_globals, x.args))

# What opens a scope: names assigned in there can be globals outside of it.
const SCOPES = (:for, :while, :let, :try, :function, :->, :generator, :comprehension, :typed_comprehension, :do, :quote,
                :macrocall, :inert)

collect_assigned!(names, x) = nothing
function collect_assigned!(names, x::Expr)
    x.head in SCOPES && return
    if x.head === :(=) && !(is_signature(x.args[1]))
        collect_targets!(names, x.args[1])
        collect_assigned!(names, x.args[2])
    elseif x.head === :(=)
        return
    elseif x.head === :local
        foreach(arg -> collect_targets!(names, arg isa Expr && arg.head === :(=) ? arg.args[1] : arg), x.args)
        foreach(arg -> collect_assigned!(names, arg), x.args)
    else
        foreach(arg -> collect_assigned!(names, arg), x.head === :tuple ? items(x) : x.args)
    end
end

is_signature(x) = x isa Expr && (x.head in (:call, :where) || x.head === :(::) && is_signature(x.args[1]))

collect_targets!(names, x) = nothing
collect_targets!(names, x::Symbol) = push!(names, x)
function collect_targets!(names, x::Expr)
    x.head === :tuple && foreach(arg -> collect_targets!(names, arg), x.args)
    x.head in (:(::), :(...)) && length(x.args) > 0 && collect_targets!(names, x.args[1])
end

# ---------------------------------------------------------------------------------------------------------- dependencies

const Plain = Union{Element,Int128,UInt128,BigInt,String,Symbol,Char,Nothing}
is_plain(x) = x isa Plain || x isa Union{Tuple,NamedTuple} && all(is_plain, x)

# A dependency's value: readable for what is short, so that NPCache.explain can show it; else the key of it.
function dependency_value(cache, x, place)
    if is_plain(x)
        text = string(typeof(x), ' ', literal(x))
        return sizeof(text) <= 200 && !occursin('\0', text) ? text : "sha256:" * bytes2hex(SHA.sha256(text))
    end
    return "key:" * raw_key(cache, "value", "", Pair{String,String}[], (x,), NamedTuple(), place)
end

# The variables that a closure captures, or the fields of a callable object, and the types that it is made with. `self`
# is the cached function: that a closure calls itself is no variable.
function captured(cache, f, self, dependencies)
    T, bodies = typeof(f), Set{Type}()
    for name in fieldnames(T)
        value = getfield(f, name)
        value isa Core.Box && (value = isdefined(value, :contents) ? value.contents : continue)
        (value === self || value === f || value isa Cache) && continue
        if value isa Function && startswith(string(name), '#')
            # The body of a closure with keyword arguments, a function that Julia makes of it, of another name in every run.
            push!(bodies, typeof(value))
            captured(cache, value, self, dependencies)
            continue
        end
        push!(dependencies, "captured $name" => dependency_value(cache, value, "captured variable `$name`"))
    end
    types = filter(parameter -> !(parameter in bodies), collect(Any, T.parameters))
    isempty(types) || push!(dependencies, "captured types" => join(types, ", "))
    return dependencies
end

# The global that a path leads to, past modules, and of how many of its names; nothing where there is none, or one of
# Julia's own.
function global_at(mod, path)
    for n in 1:length(path)
        isdefined(mod, path[n]) && !(Base.binding_module(mod, path[n]) in (Base, Core)) || return nothing
        value = getfield(mod, path[n])
        value isa Module && n < length(path) || return value, n
        mod = value
    end
end

# The values of the globals that a definition names, as far as they are plain.
function globals(cache, mod, names, name, dependencies)
    for path in names
        found = global_at(mod, path)
        found === nothing && continue
        value, n = found
        value isa Union{Function,Type,Module,Cache,Cached} && continue
        global_name = n == 1 ? string(path[1]) : join(path[1:n], '.')
        if is_plain(value)
            dependency = "global $global_name"
            # `a.b` and `a.c` are of one global, if `a` is no module.
            any(given -> first(given) == dependency, dependencies) ||
                push!(dependencies, dependency => dependency_value(cache, value, "global `$global_name`"))
        else
            warn_once(cache, (name, global_name),
                      "the cached function $name names the global `$global_name`, a $(typeof(value)): NPCache does not see " *
                      "when it changes. Pass it as an argument, or say @cached cache depends=$global_name …")
        end
    end
    return dependencies
end
