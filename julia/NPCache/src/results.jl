# Between the arrays of a stored result and Julia's values.
#
# A result is one array or number, or tuples, named tuples and dictionaries of them, which the names of the arrays tell:
# docs/results.md. Numbers are arrays without dimensions.

# One reference to a result of the library's.
mutable struct Buffer
    handle::Handle
    Buffer(handle::Handle) = finalizer(release!, new(handle))
end

# Of the library, any thread may call it at any time and it waits for nothing: so a finalizer may too.
function release!(buffer::Buffer)
    handle, buffer.handle = buffer.handle, C_NULL
    @c npcache_buffer_release(handle::Handle)::Cvoid
end

# npcache_view.
struct View
    data::Ptr{Cvoid}
    nbytes::Csize_t
    shape::Ptr{Int64}
    strides::Ptr{Int64}
    descr::Ptr{UInt8}
    name::Ptr{UInt8}
    dtype::Int32
    ndim::Int32
    itemsize::Int64
    flags::UInt32
end

"""
A stored array, without a copy and read-only: it has no `setindex!`. It keeps the memory, which may be a mapped file, as
long as it lives, whatever becomes of the cache. `copy` or `Array` of it is an ordinary array.
"""
struct ReadOnlyArray{T,N} <: AbstractArray{T,N}
    pointer::Ptr{T}
    size::Dims{N}
    owner::Union{Buffer,Array{T,N}}
end

Base.size(a::ReadOnlyArray) = a.size
Base.IndexStyle(::Type{<:ReadOnlyArray}) = IndexLinear()

Base.@propagate_inbounds function Base.getindex(a::ReadOnlyArray, i::Int)
    @boundscheck checkbounds(a, i)
    owner = a.owner
    return GC.@preserve owner unsafe_load(a.pointer, i)
end

Base.strides(a::ReadOnlyArray) = Base.size_to_strides(1, a.size...)
Base.elsize(::Type{ReadOnlyArray{T,N}}) where {T,N} = sizeof(T)
Base.unsafe_convert(::Type{Ptr{T}}, a::ReadOnlyArray{T}) where {T} = a.pointer
Base.copy(a::ReadOnlyArray{T,N}) where {T,N} = copyto!(Array{T,N}(undef, a.size), a)

function Base.copyto!(to::Array{T}, from::ReadOnlyArray{T}) where {T}
    length(to) >= length(from) || throw(BoundsError(to, 1:length(from)))
    owner = from.owner
    GC.@preserve owner to unsafe_copyto!(pointer(to), from.pointer, length(from))
    return to
end

# A copy of the owner would have the handle, and not keep the memory.
Base.deepcopy_internal(a::ReadOnlyArray, ::IdDict) = a

# Another process has no handle: it gets the elements.
function Serialization.serialize(s::AbstractSerializer, a::ReadOnlyArray)
    Serialization.serialize_type(s, typeof(a))
    serialize(s, copy(a))
end

function Serialization.deserialize(s::AbstractSerializer, ::Type{ReadOnlyArray{T,N}}) where {T,N}
    elements = deserialize(s)::Array{T,N}
    return ReadOnlyArray(pointer(elements), size(elements), elements)
end

known(::ReadOnlyArray) = true
base_of(a::ReadOnlyArray) = a.owner, convert(Ptr{Cvoid}, a.pointer), strides(a)

# ----------------------------------------------------------------------------------------------------------- reading

# The value of a result: arrays copied, or with `view` read-only on its memory, which keep it.
function value_of(buffer::Buffer, view::Bool)
    count = @c npcache_buffer_count(buffer.handle::Handle)::Int32
    named = [array_of(buffer, i, view) for i in 0:count-1]
    view || release!(buffer)
    names, values = first.(named), last.(named)
    count == 1 && isempty(names[1]) && return values[1]
    try
        return put_together([(place_of(name)..., value) for (name, value) in zip(names, values)])
    catch e
        e isa Misfit || rethrow()
    end
    # Another program's names.
    return any(isempty, names) ? Tuple(values) : NamedTuple{Tuple(Symbol.(names))}(Tuple(values))
end

function array_of(buffer::Buffer, i, view::Bool)
    description = Ref{View}()
    err = Ref{Handle}(C_NULL)
    check(@c(npcache_buffer_view(buffer.handle::Handle, i::Int32, description::Ref{View}, sizeof(View)::Csize_t)::Int32), err)
    v = description[]
    name = v.name == C_NULL ? "" : unsafe_string(v.name)
    v.dtype in 1:length(ELEMENTS) ||
        throw(NPCacheError(ERR_DTYPE, "the stored result has an array of numpy's type $(unsafe_string(v.descr)), which " *
                                      "Julia has no type for: another program stored it; give the function another name"))
    # The type is a value here: a function barrier.
    return name, array_of(buffer, i, v, ELEMENTS[v.dtype], view)
end

function array_of(buffer::Buffer, i, v::View, ::Type{T}, view::Bool) where {T}
    shape = ntuple(d -> Int(unsafe_load(v.shape, d)), Int(v.ndim))
    isempty(shape) && return GC.@preserve buffer unsafe_load(convert(Ptr{T}, v.data))
    if view
        data = convert(Ptr{T}, v.data)
        column_major = v.flags & ORDER_F != 0 || length(shape) == 1
        return column_major ? ReadOnlyArray(data, shape, buffer) : c_order(ReadOnlyArray(data, reverse(shape), buffer))
    end
    array = Array{T}(undef, shape)
    # A GC.@preserve of both: the call has their addresses only.
    status = GC.@preserve buffer array @blocking npcache_buffer_read(
        buffer.handle::Handle, i::Int32, pointer(array)::Ptr{Cvoid}, v.nbytes::Csize_t, ORDER_F::UInt32)::Int32
    status == OK || throw(NPCacheError(status, "a stored array cannot be read: $(status_text(status))"))
    return array
end

# The array whose C order is the memory order of `reversed`.
c_order(reversed::ReadOnlyArray{T,N}) where {T,N} = PermutedDimsArray(reversed, ntuple(d -> N + 1 - d, N))

# ------------------------------------------------------------------------------------------------------------- names

# One step into a result: a key, and what it is a key of, the name of one of the captures of STEP.
struct Step
    container::Symbol
    key::String
end

const CONTAINERS = (:tuple, :list, :map, :object, :map, :map)
const STEP = r"([0-9]+)|\[([0-9]+)\]|\{(-?[0-9]+)\}|<([^<>/]*)>|(\"(?:[^\"\\]|\\.)*\")|([^\W\d][\w .\-]*)"

# Names that are no places, or places that do not fit together.
struct Misfit <: Exception end

# The steps that a name says, and the kind.
function place_of(name)
    steps, i = Step[], 1
    while i <= ncodeunits(name) && name[i] != ':'
        isempty(steps) || (name[i] == '/' ? i += 1 : throw(Misfit()))
        found = match(STEP, name, i)
        (found === nothing || found.offset != i) && throw(Misfit())
        which = findfirst(!isnothing, found.captures)
        key = found.captures[which]
        push!(steps, Step(CONTAINERS[which], startswith(key, '"') ? unquoted(key) : key))
        i += ncodeunits(found.match)
    end
    return steps, i > ncodeunits(name) ? "" : name[i+1:end]
end

# A text of JSON, whose escapes are of UTF-16.
function unquoted(text)
    units = UInt16[]
    for part in eachmatch(r"\\u([0-9a-fA-F]{4})|\\([^u])|([^\\]+)", chop(text; head=1, tail=1))
        code, escape, plain = part.captures
        append!(units, code !== nothing ? [parse(UInt16, code; base=16)] :
                       transcode(UInt16, String(something(plain, get(UNESCAPED, escape, escape)))))
    end
    return transcode(String, units)
end
const UNESCAPED = Dict("n" => "\n", "t" => "\t", "r" => "\r", "b" => "\b", "f" => "\f")

# The value of arrays that lie in one place: of each, the steps from there on, its kind, and itself.
function put_together(arrays)
    steps, kind, value = arrays[1]
    if isempty(steps)
        length(arrays) == 1 || throw(Misfit())
        return of_kind(kind, value)
    end
    container = steps[1].container
    all(array -> !isempty(array[1]) && array[1][1].container === container, arrays) || throw(Misfit())
    names = unique(array[1][1].key for array in arrays)
    values = Tuple(put_together([(array[1][2:end], array[2], array[3]) for array in arrays if array[1][1].key == name])
                   for name in names)
    container === :map && return NamedTuple{Tuple(Symbol.(names))}(values)
    # An object of Python's is what it is made of.
    container === :object && return length(names) == 1 ? values[1] : throw(Misfit())
    return names == string.(0:length(names)-1) ? values : throw(Misfit())
end

function of_kind(kind, value)
    kind in ("", "array", "float", "bool", "complex") && return value
    kind == "int" && return value isa AbstractArray ? parse(BigInt, String(Vector{UInt8}(value))) : value
    kind == "str" && return String(Vector{UInt8}(value))
    kind == "bytes" && return Vector{UInt8}(value)
    kind == "None" && return nothing
    kind in ("()", "[]") && return ()
    kind == "{}" && return NamedTuple()
    throw(Misfit())
end

function path_of(buffer::Buffer)
    path = @c npcache_buffer_path(buffer.handle::Handle)::Ptr{UInt8}
    return path == C_NULL ? nothing : GC.@preserve buffer unsafe_string(path)
end

# ----------------------------------------------------------------------------------------------------------- writing

const RESULTS = "results are numbers, arrays of $(join(ELEMENTS, ", ")), and tuples and named tuples of these"

# Adds what a function returned, or a part of it in `place`, to what the library stores.
function write_result(todo::Handle, result::Tuple, place="")
    isempty(result) && refuse("the function returned an empty tuple; $RESULTS")
    for (i, item) in enumerate(result)
        write_result(todo, item, inside(place, string(i - 1)))
    end
end

write_result(todo::Handle, result::NamedTuple, place="") = write_named(todo, pairs(result), place)

function write_result(todo::Handle, result::AbstractDict, place="")
    all(key -> key isa Union{Symbol,AbstractString}, keys(result)) ||
        refuse("the function returned a dictionary whose keys are not all strings or symbols; $RESULTS")
    # Sorted: a dictionary has no order, and the file's should not depend on that.
    write_named(todo, sort!([string(key) => item for (key, item) in result]; by=first), place)
end

function write_named(todo::Handle, result, place)
    isempty(result) && refuse("the function returned nothing by a name; $RESULTS")
    for (name, item) in result
        write_result(todo, item, inside(place, step_of(string(name))))
    end
end

inside(place, step) = isempty(place) ? step : string(place, '/', step)

# A key of a map; in quotes where it would be taken for something else.
step_of(key) = occursin(r"^[\p{L}_][\p{L}\p{N}_ .\-]*$", key) ? key : string('"', replace(key, r"[\"\\\x01-\x1f]" => escaped), '"')
escaped(char) = char in ("\"", "\\") ? "\\" * char : "\\u" * string(UInt32(only(char)); base=16, pad=4)

write_result(todo::Handle, result::Element, place="") = write_array(todo, place, fill(result))
write_result(todo::Handle, result::AbstractArray, place="") = write_array(todo, place, result)
write_result(todo::Handle, result, place="") = refuse("the function returned a $(typeof(result)); $RESULTS")

function write_array(todo::Handle, name, item::AbstractArray)
    dtype(eltype(item)) == 0 && refuse("the function returned an array of $(eltype(item)); $RESULTS: convert it")
    known(item) && !Base.has_offset_axes(item) ||
        refuse("the function returned a $(typeof(item)), an array whose memory NPCache cannot read: return Array(x)")
    memory = memory_of(dense(item))
    shape, strides, root = collect(Int64, size(item)), collect(Int64, memory.strides), memory.root
    GC.@preserve root @blocking npcache_output_write(
        todo::Handle, name::Cstring, dtype(eltype(item))::Int32, ndims(item)::Int32, shape::Ptr{Int64},
        strides::Ptr{Int64}, memory.pointer::Ptr{Cvoid})::Int32
end

# The library keeps column-major and row-major arrays as they lie; what has gaps, it would make row-major.
dense(item::Array) = item
dense(item::Union{Transpose,PermutedDimsArray}) = parent(item) isa Array && ndims(parent(item)) > 1 ? item : Array(item)
dense(item::AbstractArray) = Array(item)

# Whether a result is, type for type, what reading it back would give: then it need not be read back.
reads_back(::Element) = true
reads_back(x::Array{T,N}) where {T,N} = dtype(T) != 0 && N > 0
reads_back(x::Union{Tuple,NamedTuple}) = all(reads_back, x)
reads_back(x) = false
