# One call, one key: that of tests/vectors/keys.json, which every host is held to.

# ------------------------------------------------------------------------------------------------ a small JSON reader

# From the character at `i` on: the value, and where it ends.
function json(text, i=firstindex(text))
    i = blank(text, i)
    c = text[i]
    c == '"' && return json_string(text, i)
    c == '[' && return json_items(text, i, ']', Any[], (items, text, i) -> begin
        value, i = json(text, i)
        push!(items, value)
        i
    end)
    c == '{' && return json_items(text, i, '}', Dict{String,Any}(), (items, text, i) -> begin
        name, i = json_string(text, blank(text, i))
        value, i = json(text, blank(text, i) + 1)
        items[name] = value
        i
    end)
    for (word, value) in ("null" => nothing, "true" => true, "false" => false)
        startswith(SubString(text, i), word) && return value, i + length(word)
    end
    number = match(r"-?[0-9]+", text, i)
    return parse(Int, number.match), i + length(number.match)
end

function blank(text, i)
    while isspace(text[i])
        i = nextind(text, i)
    end
    return i
end

function json_items(text, i, last, items, read)
    i = blank(text, i + 1)
    while text[i] != last
        i = blank(text, read(items, text, i))
        text[i] == ',' && (i = blank(text, i + 1))
    end
    return items, i + 1
end

function json_string(text, i)
    io = IOBuffer()
    i += 1
    while text[i] != '"'
        if text[i] == '\\'
            escape = text[i+1]
            i += 2
            if escape == 'u'
                code = parse(UInt32, text[i:i+3]; base=16)
                i += 4
                if 0xd800 <= code < 0xdc00
                    code = 0x10000 + (code - 0xd800) << 10 + (parse(UInt32, text[i+2:i+5]; base=16) - 0xdc00)
                    i += 6
                end
                print(io, Char(code))
            else
                print(io, get(Dict('n' => '\n', 't' => '\t', 'r' => '\r', 'b' => '\b', 'f' => '\f'), escape, escape))
            end
        else
            print(io, text[i])
            i = nextind(text, i)
        end
    end
    return String(take!(io)), i + 1
end

# --------------------------------------------------------------------------------- from the notation to Julia's values

# What Julia has no value for.
struct Inexpressible <: Exception end

bytes_of(data::String) = hex2bytes(data)
bytes_of(data) = multiply(UInt32(data["multiply"]), data["length"])
multiply(k::UInt32, length::Int) = UInt8[(i % UInt32 * k) >> 24 for i in 0:length-1]
text_of(text::String) = text
text_of(text) = text["repeat"]^text["times"]

const ELEMENT_OF = Dict("|b1" => Bool, "|i1" => Int8, "<i2" => Int16, "<i4" => Int32, "<i8" => Int64, "|u1" => UInt8,
                        "<u2" => UInt16, "<u4" => UInt32, "<u8" => UInt64, "<f2" => Float16, "<f4" => Float32,
                        "<f8" => Float64, "<c8" => ComplexF32, "<c16" => ComplexF64)

bits(T, digits) = reinterpret(T, parse(Dict(2 => UInt16, 4 => UInt32, 8 => UInt64)[sizeof(T)], digits; base=16))

# The type that a literal of the value has.
plain(x::BigInt) = convert(NPCache.plain_integer(x), x)

julia_value(x::Union{Nothing,Bool}) = x
function julia_value(x)
    kind, of = only(x)
    kind == "int" && return plain(parse(BigInt, of))
    kind == "bigint" && return plain((of["negative"] ? -1 : 1) * parse(BigInt, "0" * bytes2hex(bytes_of(of["magnitude"])); base=16))
    kind == "float16" && return bits(Float16, of)
    kind == "float32" && return bits(Float32, of)
    kind == "float64" && return bits(Float64, of)
    kind == "complex64" && return ComplexF32(bits(Float32, of[1]), bits(Float32, of[2]))
    kind == "complex128" && return ComplexF64(bits(Float64, of[1]), bits(Float64, of[2]))
    kind == "text" && return text_of(of)
    kind == "bytes" && return codeunits(String(bytes_of(of)))
    kind == "list" && return Tuple(julia_value.(of))
    kind == "map" && return Dict(text_of(name) => julia_value(value) for (name, value) in of)
    kind == "array" && return julia_array(of)
    kind == "file" && return (path = tempname(); write(path, bytes_of(of)); NPCache.File(path))
    kind == "nested" && return foldl((inner, _) -> of["of"] == "list" ? (inner,) : Dict("k" => inner), 1:of["depth"]; init=julia_value(of["value"]))
    throw(Inexpressible())
end

# The elements that the strides reach, as an ordinary array: the memory order is no part of the key.
function julia_array(array)
    T = get(() -> throw(Inexpressible()), ELEMENT_OF, array["descr"])
    memory, shape = bytes_of(array["buffer"]), Int.(array["shape"])
    strides = something(array["strides"], reverse(cumprod([sizeof(T); reverse(shape)])[1:end-1]))
    # A bool byte of 2 is no Bool of Julia's.
    T === Bool && !all(byte -> byte in (0, 1), memory) && throw(Inexpressible())
    result = Array{T}(undef, shape...)
    read_elements!(result, memory, array["offset"], Dims(strides))
    # 0-dimensional, and complex: Julia's number is the plain value of that encoding.
    return T <: Complex && isempty(shape) ? result[] : result
end

function read_elements!(result::Array{T}, memory, offset, strides) where {T}
    GC.@preserve memory for index in CartesianIndices(result)
        result[index] = unsafe_load(Ptr{T}(pointer(memory) + offset + reduce(+, (Tuple(index) .- 1) .* strides; init=0)))
    end
end

# The array in other orders of memory.
layouts(x) = [x]
function layouts(x::Array)
    N = ndims(x)
    # For two types: every type has all of this compiled anew.
    (N == 0 || N > 4 || isempty(x) || !(eltype(x) in (Float64, Int16))) && return [x]
    backwards = ntuple(d -> N + 1 - d, N)
    flipped = ntuple(d -> size(x, d):-1:1, N)
    gaps = zeros(eltype(x), size(x) .* 2 .+ 1)
    inside = view(gaps, ntuple(d -> 2:2:2*size(x, d), N)...)
    copyto!(inside, x)
    return [x, PermutedDimsArray(permutedims(x, backwards), backwards), view(x[flipped...], flipped...), inside]
end

@testset "the keys are those of the golden vectors" begin
    vectors, _ = json(read(joinpath(ROOT, "tests", "vectors", "keys.json"), String))
    cache = NPCache.open(nothing)
    held, left_out = 0, String[]
    for vector in vectors["vectors"]
        arguments = vector["arguments"]
        key = try
            haskey(arguments, "ready") && throw(Inexpressible())
            vector["layout"] == "equal" || throw(Inexpressible())
            positional = julia_value.(arguments["positional"])
            keyword = Dict(text_of(name) => julia_value(value) for (name, value) in arguments["keyword"])
            dependencies = [name => value for (name, value) in vector["dependencies"]]
            map(any(x -> x isa Array, positional) ? [1, 2, 3, 4] : [1]) do layout
                chosen = map(x -> (all = layouts(x); all[min(layout, length(all))]), positional)
                NPCache.raw_key(cache, vector["name"], vector["version"], dependencies, chosen, keyword)
            end
        catch e
            e isa Inexpressible || rethrow()
            push!(left_out, vector["description"])
            continue
        end
        held += 1
        @test all(==(vector["key"]), key) || (vector["description"], key, vector["key"])
    end
    @test held > 2 * length(left_out)
    println("keys.json: $held vectors held, $(length(left_out)) have no value in Julia")
end

# The key of a call of `solve`.
const NOWHERE = NPCache.open(nothing)
key_for(args...; kwargs...) = NPCache.raw_key(NOWHERE, "solve", "1", Pair{String,String}[], args, kwargs)

@testset "an array is its elements, however it lies in memory" begin
    a = reshape(collect(1.0:24.0), 2, 3, 4)
    plain = key_for(a)
    @test key_for(view(cat(a, a; dims=1), 1:2, :, :)) == plain
    @test key_for(PermutedDimsArray(permutedims(a, (3, 1, 2)), (2, 3, 1))) == plain
    @test key_for(view(reverse(a; dims=3), :, :, 4:-1:1)) == plain
    @test key_for(reshape(view(a, :), 2, 3, 4)) == plain
    m = a[:, :, 1]
    @test key_for(transpose(permutedims(m))) == key_for(permutedims(m)') == key_for(m)
    @test key_for(view(a, 2, :, 3)) == key_for(a[2, :, 3])
    @test key_for(view(a, [2, 1], :, 3)) == key_for(a[[2, 1], :, 3])
    @test key_for(view(a, 3:2:9)) == key_for(a[3:2:9])
    @test key_for(view(transpose(m), 2:3, 2)) == key_for(m[2, 2:3])
    @test key_for(transpose([1.0, 2.0])) == key_for([1.0 2.0])
    complex = [1.0+2im 3.0; 4.0 5.0im]
    @test key_for(complex') == key_for(Array(complex')) != key_for(transpose(complex)) == key_for(Array(transpose(complex)))
    @test key_for(trues(5)) == key_for(fill(true, 5))
    @test key_for(view(trues(2, 3), :, 2)) == key_for(fill(true, 2))
    @test key_for(1:5) == key_for([1, 2, 3, 4, 5]) != key_for(1.0:5.0) == key_for([1.0, 2.0, 3.0, 4.0, 5.0])
    @test key_for(reinterpret(Int64, [1.0, 2.0])) == key_for(reinterpret.(Int64, [1.0, 2.0]))
    @test key_for(zeros(0, 3)) != key_for(zeros(3, 0))
    @test key_for(view(zeros(4, 3), 2:1, 3:-1:1)) == key_for(zeros(0, 3))
    @test key_for(fill(1.0)) != key_for([1.0])
    @test_throws NPCacheError key_for(1:10^10)
end

struct Grid
    points::Int
    spacing::Float64
end
NPCache.describe(g::Grid) = (g.points, g.spacing)

struct Other
    points::Int
    spacing::Float64
end
NPCache.describe(g::Other) = (g.points, g.spacing)

struct Unknown end

@testset "what Julia's functions tell apart has keys apart" begin
    same = Any[Any[1, Int32(1), UInt8(1), UInt64(1), Int128(1), big(1)], Any["a", :a], Any[(1, 2.0), Any[1, 2.0]], Any[1.0 + 0im, fill(1.0 + 0im)],
            Any[(a=1, b=2), (b=2, a=1), Dict("a" => 1, "b" => 2), Dict(:a => 1, :b => 2)], Any[Float32, "Float32"],
            Any[Grid(1, 2.0), Other(1, 2.0), (1, 2.0)], Any[[1, 2], (1, 2), b"\1\2"], Any[0.0, -0.0, 0.0f0, 0, false, nothing]]
    for alike in same
        @test length(Set(key_for.(alike))) == length(alike)
    end
    @test key_for(1; a=2, b=3) == key_for(1; b=3, a=2) != key_for(1, 2, 3)
    @test key_for(SubString("abc", 1, 2)) == key_for("ab")
    @test key_for(typemax(UInt64)) != key_for(Int128(typemax(UInt64)))
    @test key_for(typemin(Int128)) != key_for(typemax(Int128))
end

@testset "what nothing describes is refused, and the way out is said" begin
    for (value, way_out) in [(Unknown(), "NPCache.describe(x::Unknown)"), (1//2, "NPCache.describe(x::Rational)"), (pi, "describe"),
                             (sum, "whose code"), ([1//2 1//3], "convert them"), ([1+2im], "describe"), ('a', "describe"),
                             (Dict(1 => 2), "strings or symbols"), (String, "element types"), (missing, "describe"),
                             (NPCache.File("/no/such/file"), "cannot be read"), ((1, (2, Unknown())), "argument 1.2.2")]
        e = try key_for(value); nothing catch e; e end
        @test e isa NPCacheError && occursin(way_out, e.message)
    end
end
