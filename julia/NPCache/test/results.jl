# What comes back is what was returned, bit for bit, whether it was computed or found; and it is the caller's own.

same(a::AbstractArray, b::AbstractArray) = typeof(a) == typeof(b) && size(a) == size(b) && all(same.(a, b))
same(a::Tuple, b::Tuple) = length(a) == length(b) && all(map(same, a, b))
same(a::NamedTuple, b::NamedTuple) = keys(a) == keys(b) && same(values(a), values(b))
same(a, b) = a === b

# What a function returns that captures nothing.
const RETURNED = Ref{Any}()

twice(cache, name, result; view=false) = (RETURNED[] = result; f = cached(() -> (ran(); RETURNED[]), cache; name=name, version="1", view=view); [f(), f(), f()])

@testset "a hit returns what the function returned" begin
    cache = fresh()
    results = Any[T <: Complex ? T[1 - 2im 3; 4 5im; 0 -0.0] : T[1 0; 1 1; 0 1] for T in NPCache.ELEMENTS]
    append!(results, [one(T) for T in NPCache.ELEMENTS])
    append!(results, Any[zeros(0), zeros(0, 3), rand(1, 1, 1, 1, 2), rand(300, 200), rand(Float32, 70_000), (1.5, [1, 2]),
                         ([1.0],), (a=[1 2; 3 4], b=2.5), (a=true,), reinterpret(Float64, [0x7ff8000000000001, 0x7ff0000000000001]),
                         -0.0, NaN32, ((1, [2.0]), (a=1,)), (mean=1.5, range=([0f0], (low=true,)), größe=[1])])
    for (i, result) in enumerate(results)
        result isa Base.ReinterpretArray && (result = collect(result))
        count = runs() do
            for value in twice(cache, "returns $i", result)
                @test same(value, result)
            end
        end
        @test count == 1
    end
end

@testset "other arrays come back as Array, also from the run that computes" begin
    a = rand(3, 4)
    for (i, (result, expected)) in enumerate([transpose(a) => permutedims(a), view(a, 2:3, [1, 4]) => a[2:3, [1, 4]], trues(3) => fill(true, 3),
                                              1:3 => [1, 2, 3], fill(2.5) => 2.5, PermutedDimsArray(a, (2, 1)) => permutedims(a),
                                              view(a, 3:-2:1, :) => a[3:-2:1, :], reshape(view(a, :), 4, 3) => reshape(a, 4, 3),
                                              Dict("b" => a, :a => 1) => (a=1, b=a), (x=1:2,) => (x=[1, 2],),
                                              Dict("b" => Dict("c" => 1:2)) => (b=(c=[1, 2],),)])
        for value in twice(fresh(), "other", result)
            @test same(value, expected)
        end
    end
end

@testset "any key is a key" begin
    odd = sort!(["", "0", "a/b", "a:int", "{7}", "[1]", "<b>", "\"", "\\", "\n\t\x01", "x′", "\U1f30d", "é"])
    for value in twice(fresh(), "odd", Dict(key => i for (i, key) in enumerate(odd)))
        @test collect(keys(value)) == Symbol.(odd) && collect(value) == 1:length(odd)
    end
    @test NPCache.unquoted("\"\\ud83c\\udf0d \\u00e9 \\n \\\\ \\\" é\"") == "\U1f30d é \n \\ \" é"
end

@testset "what cannot be stored is refused, and not lost" begin
    for value in Any["text", nothing, (), [1//2], [big(1)], Any[1, 2], ([1], "a"), (a=[1], b=nothing), Dict(1 => [1.0]), [[1.0]], 1//2]
        cache = fresh()
        RETURNED[] = value
        f = cached(() -> RETURNED[], cache; name="refused", version="1")
        e = try f(); nothing catch e; e end
        @test e isa NPCacheError && occursin("results are", e.message) && e.result === value
        @test !NPCache.iscached(f)
    end
end

@testset "writing to a result does not reach the cache" begin
    cache = fresh()
    for size in (3, 100_000)
        f = cached(n -> (ran(); ones(n)), cache; name="ones", version="1")
        @test runs(() -> for _ in 1:4
            x = f(size)
            @test x == ones(size)
            x .= 7
        end) == 1
        mine = ones(size)
        RETURNED[] = mine
        g = cached(n -> RETURNED[], cache; name="the function's own", version="1")
        @test g(size) === mine
        mine .= 7
        @test g(size) == ones(size)
    end
end

sent_away(x) = (io = IOBuffer(); serialize(io, x); deserialize(seekstart(io)))

@testset "a view is read-only, has no copy, and outlives all" begin
    for size in (3, 300)
        cache = fresh()
        a = rand(size, size)
        f = cached(x -> (a=x .+ 1, t=transpose(x), s=sum(x)), cache; name="view", version="1", view=true)
        for r in (f(a), f(a), cached(f.uncached, NPCache.open(cache.path); name="view", version="1", view=true)(a))
            @test r.a == a .+ 1 && r.t == transpose(a) && r.s == sum(a)
            @test r.a isa NPCache.ReadOnlyArray{Float64,2} && r.t isa AbstractMatrix{Float64}
            @test_throws Exception r.a[1] = 0
            @test_throws Exception r.t[1, 1] = 0
            @test_throws Exception r.a .= 0
            @test_throws BoundsError r.a[size*size+1]
            @test copy(r.a) isa Array{Float64,2} && copy(r.a) == a .+ 1
            @test Array(r.t) == permutedims(a) && similar(r.a) isa Array
            @test r.a * ones(size) ≈ (a .+ 1) * ones(size)
            @test key_for(r.a) == key_for(a .+ 1) && key_for(r.t) == key_for(permutedims(a))
            @test key_for(view(r.a, 1:2, 3)) == key_for((a .+ 1)[1:2, 3])
        end
        r = f(a)
        NPCache.clear!(cache; remove_dir=true)
        f = cache = nothing
        GC.gc()
        @test r.a == a .+ 1
    end
    # Of a deep copy and of what is sent to another process, likewise; both in C order and in Julia's.
    cache = fresh()
    a = rand(30, 40)
    f = cached(x -> (a=x .+ 1, t=transpose(x)), cache; name="view", version="1", view=true)
    r = f(a)
    @test deepcopy(r) === r && deepcopy(f).cache === cache
    sent = sent_away(r)
    r = nothing
    GC.gc()
    @test typeof(sent) == typeof(f(a)) && sent.a == a .+ 1 && sent.t == transpose(a)
    @test_throws Exception sent.a[1] = 0
    @test key_for(sent.a) == key_for(a .+ 1) && key_for(deepcopy(sent).a) == key_for(a .+ 1)
    e = try sent_away(f)(a); nothing catch e; e end
    @test e isa NPCacheError && occursin("sent from another process", e.message)
    # In a loop, the memory is given back: 400 MB of views, of which none is kept.
    cache = NPCache.open(joinpath(mktempdir(), "cache"); memory_bytes=0)
    f = cached(n -> ones(n), cache; name="many", version="1", view=true)
    @test sum(sum(f(500_000)) for _ in 1:100) == 50_000_000
    GC.gc()
    @test count(line -> occursin("/many/", line), eachline("/proc/self/maps")) < 100
end
