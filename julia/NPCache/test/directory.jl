# Opening, clearing, asking.

@testset "options and errors are the library's" begin
    path = joinpath(mktempdir(), "cache")
    @test_throws NPCacheError NPCache.open(path; colour="red")
    @test_throws NPCacheError NPCache.open(path; mode="sometimes")
    @test_throws NPCacheError NPCache.open(@__FILE__)
    e = try NPCache.open(@__FILE__); nothing catch e; e end
    @test e.status < 0 && occursin(@__FILE__, sprint(showerror, e))
    solve(cache) = cached(n -> (ran(); ones(n)), cache; name="solve", version="1")
    @test runs(() -> (solve(NPCache.open(path; lock_timeout=60))(3); solve(NPCache.open(path; mode="readonly"))(3))) == 1
    @test runs(() -> (solve(NPCache.open(path; mode=:readonly))(4); solve(NPCache.open(path; mode=:readonly))(4))) in 1:2
    @test runs(() -> solve(NPCache.open(path; mode=:refresh))(3)) == 1
    @test runs(() -> for _ in 1:2 solve(NPCache.open(nothing))(3) end) == 2
    @test_throws ErrorException withenv(NPCache.load_library, "NPCACHE_LIBRARY" => "/no/such/libnpcache.so")
end

@testset "a directory that cannot be written costs no result" begin
    file = joinpath(mktempdir(), "cache")
    cache = NPCache.open(file)
    rm(file; recursive=true)
    write(file, "in the way")
    f = cached(n -> ones(n), cache; name="solve", version="1")
    @test (@test_logs (:warn, r"is not stored") f(3)) == ones(3)
    @test_logs f(4)
    data, path = produce(cache, ones, 3; version="1")
    @test data == ones(3) && path === nothing
end

@testset "bounds are kept in the directory" begin
    cache = fresh()
    @test NPCache.configure!(cache; max_entries=2, max_age="12h") === cache
    @test read(joinpath(cache.path, ".npcache", "config"), String) == "max_entries=2\nmax_age=43200\n"
    @test_throws NPCacheError NPCache.configure!(cache; max_entries=0)
end

@testset "totals are what all caches of a directory counted" begin
    cache = fresh()
    f, g = [cached(n -> (sleep(0.01); ones(n)), cache; name=name, version="1") for name in ("f", "g")]
    f(3), f(3), f(4), g(3)
    again = NPCache.open(cache.path)
    all, of_f = NPCache.totals(again), NPCache.totals(again, "f")
    @test (all.misses, all.stored, all.memory + all.disk, all.complete) == (3, 3, 1, 1)
    @test (of_f.misses, of_f.memory + of_f.disk) == (2, 1) && of_f.seconds_spent > 0.01 && of_f.seconds_saved > 0.005
    @test (of_f.audited, of_f.differing, NPCache.totals(again, "h").misses) == (0, 0, 0)
    other = cached(n -> zeros(n), NPCache.open(cache.path; audit=1); name="f", version="1")
    @test_logs (:warn, r"not stored in .*: an audited hit") match_mode=:any other(3)
    @test (NPCache.totals(cache).audited, NPCache.totals(cache).differing) == (1, 1)
    @test_throws ArgumentError NPCache.totals(cache, "f\0")
end

@testset "clear, forget, iscached, seconds, explain" begin
    cache = fresh()
    f, g = [cached(n -> (ran(); sleep(0.01); fill(1.0 * n, 3)), cache; name=name, version="1") for name in ("f", "g")]
    @test !NPCache.iscached(f, 1) && NPCache.seconds(f, 1) === nothing
    f(1), f(2), g(1)
    before = NPCache.totals(cache)
    @test NPCache.iscached(f, 1) && !NPCache.iscached(f, 3) && NPCache.totals(cache) == before
    @test 0.005 < NPCache.seconds(f, 1) < 10
    @test runs(() -> (NPCache.forget!(f, 1); f(1); f(2))) == 1
    NPCache.forget!(f, 77)
    NPCache.clear!(cache, "f")
    @test !NPCache.iscached(f, 1) && !NPCache.iscached(f, 2) && NPCache.iscached(g, 1)
    NPCache.clear!(cache)
    @test !NPCache.iscached(g, 1)
    g(1)
    @test occursin("argument 1: stored 1, asked 2", NPCache.explain(g, 2))
    @test isfile(joinpath(cache.path, "g", NPCache.key(g, 1)[1:2], NPCache.key(g, 1) * ".npy"))
    write(joinpath(cache.path, "mine.txt"), "not npcache's")
    @test_throws NPCacheError NPCache.clear!(cache; remove_dir=true)
    @test isfile(joinpath(cache.path, "mine.txt"))
    rm(joinpath(cache.path, "mine.txt"))
    NPCache.clear!(cache; remove_dir=true)
    @test !isdir(cache.path)
end

@testset "asking about a call of @cached computes nothing" begin
    m = session()
    define(m, "@cached cache f(x, y=2; z=3) = (ran(); h(x); [x, y, z])\n@cached cache h(x) = (ran(); [x])")
    @test computed(m, "NPCache.iscached(f, 1) && error(); NPCache.explain(f, 1); NPCache.forget!(f, 1)") == 0
    @test computed(m, "f(1)") == 2
    @test computed(m, "NPCache.iscached(f, 1, 2; z=3) && NPCache.iscached(h, 1) || error(); NPCache.forget!(f, 1); f(1)") == 1
end

@testset "produce gives data and file" begin
    cache = fresh()
    simulate(config) = (ran(); Dict("x" => fill(config.step, config.n), "total" => config.n * config.step))
    config = (n=3, step=0.5)
    @test runs() do
        for _ in 1:2
            data, file = produce(cache, simulate, config; version="1")
            @test data == Dict("x" => [0.5, 0.5, 0.5], "total" => 1.5) && data isa Dict{String,Any}
            @test isfile(file) && endswith(file, ".npy")
        end
    end == 1
    data, file = produce(cache, 4; name="block", version="1") do n
        ones(n)
    end
    @test data == ones(4) && isfile(file)
    @test produce((x; y=1) -> x + y, cache, 1; name="keywords", version="1", y=5)[1] == 6
    @test produce(cache, (x; y=1) -> x + y, 1; name="keywords", version="1", y=6)[1] == 7
end

@testset "what the library says is shown" begin
    cache = fresh()
    f = cached(n -> fill(float(n), n), cache; name="f", version="1")
    f(3)
    entry = joinpath(cache.path, "f", NPCache.key(f, 3)[1:2], NPCache.key(f, 3) * ".npy")
    rm(entry)
    write(entry, "damaged")
    program = julia_program("""
        f = cached(n -> fill(float(n), n), NPCache.open($(repr(cache.path))); name="f", version="1")
        f(3) == fill(3.0, 3) || exit(1)
        sleep(0.1)
        f(4)
        """)
    said = IOBuffer()
    @test success(pipeline(program; stderr=said))
    text = String(take!(said))
    @test count("Warning", text) == 1 && occursin(entry, text) && occursin("computed again", text)
end
