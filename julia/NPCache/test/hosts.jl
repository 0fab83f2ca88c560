# What Julia stored, Python reads, and the other way round.

# The tests' own Python, with numpy: `make target/venv/ready` makes it.
const HAVE_PYTHON = isfile(PYTHON)
HAVE_PYTHON || @warn "no $PYTHON: run `make target/venv/ready`; what crosses to Python is not tested"

@testset "numpy reads what Julia stored" begin
    cache = fresh()
    for (i, T) in enumerate(NPCache.ELEMENTS)
        a = T <: Complex ? T[1 2 - 3im 5im; 4 -0.0 6] : T[1 0 1; 0 1 1]
        data, file = produce(cache, identity, a; name="stored", version="1")
        @test data == a
        HAVE_PYTHON || continue
        # Shape, order, type, and all elements by index, as the bytes of the array in C order.
        code = "import numpy as np; a = np.load($(repr(file))); print(a.shape, a.flags.f_contiguous, a.dtype.str, a.tobytes('C').hex())"
        descr = findfirst(==(T), ELEMENT_OF)
        rows = bytes2hex(collect(reinterpret(UInt8, vec(permutedims(a)))))
        T === Bool && (rows = join(x ? "01" : "00" for x in vec(permutedims(a))))
        @test readchomp(python_program(code)) == "(2, 3) True $descr $rows"
    end
end

HAVE_PYTHON && @testset "a call of Python's is found from Julia, and of Julia's from Python" begin
    cache = fresh()
    # The call solve(2, [[0.0, 1, 2], [3, 4, 5]], tol=0.5), by its canonical bytes; several arrays, in C order.
    code = """
    import cbor2, numpy as np, driver
    a = np.arange(6.0).reshape(2, 3)
    args = cbor2.dumps([[2, cbor2.CBORTag(40, [[2, 3], cbor2.CBORTag(86, a.tobytes())])], {"tol": 0.5}])
    cache = driver.Cache($(repr(cache.path)))
    result = cache.begin("solve", "1", args)
    if isinstance(result, driver.Output):
        print("computes")
        result.write(a * 2, "doubled"); result.write(np.float64(1.5), "norm"); result.write(np.arange(3, dtype=">f4")[:0].astype("f4"), "none")
        result.commit(); result = result.end()
    print(result.names, [x.tolist() for x in result.arrays], [x.flags.f_contiguous for x in result.arrays])
    """
    from_python() = readchomp(python_program(code))
    f = cached((n, a; tol) -> (ran(); (doubled=a .* 2, norm=1.5, none=Float32[])), cache; name="solve", version="1")
    a = [0.0 1 2; 3 4 5]
    @test startswith(from_python(), "computes\n['doubled', 'norm', 'none'] [[[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]], 1.5, []]")
    @test runs(() -> @test f(2, a; tol=0.5) == (doubled=a .* 2, norm=1.5, none=Float32[])) == 0
    view = cached(f.uncached, cache; name="solve", version="1", view=true)(2, a; tol=0.5)
    @test view.doubled == a .* 2 && strides(parent(view.doubled)) == (1, 3)
    @test_throws Exception view.doubled[1, 1] = 0
    NPCache.clear!(cache)
    @test runs(() -> f(2, a; tol=0.5)) == 1
    @test from_python() == "['doubled', 'norm', 'none'] [[[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]], 1.5, []] [True, True, True]"
    # Arrays without names are a tuple, as C writes them; names that fit in no place stand as they are.
    code = """
    import driver, numpy as np
    for function, names in [("unnamed", [None, None]), ("half named", [None, "b"]), ("unfit", ["a", "a/b"])]:
        output = driver.Cache($(repr(cache.path))).begin(function, "1", bytes.fromhex("8280a0"))
        for name in names: output.write(np.ones(2), name)
        output.commit(); output.end()
    """
    run(python_program(code))
    named(name) = cached(() -> error("computes"), cache; name=name, version="1")()
    @test named("unnamed") == named("half named") == (ones(2), ones(2))
    @test named("unfit") == NamedTuple{(:a, Symbol("a/b"))}((ones(2), ones(2)))
    # An element type that Julia does not have.
    code = "import driver, numpy as np; o = driver.Cache($(repr(cache.path))).begin('big', '1', bytes.fromhex('8280a0')); o.write(np.ones(3, '>f8')); o.commit(); o.end()"
    run(python_program(code))
    e = try cached(() -> ones(3), cache; name="big", version="1")(); nothing catch e; e end
    @test e isa NPCacheError && occursin(">f8", e.message)
end
