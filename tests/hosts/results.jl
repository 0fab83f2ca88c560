# The kinds of results in Julia, for test_hosts.py: `results.jl CACHE` stores them as julia's, and
# `results.jl CACHE HOST ...` finds those that the hosts stored; what is not there, or is another, ends the program.

using NPCache

const RESULTS = [
    "array" => [1.0 2 3; 4 5 6],
    "number" => 2.5,
    "tuple" => (Int32[1, 2], 0.5),
    "tuple of one" => ([1.0],),
    "map" => (mean=1.5, steps=[3, 4]),
    "nested" => (range=(0.5, 2.5), of=(flags=[true, false],)),
]

same(a, b) = typeof(a) == typeof(b) && a == b

# No closure, whose variables would count.
const RESULT = Ref{Any}()
stored() = RESULT[]
gone() = error("it is not stored")

const cache = NPCache.open(ARGS[1])
const hosts = ARGS[2:end]
for host in (isempty(hosts) ? ["julia"] : hosts), (what, result) in RESULTS
    RESULT[] = result
    found = cached(isempty(hosts) ? stored : gone, cache; name="$host $what", version="1")()
    same(found, result) || error("the $what of $host is $found")
end
