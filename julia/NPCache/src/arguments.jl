# From Julia's values to the arguments of a call, docs/keys.md: the same call has the same key as in Python and C.
#
# The library's arguments do not tell apart what only Julia does: an Int32 from an Int64, a Symbol from a String, a
# NamedTuple from a Dict. Julia's functions do, `typemax(x)` for one, so that these would take each other's results.
# Of the types that share an encoding, one is plain, the one that a literal has; where another occurs, its place and
# name become a dependency of the call, "julia types".

# NPCACHE_BOOL and its like; 0 for a type that the library does not have.
dtype(::Type) = Int32(0)
const ELEMENTS = (Bool, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float16, Float32, Float64,
                  ComplexF32, ComplexF64)
for (number, T) in enumerate(ELEMENTS)
    @eval dtype(::Type{$T}) = $(Int32(number))
end
const Element = Union{ELEMENTS...}

"""
    NPCache.File(path)

As an argument, the contents of a file. They are read at the call; the name does not count.
"""
struct File
    path::String
end

"""
    NPCache.describe(x)

What stands for `x` as an argument of a cached call: everything that a result can depend on. Add a method for a type of
your own; what it returns is numbers, strings, arrays, and tuples, named tuples and dictionaries of them.

    NPCache.describe(grid::Grid) = (grid.points, grid.spacing)

The name of the type counts too.
"""
describe(x) = nothing

# What is being built: the library's arguments, and the places of values whose type is not the plain one.
struct Arguments
    handle::Handle
    types::Vector{String}
end

mark!(to::Arguments, place, T) = push!(to.types, string(place_name(place), ' ', T))

# A place is an argument's number or name, or that of what contains it and the number or name in there, `Inside`; a text is
# for what is no argument. No tuple, whose type would differ at every depth and have the methods compiled for each.
struct Inside
    outer::Any
    step::Any
end

place_name(place::Inside) = string(place_name(place.outer), '.', step_name(place.step))
place_name(place) = string(place)

# No two steps have one name: a key that has a dot in it would be two.
step_name(step::Int) = string(step)
step_name(key) = (name = string(key); occursin(r"^\w+$", name) ? name : repr(name))

in_words(place::Inside) = string(in_words(place.outer), '.', place.step)
in_words(place::String) = place
in_words(place) = "argument $place"

add!(to::Arguments, x, place) = add_described!(to, x, place, function_or_other(x))

function_or_other(x) = "which has no encoding that NPCache knows: " * way_out(x)
function_or_other(f::Function) = "whose code NPCache cannot see: pass a name for it, or wrap a function that calls it"

way_out(x) = "pass what it stands for, or say what identifies it: NPCache.describe(x::$(nameof(typeof(x)))) = (x.a, x.b)"

# What describe says of `x`; `reason` is why it has to.
function add_described!(to::Arguments, x, place, reason)
    described = describe(x)
    described === nothing && refuse("$(in_words(place)) is a $(typeof(x)), $reason")
    mark!(to, place, typeof(x))
    add!(to, described, place)
end

add!(to::Arguments, ::Nothing, place) = @c npcache_args_add_null(to.handle::Handle)::Int32
add!(to::Arguments, x::Bool, place) = @c npcache_args_add_bool(to.handle::Handle, x::Int32)::Int32

add!(to::Arguments, x::Int64, place) = @c npcache_args_add_int(to.handle::Handle, x::Int64)::Int32

function add!(to::Arguments, x::Union{Int8,Int16,Int32,UInt8,UInt16,UInt32}, place)
    mark!(to, place, typeof(x))
    add!(to, Int64(x), place)
end

# The type that the literal of this value has: Int64, Int128 or BigInt.
plain_integer(x) = typemin(Int64) <= x <= typemax(Int64) ? Int64 : typemin(Int128) <= x <= typemax(Int128) ? Int128 : BigInt

function add!(to::Arguments, x::Union{UInt64,Int128,UInt128,BigInt}, place)
    typeof(x) === plain_integer(x) || mark!(to, place, typeof(x))
    # Through BigInt: the absolute value of typemin(Int128) has no Int128.
    magnitude = hex2bytes(even(string(abs(BigInt(x)); base=16)))
    @c npcache_args_add_bigint(to.handle::Handle, (x < 0)::Int32, magnitude::Ptr{UInt8}, length(magnitude)::Csize_t)::Int32
end

even(digits) = isodd(length(digits)) ? "0" * digits : digits

function add!(to::Arguments, x::Union{Float16,Float32,Float64,ComplexF32,ComplexF64}, place)
    value = Ref(x)
    @c npcache_args_add_scalar(to.handle::Handle, dtype(typeof(x))::Int32, value::Ptr{Cvoid})::Int32
end

function add!(to::Arguments, x::String, place)
    @blocking npcache_args_add_string(to.handle::Handle, x::Ptr{UInt8}, sizeof(x)::Csize_t)::Int32
end
add!(to::Arguments, x::SubString{String}, place) = add!(to, String(x), place)

function add!(to::Arguments, x::Symbol, place)
    mark!(to, place, Symbol)
    add!(to, string(x), place)
end

# The literal b"...".
function add!(to::Arguments, x::Base.CodeUnits{UInt8,String}, place)
    @blocking npcache_args_add_bytes(to.handle::Handle, x.s::Ptr{UInt8}, sizeof(x.s)::Csize_t)::Int32
end

# An element type, as in zeros(T, n).
function add!(to::Arguments, T::Type, place)
    dtype(T) == 0 && refuse("$(in_words(place)) is the type $T; of types, only element types are arguments: " *
                            join(ELEMENTS, ", "))
    mark!(to, place, Type)
    add!(to, string(T), place)
end

function add!(to::Arguments, file::File, place)
    status = @blocking npcache_args_add_file(to.handle::Handle, file.path::Cstring)::Int32
    status == OK || refuse("$(in_words(place)): the file $(repr(file.path)) cannot be read")
end

add!(to::Arguments, @nospecialize(x::Tuple), place) = add_list!(to, x, place)

function add!(to::Arguments, @nospecialize(x::AbstractDict), place)
    # Another dictionary can have an order.
    x isa Dict || mark!(to, place, string(typeof(x), collect(keys(x))))
    add_map!(to, x, place)
end

function add!(to::Arguments, x::NamedTuple, place)
    # Of equal names in another order, as the values of a NamedTuple have an order.
    mark!(to, place, string("NamedTuple", keys(x)))
    add_map!(to, x, place)
end

function add_map!(to::Arguments, @nospecialize(x), place)
    @c npcache_args_begin_map(to.handle::Handle)::Int32
    for (key, item) in pairs(x)
        key isa Union{Symbol,AbstractString} ||
            refuse("$(in_words(place)) is a map with the key $(repr(key)): keys are strings or symbols")
        key isa Symbol && x isa AbstractDict && mark!(to, Inside(place, key), "Symbol key")
        add_named!(to, string(key), item, Inside(place, key))
    end
    @c npcache_args_end(to.handle::Handle)::Int32
end

function add_named!(to::Arguments, name, @nospecialize(x), place)
    @c npcache_args_key(to.handle::Handle, name::Cstring)::Int32
    add!(to, x, place)
end

function add!(to::Arguments, x::AbstractArray, place)
    T = eltype(x)
    if dtype(T) != 0 && can_be_read(x)
        # Without dimensions, a complex number and an array of one have the same encoding.
        ndims(x) == 0 && T <: Complex && mark!(to, place, typeof(x))
        add_array!(to, x, place)
    elseif dtype(T) == 0 && x isa Vector
        mark!(to, place, typeof(x))
        add_list!(to, x, place)
    elseif dtype(T) != 0
        add_described!(to, x, place, "an array whose memory NPCache cannot read: pass Array(x), or " * way_out(x))
    else
        add_described!(to, x, place, "an array of other elements than $(join(ELEMENTS, ", ")): convert them, or pass a " *
                                     "vector or a tuple of what stands for them")
    end
end

function add_list!(to::Arguments, @nospecialize(x), place)
    @c npcache_args_begin_list(to.handle::Handle)::Int32
    for (i, item) in enumerate(x)
        add!(to, item, Inside(place, i))
    end
    @c npcache_args_end(to.handle::Handle)::Int32
end

function add_array!(to::Arguments, x::AbstractArray, place)
    memory = memory_of(x)
    root, T, n = memory.root, eltype(x), ndims(x)
    shape, strides = collect(Int64, size(x)), collect(Int64, memory.strides)
    # The buffer begins at the lowest address; with a negative stride, the first element is not there.
    low = high = 0
    for (length, stride) in zip(shape, strides)
        length > 0 && (stride < 0 ? low += (length - 1) * stride : high += (length - 1) * stride)
    end
    bytes = isempty(x) ? 0 : high - low + sizeof(T)
    GC.@preserve root @blocking npcache_args_add_array(
        to.handle::Handle, dtype(T)::Int32, n::Int32, shape::Ptr{Int64}, strides::Ptr{Int64},
        (memory.pointer + low)::Ptr{Cvoid}, bytes::Csize_t, (-low)::Csize_t)::Int32
end

# ------------------------------------------------------------------------------------------------ the memory of arrays

# Where an array's elements lie: the first one's address, the strides in bytes, and the object that keeps them there.
struct Memory
    root::Any
    pointer::Ptr{Cvoid}
    strides::Dims
end

# Longer ranges are no arguments: as arrays they would have to be made first.
const RANGE_BYTES = 1 << 30

# Whether an array is one of Base's own, so that its elements are what it says, with indices from 1.
can_be_read(x::AbstractArray) = known(x) && !Base.has_offset_axes(x)
can_be_read(x::AbstractRange) = !Base.has_offset_axes(x) && length(x) <= RANGE_BYTES ÷ sizeof(eltype(x))

const Wrapper = Union{SubArray,Base.ReshapedArray,Base.ReinterpretArray,PermutedDimsArray,Transpose,Adjoint}
known(::AbstractArray) = false
known(::Union{Array,BitArray,AbstractRange}) = true
known(x::Wrapper) = known(parent(x))

# Of a strided array, its own memory; of another, that of a copy.
memory_of(x::Array) = Memory(x, pointer(x), sizeof(eltype(x)) .* strides(x))

function memory_of(x::AbstractArray)
    base = base_of(x)
    base === nothing && return memory_of(Array(x))
    root, start, steps = base
    return Memory(root, start, sizeof(eltype(x)) .* steps)
end

# The owner of the memory of a strided array, the address of its first element, and its strides in elements; nothing
# for an array without strides.
base_of(x::AbstractArray) = nothing
base_of(x::Array) = x, convert(Ptr{Cvoid}, pointer(x)), strides(x)

function base_of(x::PermutedDimsArray{T,N,perm}) where {T,N,perm}
    base = base_of(parent(x))
    base === nothing && return nothing
    return base[1], base[2], map(d -> base[3][d], perm)
end

function base_of(x::Union{Transpose{T},Adjoint{T}}) where {T<:Union{Real,Complex}}
    x isa Adjoint && T <: Complex && return nothing
    base = base_of(parent(x))
    base === nothing && return nothing
    steps = base[3]
    # A transposed vector is one row; the step along its one column is never taken.
    return base[1], base[2], length(steps) == 1 ? (steps[1], steps[1]) : (steps[2], steps[1])
end

const Strided = Union{Integer,AbstractRange{<:Integer},Base.Slice}

function base_of(x::SubArray)
    all(index -> index isa Strided, x.indices) || return nothing
    base = base_of(parent(x))
    base === nothing && return nothing
    root, start, steps = base
    # A view by one index into an array of several dimensions counts through all of them.
    length(x.indices) == length(steps) || return nothing
    isempty(x) && return root, start, map(_ -> 1, size(x))
    offset = 0
    for (index, by) in zip(x.indices, steps)
        offset += (first(index) - 1) * by
    end
    kept = Tuple(step(index) * by for (index, by) in zip(x.indices, steps) if !(index isa Integer))
    return root, start + offset * sizeof(eltype(x)), kept
end
