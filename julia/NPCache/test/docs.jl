# The examples of docs/julia.md run, one after the other as in one session; where a line ends in "# => value", that is
# what it gives.

function run_example(m, code)
    position = 1
    while true
        expression, position = Meta.parse(code, position)
        expression === nothing && position > lastindex(code) && return
        value = Core.eval(m, expression)
        rest = first(split(code[prevind(code, position):end], '\n'; limit=2))
        after = match(r"^[^#]*# => (.*)$", rest)
        after === nothing && continue
        expected = Core.eval(m, Meta.parse(after.captures[1]))
        @test isequal(value, expected) || (expression, value, expected)
    end
end

@testset "docs/julia.md" begin
    page = read(joinpath(ROOT, "docs", "julia.md"), String)
    examples = [x.captures[1] for x in eachmatch(r"```julia\n(.*?)```"s, page)]
    @test length(examples) > 3
    m = Module(:Docs)
    cd(mktempdir()) do
        for example in examples
            run_example(m, example)
        end
    end
end
