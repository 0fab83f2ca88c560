# The Julia host of test_hosts.py, with the package NPCache: host.py says what it reads and answers.
#
#     julia --project=julia/NPCache tests/hosts/host.jl CACHE

using NPCache
include(joinpath(@__DIR__, "..", "..", "julia", "NPCache", "test", "vectors.jl"))

const CACHE = NPCache.open(ARGS[1])
const VECTORS = read_vectors()

# What the function is to return; it captures nothing, since that would count.
const RESULT = Ref{Any}()
const CALLED = Ref(false)
returned(args...; kwargs...) = (CALLED[] = true; made(RESULT[]...))

# The array that `compute` describes, a number where it has no dimensions.
made(dtype, shape, order, data) = made(NPCache.ELEMENTS[parse(Int, dtype)], numbers(shape), order, hex2bytes(strip(data, '-')))
function made(T::Type, shape, order, bytes)
    elements = collect(reinterpret(T, bytes))
    isempty(shape) && return elements[1]
    (order == "f" || length(shape) == 1) && return reshape(elements, shape...)
    backwards = length(shape):-1:1
    return PermutedDimsArray(reshape(elements, reverse(shape)...), backwards)
end
numbers(word) = word == "-" ? Int[] : parse.(Int, split(word, ','))

function answer(vector, result)
    arguments = vector["arguments"]
    # No bytes in place of arguments, no dependencies by a name of one's own, and arrays are always column-major here. What
    # is nested 64 deep has a type of that depth, which takes Julia minutes to compile for.
    (haskey(arguments, "ready") || !isempty(vector["dependencies"]) || vector["layout"] == "strict" ||
     occursin("64 deep", vector["description"])) && return "cannot"
    positional, keyword = try
        julia_value.(arguments["positional"]), [Symbol(text_of(name)) => julia_value(value) for (name, value) in arguments["keyword"]]
    catch e
        e isa Inexpressible || rethrow()
        return "cannot"
    end
    RESULT[], CALLED[] = result, false
    f = cached(returned, CACHE; name=vector["name"], version=vector["version"], view=true)
    found = f(positional...; keyword...)
    T, shape = eltype(found), isempty(size(found)) ? "-" : join(size(found), ',')
    dtype = findfirst(==(T), NPCache.ELEMENTS)
    column_major = ndims(found) > 1 && found isa NPCache.ReadOnlyArray
    in_order = found isa PermutedDimsArray ? vec(parent(found)) : found isa AbstractArray ? vec(found) : [found]
    bytes = bytes2hex(collect(reinterpret(UInt8, collect(in_order))))
    return "$(CALLED[] ? "computed" : "found") $dtype $shape $(column_major ? 'f' : 'c') $(isempty(bytes) ? "-" : bytes)"
end

for line in eachline(stdin)
    words = String.(split(line))
    println(words[2], ' ', answer(VECTORS[parse(Int, words[2])+1], words[3:end]))
    flush(stdout)
end
