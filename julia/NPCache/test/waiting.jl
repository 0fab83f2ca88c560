# One computes, the others wait: tasks, threads, processes; while the garbage collector and other tasks go on.

const FAILS, DEPTH, OWN = Ref{Any}(), Ref(0), Ref{Any}()

slow(cache, name="slow"; seconds=0.3) = cached(n -> (ran(); sleep(seconds); fill(1.0 * n, 3)), cache; name=name, version="1")

@testset "tasks that ask for the same compute once" begin
    cache = fresh()
    f = slow(cache)
    # On both threads.
    @test runs(() -> @test all(==(ones(3)), fetch.([Threads.@spawn f(1) for _ in 1:16]))) == 1
    # On one thread, which is all that the library sees.
    @test runs(() -> @test all(==([2.0, 2, 2]), fetch.([@async f(2) for _ in 1:16]))) == 1
    # Who waits is counted once, however long it is.
    @test NPCache.totals(cache, "slow").misses < 3 * 16
    # Different calls go on side by side.
    seconds = @elapsed @sync for n in 10:20
        @async f(n)
    end
    @test seconds < 2
    # Results are each caller's own.
    @test length(Set(map(objectid, fetch.([Threads.@spawn f(3) for _ in 1:4])))) == 4
end

@testset "many threads, many calls" begin
    cache = NPCache.open(joinpath(mktempdir(), "cache"); memory_bytes=0)
    m = session()
    Core.eval(m, :(cache = $cache))
    define(m, "@cached cache f(n, a) = (ran(); a .* n)")
    f = m.f
    a = rand(1000)
    computed = runs() do
        @sync for task in 1:8
            Threads.@spawn for i in 1:400
                n = 1 + (i * task) % 20
                x = f(n, a)
                x == a .* n || error("wrong")
                x .= NaN
                i % 100 == 0 && GC.gc(false)
            end
        end
    end
    @test computed == 20
end

@testset "an exception passes through, and the next one computes" begin
    cache = fresh()
    fails = Threads.Atomic{Bool}(true)
    FAILS[] = fails
    f = cached(n -> (ran(); sleep(0.1); Threads.atomic_cas!(FAILS[], true, false) && throw(DomainError(n, "mine")); ones(n)), cache; name="f", version="1")
    tasks = [Threads.@spawn(try f(3) catch e; e end) for _ in 1:6]
    results = fetch.(tasks)
    @test count(r -> r isa DomainError, results) == 1 && count(r -> r == ones(3), results) == 5
    @test f(3) == ones(3)
    g = cached(() -> (ran(); error("always")), cache; name="g", version="1")
    @test runs(() -> for _ in 1:3 @test_throws ErrorException g() end) == 3
    @test !NPCache.iscached(g)
    # Likewise what ends a task from outside, whether it computes or waits.
    h = slow(cache, "h"; seconds=0.5)
    computing = @async h(1)
    sleep(0.1)
    waiting = @async h(1)
    sleep(0.1)
    schedule(waiting, InterruptException(); error=true)
    @test_throws Exception fetch(waiting)
    schedule(computing, InterruptException(); error=true)
    @test_throws Exception fetch(computing)
    @test @elapsed(@test h(1) == ones(3)) < 5
end

@testset "a function that asks for its own result computes" begin
    cache = fresh()
    DEPTH[] = 0
    f = cached(n -> (ran(); (DEPTH[] += 1) < 3 ? OWN[](n) .+ 1 : [1.0 * n]), cache; name="own", version="1")
    OWN[] = f
    @test runs(() -> @test f(1) == [3.0]) == 3
end

@testset "the collector and other tasks go on while another process computes" begin
    cache = fresh()
    signal, go = tempname(), tempname()
    code = """
        cache = NPCache.open($(repr(cache.path)))
        f = cached(cache; name="elsewhere", version="1") do n
            touch($(repr(signal)))
            timedwait(() -> isfile($(repr(go))), 30.0)
            fill(1.0 * n, 3)
        end
        f(1)
    """
    other = run(julia_program(code); wait=false)
    while !isfile(signal) && process_running(other)
        sleep(0.01)
    end
    f = cached(n -> (ran(); fill(1.0 * n, 3)), cache; name="elsewhere", version="1")
    waiting = [Threads.@spawn(f(1)) for _ in 1:4]
    here = @async f(1)
    collections, ticks, longest = 0, 0, 0.0
    ticking = @async while !istaskdone(here)
        ticks += 1
        sleep(0.01)
    end
    # The other process does not go on before these have; where a wait held them up, it would after 30 seconds.
    while min(collections, ticks) < 10 && !istaskdone(here)
        longest = max(longest, @elapsed GC.gc(false))
        collections += 1
        sleep(0.01)
    end
    touch(go)
    @test runs(() -> @test all(==(ones(3)), fetch.([waiting; here]))) == 0
    @test success(other)
    @test collections >= 10 && ticks >= 10
    @test longest < 15
    println("collections during a wait: $collections, the longest took $(round(1000 * longest; digits=1)) ms")
end

@testset "a process that dies leaves nobody waiting" begin
    cache = fresh()
    signal = tempname()
    code = """
        cache = NPCache.open($(repr(cache.path)))
        cached(n -> (touch($(repr(signal))); sleep(60); [1.0]), cache; name="elsewhere", version="1")(1)
    """
    other = run(julia_program(code); wait=false)
    while !isfile(signal) && process_running(other)
        sleep(0.01)
    end
    waiting = @async cached(n -> [2.0], cache; name="elsewhere", version="1")(1)
    sleep(0.2)
    @test !istaskdone(waiting)
    kill(other, Base.SIGKILL)
    @test fetch(waiting) == [2.0]
end

@testset "a call that is marked as one that the collector need not wait for" begin
    # Julia 1.12's form of a call, which an older one cannot compile.
    call = NPCache.blocking_call(:(npcache_lookup(f::Handle)::Int32), v"1.12", LineNumberNode(1))
    @test call.args[1] == GlobalRef(Base, Symbol("@ccall")) && call.args[3] == :(gc_safe = true)
    @test call.args[4] == :($(Expr(:$, :(address_npcache_lookup[])))(f::Handle)::Int32)
end
