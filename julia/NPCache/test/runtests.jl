# The tests of NPCache, on the built library, with two threads.
#
#     julia --project=julia/NPCache julia/NPCache/test/runtests.jl
#
# Ends with "N passed, N failed" and exits with 1 if anything failed. What a run of the user's is like, by NPCACHE_MODE
# and its like, does not change it.

for name in filter(name -> startswith(name, "NPCACHE_") && name != "NPCACHE_LIBRARY", collect(keys(ENV)))
    delete!(ENV, name)
end

if Threads.nthreads() < 2
    file = joinpath(@__DIR__, "runtests.jl")
    again = `$(Base.julia_cmd()) --project=$(dirname(dirname(file))) $file`
    exit(success(pipeline(setenv(again, merge(ENV, Dict("JULIA_NUM_THREADS" => "2"))); stdout=stdout, stderr=stderr)) ? 0 : 1)
end

using NPCache
using Serialization: deserialize, serialize
using Test

const ROOT = normpath(joinpath(@__DIR__, "..", "..", ".."))
const PACKAGE = dirname(@__DIR__)
const PYTHON = joinpath(ROOT, "target", "venv", "bin", "python")

# A cache in a directory of its own.
fresh() = NPCache.open(joinpath(mktempdir(), "cache"))

# How often a function computed, in all threads. A function that is tested names it by `ran()`: a call of another function,
# which is no part of its identity.
const RUNS = Threads.Atomic{Int}(0)
ran() = Threads.atomic_add!(RUNS, 1)
runs(f) = (RUNS[] = 0; f(); RUNS[])

# A program of its own: Julia code with this package loaded.
function julia_program(code)
    command = `$(Base.julia_cmd()) --startup-file=no --project=$PACKAGE -e $("using NPCache; " * code)`
    return setenv(command, merge(ENV, Dict("JULIA_NUM_THREADS" => "1")))
end

# Python has the machine's libraries, not those of this Julia.
python_program(code) = setenv(`$PYTHON -c $code`, filter(pair -> pair[1] != "LD_LIBRARY_PATH", ENV); dir=joinpath(ROOT, "tests"))

count_results(x::Test.Pass) = (1, 0)
count_results(x::Test.Result) = (0, 1)
count_results(set::Test.DefaultTestSet) =
    reduce((a, b) -> a .+ b, map(count_results, set.results); init=(set.n_passed, 0))

passed, failed = try
    set = @testset "NPCache" begin
        include("keys.jl")
        include("results.jl")
        include("identity.jl")
        include("directory.jl")
        include("waiting.jl")
        include("hosts.jl")
        include("docs.jl")
    end
    count_results(set)
catch e
    e isa Test.TestSetException || rethrow()
    e.pass, e.fail + e.error + e.broken
end
println("$passed passed, $failed failed")
exit(failed == 0 && passed > 0 ? 0 : 1)
