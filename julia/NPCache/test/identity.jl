# What a function is: redefined, closed over other variables, with another global, it is another function.

# A module as a user's session: what is defined in it, can be defined again.
function session()
    m = Module(:Session)
    Core.eval(m, :(using NPCache; const ran = $ran; cache = $(fresh())))
    return m
end
define(m, code) = include_string(m, code, "session.jl")
says(m, code) = Base.invokelatest(define, m, code)
# How often the calls in `code` computed.
computed(m, code) = runs(() -> says(m, code))

@testset "a function that is redefined is another, and restored the old one" begin
    m = session()
    one = "@cached cache function f(x)\n ran()\n x .+ 1\nend"
    two = replace(one, "+ 1" => "+ 2")
    define(m, one)
    @test computed(m, "f([1.0]) == [2.0] || error()") == 1
    define(m, two)
    @test computed(m, "f([1.0]) == [3.0] || error()") == 1
    define(m, one)
    @test computed(m, "f([1.0]) == [2.0] || error()") == 0
    define(m, two)
    @test computed(m, "f([1.0]) == [3.0] || error()") == 0
    define(m, "\n\n# lines, comments and white space\n" * replace(one, "\n x" => "\n\n  # here too\n    x"))
    @test computed(m, "f([1.0]) == [2.0] || error()") == 0
    # Another program, with the same text.
    n = session()
    Core.eval(n, :(cache = $(NPCache.open(m.cache.path))))
    define(n, one)
    @test computed(n, "f([1.0]) == [2.0] || error()") == 0
end

@testset "a constant counts by its type and bits" begin
    m = session()
    for constant in ("1", "1.0", "1f0", "Int8(1)", "true", "0x01", "0.0", "-0.0", "\"1\"", "'1'", ":x", "nothing")
        define(m, "@cached cache f() = (ran(); Float64(length(string($constant))))")
        @test computed(m, "f()") == 1
        @test computed(m, "f()") == 0
    end
end

@testset "one call is one key, whichever way it is written" begin
    m = session()
    define(m, "@cached cache f(x, y=x + 1, rest...; z=y, more...) = (ran(); Float64[x, y, z, rest..., values(more)...])")
    @test computed(m, "f(1); f(1, 2); f(1, 2; z=2); f(1; z=2)") == 1
    @test computed(m, "f(1, 2, 3) == [1, 2, 2, 3] || error(); f(1, 2, 3; z=2)") == 1
    @test computed(m, "f(1, 2, a=5, b=6) == [1, 2, 2, 5, 6] || error(); f(1; b=6, a=5)") == 1
    @test computed(m, "f(2); f(1, 3); f(1; z=3); f(1.0)") == 4
    define(m, "@cached cache function g(x::T, ::Type{S}; y::Int=1)::Vector{S} where {T<:Real,S}\n ran()\n S[x, y]\nend")
    @test computed(m, "g(1, Float32) == Float32[1, 1] || error(); g(1, Float64); g(1, Float32; y=1)") == 2
end

@testset "each method is a definition of its own" begin
    m = session()
    define(m, "\"Adds.\"\n@cached cache f(x::Int) = (ran(); [x + 1])\n@cached cache f(x::Float64) = (ran(); [x + 2])\n@cached cache f(x, y) = (ran(); f(x) .+ y)")
    @test computed(m, "f(1) == [2] || error(); f(1.0) == [3.0] || error(); f(1, 1) == [3] || error()") == 3
    @test computed(m, "f(1) == [2] || error(); f(1.0) == [3.0] || error(); f(1, 1) == [3] || error()") == 0
    @test occursin("Adds.", string(says(m, "@doc f")))
    define(m, "@cached cache fib(n) = n < 2 ? n : (ran(); fib(n - 1) + fib(n - 2))")
    @test computed(m, "fib(30) == 832040 || error()") == 29
end

@testset "closures over different values differ" begin
    m = session()
    define(m, "function make(k)\n @cached cache f(x) = (ran(); x .* k)\n f\nend")
    @test computed(m, "make(2)([1.0]) == [2.0] || error(); make(3)([1.0]) == [3.0] || error(); make(2)([1.0]) == [2.0] || error()") == 2
    define(m, "wrap(k) = cached(x -> (ran(); x .* k), cache; name=\"wrapped\", version=1)")
    @test computed(m, "wrap(2)([1.0]) == [2.0] || error(); wrap(3)([1.0]) == [3.0] || error(); wrap(2)([1.0]) == [2.0] || error()") == 2
    define(m, "keyed(k) = cached((x; y=1) -> (ran(); x .* k .+ y), cache; name=\"keyed\", version=1)")
    @test computed(m, "keyed(2)([1.0]) == [3.0] || error(); keyed(3)([1.0]) == [4.0] || error(); keyed(2)([1.0]; y=2) == [4.0] || error()") == 3
    define(m, "function made(k)\n @cached cache f(x; y=k) = (ran(); x .* k .+ y)\n f\nend")
    @test computed(m, "made(2)([1.0]) == [4.0] || error(); made(3)([1.0]; y=2) == [5.0] || error(); made(2)([1.0]; y=2) == [4.0] || error()") == 2
    # Captured as a type, as a variable that changes, as an array.
    define(m, "typed(::Val{k}) where {k} = cached(x -> (ran(); x .* k), cache; name=\"typed\", version=1)")
    @test computed(m, "typed(Val(2))([1.0]) == [2.0] || error(); typed(Val(3))([1.0]) == [3.0] || error()") == 2
    define(m, "function later(k)\n k += 1\n f = cached(x -> (ran(); k += 1; x .* k), cache; name=\"later\", version=1)\n a = f([1.0])\n a, f([1.0])\nend")
    @test computed(m, "later(1) == ([3.0], [4.0]) || error()") == 2
    define(m, "over(a) = cached(x -> (ran(); x .+ a), cache; name=\"over\", version=1)")
    @test computed(m, "a = [1.0]; f = over(a); f(1) == [2.0] || error(); a[1] = 2; f(1) == [3.0] || error()") == 2
    # A closure with keyword arguments has no name of its own in it: the key is that of any program.
    kw, no_kw = [cached(g, m.cache; name="same", version=1) for g in ((x; y=1) -> x, x -> x)]
    @test NPCache.key(kw, 1) == NPCache.key(no_kw, 1)
    # Two on one line.
    @test computed(m, "f, g = cached(x -> (ran(); [1.0]), cache; name=\"f\", version=1), cached(x -> (ran(); [2.0]), cache; name=\"g\", version=1); f(1) == [1.0] || error(); g(1) == [2.0] || error()") == 2
    # That it calls itself is nothing captured.
    define(m, "function outer(k)\n @cached cache fact(n) = n == 0 ? k : (ran(); n * fact(n - 1))\n fact(4)\nend")
    @test computed(m, "outer(1) == 24 || error(); outer(2) == 48 || error(); outer(1) == 24 || error()") == 8
    define(m, "apply(g) = cached(x -> g(x), cache; name=\"apply\", version=1)")
    e = try says(m, "apply(sin)(1.0)"); nothing catch e; e end
    @test occursin("captured variable `g`", sprint(showerror, e))
end

@testset "a global that is changed between calls" begin
    m = session()
    define(m, "scale = 2; pair = (1, \"a\"); local_one = 5")
    define(m, "@cached cache f(x) = (ran(); local_one = scale; x .* local_one .* pair[1])")
    @test computed(m, "f([1.0]) == [2.0] || error()") == 1
    @test computed(m, "scale = 3; f([1.0]) == [3.0] || error()") == 1
    @test computed(m, "pair = (2, \"a\"); f([1.0]) == [6.0] || error()") == 1
    @test computed(m, "local_one = 6; f([1.0]) == [6.0] || error()") == 0
    @test computed(m, "scale = 2; pair = (1, \"a\"); f([1.0]) == [2.0] || error()") == 0
    @test computed(m, "scale = 2.0; f([1.0]) == [2.0] || error()") == 1
    @test occursin("global `scale`", replace(says(m, "scale = 7; NPCache.explain(f, [1.0])"), "global scale" => "global `scale`"))
    # An assignment in a loop's scope does not make it local outside.
    define(m, "@cached cache g(x) = (ran(); for i in 1:1; let scale = 1; x = x .+ scale; end; end; x .* scale)")
    @test computed(m, "scale = 2; g([1.0]) == [4.0] || error(); scale = 3; g([1.0]) == [6.0] || error()") == 2
    define(m, "@cached cache h(x, y=scale; z=scale) = (ran(); [x, y, z])")
    @test computed(m, "h(1); scale = 4; h(1) == [1, 4, 4] || error(); h(1)") == 2
    # The name of a field is neither assigned nor a variable.
    define(m, "dt = 0.1\n@cached cache heat(n) = (ran(); (a, b) = (n, n); r = (dt=dt, u=[a, b, dt]); r)")
    @test computed(m, "heat(1).dt == 0.1 || error(); dt = 0.2; heat(1).dt == 0.2 || error(); dt = 0.1; heat(1)") == 2
    define(m, "a = 1\n@cached cache field(n) = (ran(); (dt=n, du=n))")
    @test computed(m, "field(1); dt = 0.3; du = [1]; field(1)") == 1
    @test computed(m, "heat(2); a = 2; heat(2)") == 1
    # A global of another module.
    define(m, "module Params\n alpha = 1\n beta = [1]\n module Inner\n gamma = 1\n end\nend\nsizes = (n=1, k=2)")
    define(m, "@cached cache q() = (ran(); Params.alpha + Params.Inner.gamma + sizes.n + sizes.k + Base.sum([1]))")
    @test_logs @test computed(m, "q() == 6 || error(); Core.eval(Params, :(alpha = 2)); q() == 7 || error()") == 2
    @test computed(m, "Core.eval(Params.Inner, :(gamma = 2)); q() == 8 || error(); sizes = (n=2, k=2); q() == 9 || error()") == 2
    define(m, "@cached cache v() = (ran(); Params.beta[1])\n@cached cache depends=Params.beta w() = (ran(); Params.beta[1])")
    @test_logs (:warn, r"names the global `Params.beta`") says(m, "v()")
    @test_logs @test computed(m, "w(); Params.beta[1] = 2; w() == 2 || error()") == 2
    # One that cannot be told apart is warned about, once, and `depends` makes it count.
    define(m, "table = [1.0, 2.0]\n@cached cache t(i) = (ran(); table[i])\n@cached cache depends=(table,) u(i) = (ran(); table[i])")
    @test_logs (:warn, r"names the global `table`") says(m, "t(1)")
    @test_logs says(m, "t(1)")
    @test_logs says(m, "u(1)")
    @test computed(m, "u(1); table[1] = 5; u(1) == 5 || error()") == 1
end

@testset "a version that is given replaces the definition" begin
    m = session()
    define(m, "@cached cache version=\"1\" name=\"f\" f(x) = (ran(); x .+ 1)")
    @test computed(m, "f([1.0])") == 1
    define(m, "@cached cache version=\"1\" name=\"f\" f(x) = (ran(); x .+ 2)")
    @test computed(m, "f([1.0]) == [2.0] || error()") == 0
    define(m, "@cached cache version=\"2\" name=\"f\" f(x) = (ran(); x .+ 2)")
    @test computed(m, "f([1.0]) == [3.0] || error()") == 1
    # The same from cached, and so from other programs.
    @test computed(m, "cached(x -> error(), cache; name=\"f\", version=2)([1.0]) == [3.0] || error()") == 0
    @test_throws UndefKeywordError cached(sum, m.cache)
    @test_throws NPCacheError cached(x -> x, m.cache; version="1")
    @test cached(sum, m.cache; version="1").name == "sum"
end

@testset "what @cached does not take says so" begin
    m = session()
    for (code, words) in ["@cached cache x -> x" => "takes", "@cached cache Base.sum(x::Int) = x" => "name of its own", "@cached cache" => "missing",
                          "@cached cache (x::Int)(y) = y" => "name of its own", "@cached cache color=1 f(x) = x" => "no option",
                          "@cached cache f((a, b)) = a" => "name of the argument", "@eval @cached cache f(x) = x .+ \$([1, 2])" => "by its value"]
        e = try define(m, code); nothing catch e; e end
        @test e !== nothing && occursin(words, sprint(showerror, e))
    end
    define(m, "@eval @cached cache version=\"1\" f(x) = x .+ \$([1, 2])")
    @test says(m, "f(1)") == [2, 3]
    # Asking about what is not cached.
    @test_throws NPCacheError NPCache.iscached(abs, 1)
end

@testset "two expressions are never written alike" begin
    written(x) = NPCache.version_of(x)
    apart = Any[:(f(a, b)), :(f((a, b))), :(f("a", b)), :(f(:a, b)), :(f(a), b), :a, "a", QuoteNode(:a), 'a', :(f(; a)), :(f(a=b)), :(f(; a=b)),
                Expr(:call, :f, Symbol("a, b")), 1, 1.0, true, 0x01, NaN, -NaN, 0.0, -0.0, big(1)]
    @test length(Set(written.(apart))) == length(apart)
    @test written(Meta.parse("begin\nf(@time x)\n\nend")) == written(Meta.parse("begin f(@time x) end"))
end

@testset "functions of a package that is precompiled" begin
    packages, path = mktempdir(), joinpath(mktempdir(), "cache")
    mkpath(joinpath(packages, "Uses", "src"))
    write(joinpath(packages, "Uses", "Project.toml"), "name = \"Uses\"\nuuid = \"01234567-89ab-4def-8123-456789abcdef\"\n[deps]\nNPCache = \"$(Base.PkgId(NPCache).uuid)\"\n")
    write(joinpath(packages, "Uses", "src", "Uses.jl"), """
        module Uses
        using NPCache
        const TOO_EARLY = NPCache.open($(repr(path)))
        const CACHE = Ref{NPCache.Cache}()
        __init__() = CACHE[] = NPCache.open($(repr(path)))
        @cached TOO_EARLY early(x) = x .+ 1
        @cached CACHE[] right(x; y=1) = (println("computing"); x .+ y)
        end
    """)
    code = """
        pushfirst!(LOAD_PATH, $(repr(packages)), $(repr(dirname(PACKAGE))))
        using Uses
        println(Uses.right([1.0]))
        try Uses.early(1) catch e; showerror(stdout, e) end
    """
    first, second = [readchomp(julia_program(code)) for _ in 1:2]
    @test first == "computing\n" * second && startswith(second, "[2.0]\nNPCacheError: this cache was opened while")
    @test isdir(joinpath(path, "Uses.right"))
end
