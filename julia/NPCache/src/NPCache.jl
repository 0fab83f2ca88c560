"""
Keeps what expensive functions return, numeric arrays, in a directory: the first call with given arguments computes,
every later one, in any thread, process, run or language that shares the directory, returns the stored arrays.

    using NPCache

    cache = NPCache.open("results")

    @cached cache function spectrum(n, seed; scale=1.0)
        scale .* expensive(n, seed)
    end

    spectrum(512, 7)        # computes, and stores the array as a .npy file
    spectrum(512, 7)        # finds it, in this run and the next ones

[`@cached`](@ref) takes the definition of a function and sees when it changes, [`cached`](@ref) wraps a function that
exists and takes a version, [`produce`](@ref) makes one call and tells the file. `NPCache.clear!`, `NPCache.iscached`,
`NPCache.explain`, `NPCache.forget!`, `NPCache.seconds` and `NPCache.totals` look after what is stored. `docs/julia.md` is the tour.

What can still be stale: a result is found by the function's name, its definition or version, its arguments, the
variables that it captures, the scalar globals that its text names, and what `depends` names. The code of other functions
that it calls, files, the environment and the contents of global arrays are not seen.

Everything can be called from any task on any thread.
"""
module NPCache

import Libdl
import SHA
import Serialization
using LinearAlgebra: Adjoint, Transpose
using Serialization: AbstractSerializer, deserialize, serialize

export @cached, cached, produce, NPCacheError

include("library.jl")
include("cache.jl")
include("arguments.jl")
include("results.jl")
include("identity.jl")
include("call.jl")
include("cached.jl")

function __init__()
    load_library()
    start_listening()
end

end
