# The golden vectors of tests/vectors/keys.json as calls of Julia's; tests/make_vectors.py has their notation.

# ------------------------------------------------------------------------------------------------ a small JSON reader

# From the character at `i` on: the value, and where it ends.
function json(text, i=firstindex(text))
    i = blank(text, i)
    c = text[i]
    c == '"' && return json_string(text, i)
    c == '[' && return json_items(text, i, ']', Any[], (items, text, i) -> begin
        value, i = json(text, i)
        push!(items, value)
        i
    end)
    c == '{' && return json_items(text, i, '}', Dict{String,Any}(), (items, text, i) -> begin
        name, i = json_string(text, blank(text, i))
        value, i = json(text, blank(text, i) + 1)
        items[name] = value
        i
    end)
    for (word, value) in ("null" => nothing, "true" => true, "false" => false)
        startswith(SubString(text, i), word) && return value, i + length(word)
    end
    number = match(r"-?[0-9]+", text, i)
    return parse(Int, number.match), i + length(number.match)
end

function blank(text, i)
    while isspace(text[i])
        i = nextind(text, i)
    end
    return i
end

function json_items(text, i, last, items, read)
    i = blank(text, i + 1)
    while text[i] != last
        i = blank(text, read(items, text, i))
        text[i] == ',' && (i = blank(text, i + 1))
    end
    return items, i + 1
end

function json_string(text, i)
    io = IOBuffer()
    i += 1
    while text[i] != '"'
        if text[i] == '\\'
            escape = text[i+1]
            i += 2
            if escape == 'u'
                code = parse(UInt32, text[i:i+3]; base=16)
                i += 4
                if 0xd800 <= code < 0xdc00
                    code = 0x10000 + (code - 0xd800) << 10 + (parse(UInt32, text[i+2:i+5]; base=16) - 0xdc00)
                    i += 6
                end
                print(io, Char(code))
            else
                print(io, get(Dict('n' => '\n', 't' => '\t', 'r' => '\r', 'b' => '\b', 'f' => '\f'), escape, escape))
            end
        else
            print(io, text[i])
            i = nextind(text, i)
        end
    end
    return String(take!(io)), i + 1
end

# --------------------------------------------------------------------------------- from the notation to Julia's values

# What Julia has no value for.
struct Inexpressible <: Exception end

bytes_of(data::String) = hex2bytes(data)
bytes_of(data) = multiply(UInt32(data["multiply"]), data["length"])
multiply(k::UInt32, length::Int) = UInt8[(i % UInt32 * k) >> 24 for i in 0:length-1]
text_of(text::String) = text
text_of(text) = text["repeat"]^text["times"]

const ELEMENT_OF = Dict("|b1" => Bool, "|i1" => Int8, "<i2" => Int16, "<i4" => Int32, "<i8" => Int64, "|u1" => UInt8,
                        "<u2" => UInt16, "<u4" => UInt32, "<u8" => UInt64, "<f2" => Float16, "<f4" => Float32,
                        "<f8" => Float64, "<c8" => ComplexF32, "<c16" => ComplexF64)

bits(T, digits) = reinterpret(T, parse(Dict(2 => UInt16, 4 => UInt32, 8 => UInt64)[sizeof(T)], digits; base=16))

# The type that a literal of the value has.
plain(x::BigInt) = convert(NPCache.plain_integer(x), x)

julia_value(x::Union{Nothing,Bool}) = x
function julia_value(x)
    kind, of = only(x)
    kind == "int" && return plain(parse(BigInt, of))
    kind == "bigint" && return plain((of["negative"] ? -1 : 1) * parse(BigInt, "0" * bytes2hex(bytes_of(of["magnitude"])); base=16))
    kind == "float16" && return bits(Float16, of)
    kind == "float32" && return bits(Float32, of)
    kind == "float64" && return bits(Float64, of)
    kind == "complex64" && return ComplexF32(bits(Float32, of[1]), bits(Float32, of[2]))
    kind == "complex128" && return ComplexF64(bits(Float64, of[1]), bits(Float64, of[2]))
    kind == "text" && return text_of(of)
    kind == "bytes" && return codeunits(String(bytes_of(of)))
    kind == "list" && return Tuple(julia_value.(of))
    kind == "map" && return Dict(text_of(name) => julia_value(value) for (name, value) in of)
    kind == "array" && return julia_array(of)
    kind == "file" && return (path = tempname(); write(path, bytes_of(of)); NPCache.File(path))
    kind == "nested" && return foldl((inner, _) -> of["of"] == "list" ? (inner,) : Dict("k" => inner), 1:of["depth"]; init=julia_value(of["value"]))
    throw(Inexpressible())
end

# The elements that the strides reach, as an ordinary array: the memory order is no part of the key.
function julia_array(array)
    T = get(() -> throw(Inexpressible()), ELEMENT_OF, array["descr"])
    memory, shape = bytes_of(array["buffer"]), Int.(array["shape"])
    strides = something(array["strides"], reverse(cumprod([sizeof(T); reverse(shape)])[1:end-1]))
    # A bool byte of 2 is no Bool of Julia's.
    T === Bool && !all(byte -> byte in (0, 1), memory) && throw(Inexpressible())
    result = Array{T}(undef, shape...)
    read_elements!(result, memory, array["offset"], Dims(strides))
    # 0-dimensional, and complex: Julia's number is the plain value of that encoding.
    return T <: Complex && isempty(shape) ? result[] : result
end

function read_elements!(result::Array{T}, memory, offset, strides) where {T}
    GC.@preserve memory for index in CartesianIndices(result)
        result[index] = unsafe_load(Ptr{T}(pointer(memory) + offset + reduce(+, (Tuple(index) .- 1) .* strides; init=0)))
    end
end

read_vectors() = json(read(joinpath(@__DIR__, "..", "..", "..", "tests", "vectors", "keys.json"), String))[1]["vectors"]
