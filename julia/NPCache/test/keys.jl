# One call, one key: that of tests/vectors/keys.json, which every host is held to.

include("vectors.jl")

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
    cache = NPCache.open(nothing)
    held, left_out = 0, String[]
    for vector in read_vectors()
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

# A dictionary that has an order.
in_order(pairs...) = foldl(Base.ImmutableDict, pairs; init=Base.ImmutableDict{String,Int}())

@testset "what Julia's functions tell apart has keys apart" begin
    same = Any[Any[1, Int32(1), UInt8(1), UInt64(1), Int128(1), big(1)], Any["a", :a], Any[(1, 2.0), Any[1, 2.0]], Any[1.0 + 0im, fill(1.0 + 0im)],
            Any[(a=1, b=2), (b=2, a=1), Dict("a" => 1, "b" => 2), Dict(:a => 1, :b => 2)], Any[Float32, "Float32"],
            Any[Dict("a" => 1, "b" => 2), in_order("a" => 1, "b" => 2), in_order("b" => 2, "a" => 1)],
            Any[String[], Int128[], Any[], ()], Any[["a"], Any["a"], ("a",)],
            Any[Dict("a" => Dict("b" => Int32(1)), "a.b" => 1), Dict("a" => Dict("b" => 1), "a.b" => Int32(1))],
            Any[Grid(1, 2.0), Other(1, 2.0), (1, 2.0)], Any[[1, 2], (1, 2), b"\1\2"], Any[0.0, -0.0, 0.0f0, 0, false, nothing]]
    for alike in same
        @test length(Set(key_for.(alike))) == length(alike)
    end
    @test key_for(1; a=2, b=3) == key_for(1; b=3, a=2) != key_for(1, 2, 3)
    @test key_for(a=:x, b=Int32(1)) == key_for(b=Int32(1), a=:x)
    one, other = Dict{String,Symbol}(), sizehint!(Dict{String,Symbol}(), 1000)
    for i in 1:10
        one[string(i)] = other[string(i)] = :x
    end
    @test collect(keys(one)) != collect(keys(other)) && key_for(one) == key_for(other)
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
