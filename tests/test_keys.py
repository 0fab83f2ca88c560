"""That one call has one key, in every language: the golden vectors, and calls made up at random.

npcache's side is tests/c/keys.c, which builds each call through the C ABI; the other is keys_reference, written from
docs/keys.md. `script` turns calls in the notation of make_vectors into what keys.c reads.
"""

import functools
import json
import random
import subprocess

import cbor2
import keys_reference as reference
import make_vectors
import numpy as np
import pytest
from conftest import ROOT, compile_program

MIB = make_vectors.MIB
VECTORS = json.loads(make_vectors.PATH.read_text())["vectors"]

# npcache.h's numbers of the types that it has numbers for.
DTYPES = {
    "|b1": 1, "|i1": 2, "<i2": 3, "<i4": 4, "<i8": 5, "|u1": 6, "<u2": 7, "<u4": 8, "<u8": 9,
    "<f2": 10, "<f4": 11, "<f8": 12, "<c8": 13, "<c16": 14,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ npcache, by keys.c


@functools.cache
def keys_program():
    return compile_program(ROOT / "tests" / "c" / "keys.c", libraries=("-lnpcache", "-ldl"))


def run_keys(lines):
    """What keys.c prints: a line for each `key`, `call`, `begin` and `status`, and for each error elsewhere."""
    text = "".join(line + "\n" for line in lines)
    ran = subprocess.run([keys_program()], input=text, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, f"keys.c ended with {ran.returncode}: {ran.stderr}"
    return ran.stdout.splitlines()


def word(data):
    """Data or text of the notation, or bytes, or a Python text, as a word of the script; None as NULL."""
    if data is None:
        return "~"
    if isinstance(data, dict) and "repeat" in data:
        return f"+{data['repeat'].encode().hex()}:{data['times']}"
    if isinstance(data, dict):
        return f"*{data['multiply']}:{data['length']}" + (f"^{data['flip']}" if "flip" in data else "")
    return (data if isinstance(data, bytes) else data.encode()).hex() or "-"


def hex_word(data):
    """Data of the notation, where a text is digits."""
    return (data or "-") if isinstance(data, str) else word(data)


def numbers(values):
    return ",".join(map(str, values)) or "-"


def value_script(value, directory, how):
    """The lines that add a value. `how` is `array`, `descr` or `digest`: by which function arrays are added."""
    if value is None:
        return ["null"]
    if isinstance(value, bool):
        return [f"bool {int(value)}"]
    ((kind, inner),) = value.items()
    match kind:
        case "int":
            return [f"{'int' if int(inner) < 2**63 else 'uint'} {inner}"]
        case "bigint":
            return [f"bigint {int(inner['negative'])} {hex_word(inner['magnitude'])}"]
        case "float64":
            return [f"float {inner}"]
        case "float16" | "float32":
            code = DTYPES["<f2" if kind == "float16" else "<f4"]
            return [f"scalar {code} {bytes.fromhex(inner)[::-1].hex()}"]
        case "complex64" | "complex128":
            parts = "".join(bytes.fromhex(part)[::-1].hex() for part in inner)
            return [f"scalar {DTYPES['<c8' if kind == 'complex64' else '<c16']} {parts}"]
        case "text":
            return [f"string {word(inner)}"]
        case "bytes":
            return [f"bytes {hex_word(inner)}"]
        case "file":
            return [f"file {word(str(make_vectors.value_of(value, directory).path))}"]
        case "list":
            return ["list", *(line for item in inner for line in value_script(item, directory, how)), "end"]
        case "map":
            return ["map", *named_script(inner, directory, how), "end"]
        case "nested":
            opening = ["list"] if inner["of"] == "list" else ["map", f"name {word('k')}"]
            depth = inner["depth"]
            return opening * depth + value_script(inner["value"], directory, how) + ["end"] * depth
        case "array":
            strides = "~" if inner["strides"] is None else numbers(inner["strides"])
            rest = f"{numbers(inner['shape'])} {strides} {hex_word(inner['buffer'])} {inner['offset']}"
            if how == "array" and inner["descr"] in DTYPES:
                return [f"array {DTYPES[inner['descr']]} {rest}"]
            return [f"{'digest' if how == 'digest' else 'descr'} {word(inner['descr'])} {rest}"]
    raise ValueError(f"no such kind of value: {kind}")


def named_script(pairs, directory, how):
    return [line for name, item in pairs for line in (f"name {word(name)}", *value_script(item, directory, how))]


def arguments_script(arguments, directory, how="array"):
    if "ready" in arguments:
        return [f"ready {hex_word(arguments['ready'])}"]
    positional = [line for item in arguments["positional"] for line in value_script(item, directory, how)]
    return ["args", *positional, *named_script(arguments["keyword"], directory, how)]


def function_script(call):
    lines = [f"function {word(call['name'])} {word(call['version'])}"]
    lines += [f"dependency {word(name)} {word(value)}" for name, value in call["dependencies"]]
    return lines + [f"layout {word(call['layout'])}"]


def script(call, directory, how="array"):
    """The lines that print a call's key."""
    return [*function_script(call), *arguments_script(call["arguments"], directory, how), "key"]


# ------------------------------------------------------------------------------------------------- the golden vectors


def test_the_committed_vectors_are_what_make_vectors_makes():
    assert make_vectors.PATH.read_text() == make_vectors.make(), "run tests/make_vectors.py and look at the difference"
    assert len(VECTORS) >= 150
    assert make_vectors.PATH.stat().st_size < 1_000_000


def test_no_two_vectors_have_a_key_by_accident():
    """Vectors with one key have one content: the same identity and canonical bytes."""
    seen = {}
    for vector in VECTORS:
        dependencies = {tuple(pair) for pair in vector["dependencies"]}
        if "layouts" in vector:
            dependencies.add(("layout", vector["layouts"]))
        content = (vector["name"], vector["version"], frozenset(dependencies), json.dumps(vector["canonical"]))
        assert seen.setdefault(vector["key"], content) == content, vector["description"]
    assert len(seen) == len(set(seen.values()))


@pytest.mark.parametrize("how", ["array", "descr", "digest"])
def test_the_c_builder_agrees_on_every_vector(how, tmp_path):
    """Arrays added by number, by descr, and as digests that were made before."""
    printed = run_keys(["cache ~", *(line for vector in VECTORS for line in script(vector, tmp_path, how))])
    wrong = [f"{v['description']}: {p}" for v, p in zip(VECTORS, printed, strict=True) if p != v["key"]]
    assert not wrong, "\n".join(wrong)


def test_canonical_bytes_given_ready_have_the_builders_key(tmp_path):
    """Without layout=strict, which ready bytes say nothing about."""
    lines, keys = ["cache ~"], []
    for vector in VECTORS:
        if vector["layout"] == "equal":
            canonical, _, key = make_vectors.solve(vector, tmp_path)
            ready = {**vector, "arguments": {"ready": canonical.hex()}}
            lines += script(ready, tmp_path)
            keys.append(key)
    assert run_keys(lines) == keys


def test_npcache_call_files_its_results_under_the_keys(cache_path, tmp_path):
    """A call of npcache_call with canonical bytes stores the entry that the builder's call finds."""
    lines, expected = [f"cache {word(str(cache_path))}"], []
    vectors = [
        v for v in VECTORS if v["layout"] == "equal" and not v["dependencies"] and isinstance(v["canonical"], str)
    ]
    vectors = list({vector["key"]: vector for vector in vectors}.values())
    assert len(vectors) > 150
    for vector in vectors:
        ready = vector["canonical"] or "-"
        lines.append(f"call {word(vector['name'])} {word(vector['version'])} {ready}")
        lines += [*function_script(vector), *arguments_script(vector["arguments"], tmp_path), "begin"]
        expected += [f"computed 1 {vector['key']}", f"memory 1 {vector['key']}"]
    assert [line.replace("disk", "memory") for line in run_keys(lines)] == expected


# -------------------------------------------------------------------------- the canonical bytes, decoded by cbor2 alone

ELEMENT_TYPES = {tag: descr for descr, tag in reference.ELEMENT_TAGS.items()}


def is_digest(item, tag, data):
    """Whether a decoded item stands for long `data`."""
    return isinstance(item, cbor2.CBORTag) and item.tag == tag and list(item.value) == [len(data), reference.root(data)]


def is_bytes(item, data):
    if len(data) > MIB:
        return is_digest(item, reference.TAG_DIGEST_OF_BYTES, data)
    return isinstance(item, bytes) and item == data


def is_value(item, value):
    """Whether cbor2 read back the value that was encoded."""
    if isinstance(value, str):
        data = value.encode()
        return is_digest(item, reference.TAG_DIGEST_OF_TEXT, data) if len(data) > MIB else item == value
    if isinstance(value, bytes):
        return is_bytes(item, value)
    if isinstance(value, reference.File):
        return item.tag == reference.TAG_FILE and is_bytes(item.value, value.path.read_bytes())
    if isinstance(value, (complex, np.complex64, np.ndarray)):
        return is_array(item, np.asarray(value))
    if isinstance(value, list):
        return len(item) == len(value) and all(map(is_value, item, value))
    if isinstance(value, dict):
        return item.keys() == value.keys() and all(is_value(item[name], value[name]) for name in value)
    if isinstance(value, (float, np.floating)):
        return isinstance(item, float) and (item == value or np.isnan(item) and np.isnan(value))
    return type(item) is type(value) and item == value


def is_array(item, array):
    assert item.tag == reference.TAG_ARRAY
    dimensions, elements = item.value
    if elements.tag == reference.TAG_ARRAY_BY_DESCR:
        descr, data = elements.value
        dtype = make_vectors.dtype_of(descr)
    else:
        dtype, data = np.dtype(ELEMENT_TYPES[elements.tag]), elements.value
    if list(dimensions) != list(array.shape) or dtype != array.dtype:
        return False
    return is_bytes(data, reference.elements_of(array))


def test_cbor2_reads_back_every_call(tmp_path):
    long_integers = 0
    for vector in VECTORS:
        if "ready" in vector["arguments"]:
            continue
        args, kwargs = make_vectors.call_of(vector["arguments"], tmp_path)
        canonical = reference.canonical(args, kwargs)
        if any(isinstance(value, int) and abs(value) >= 1 << 8 * MIB for value in args):
            long_integers += 1  # a tag 2 around something else than bytes, which cbor2 refuses
            continue
        positional, keywords = cbor2.loads(canonical)
        assert is_value(list(positional), args), vector["description"]
        assert is_value(keywords, kwargs), vector["description"]
    assert long_integers == 2


# --------------------------------------------------------------------------------------------- calls made up at random


class Calls:
    """Random calls in the notation of make_vectors, the same for the same seed."""

    NAMES = ["a", "b", "aa", "é", "nu", "steps", "tolerance", "a" * 24, "Z", "ω" * 130]
    DESCRS = make_vectors.SIMPLE + make_vectors.STRUCTURED

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def call(self):
        rng = self.rng
        positional = [self.value(0) for _ in range(rng.choice([0, 1, 1, 2, 3, 5]))]
        call = make_vectors.call(
            "random",
            *positional,
            keyword=self.pairs(0),
            name=rng.choice(self.NAMES),
            version=rng.choice(["", "1", "build-id:00ff"]),
            dependencies=[(rng.choice("abcz"), rng.choice("123")) for _ in range(rng.choice([0, 0, 1, 4]))],
            layout=rng.choice(["equal", "equal", "strict"]),
        )
        return call

    def pairs(self, depth):
        count = self.rng.choice([0, 0, 1, 2, 4])
        return [[name, self.value(depth)] for name in self.rng.sample(self.NAMES, count)]

    def value(self, depth):
        rng = self.rng
        containers = [] if depth > 4 else ["list", "map"]
        match rng.choice(
            ["constant", "int", "bigint", "float", "complex", "text", "bytes", "array", "array", *containers]
        ):
            case "constant":
                return rng.choice([None, False, True])
            case "int":
                return make_vectors.integer(rng.randrange(-(2**63), 2**64) >> rng.randrange(64))
            case "bigint":
                return make_vectors.bigint(rng.random() < 0.5, self.hex(rng.randrange(20)))
            case "float":
                width = rng.choice([16, 32, 64])
                return {f"float{width}": self.hex(width // 8)}
            case "complex":
                width = rng.choice([64, 128])
                return {f"complex{width}": [self.hex(width // 16), self.hex(width // 16)]}
            case "text":
                return {"text": "".join(rng.choice("aZ09 é\0Ω") for _ in range(rng.choice([0, 1, 5, 23, 24, 300])))}
            case "bytes":
                return {"bytes": self.hex(rng.choice([0, 1, 23, 24, 255, 256, 700]))}
            case "array":
                return self.array()
            case "list":
                return {"list": [self.value(depth + 1) for _ in range(rng.choice([0, 1, 3]))]}
            case "map":
                return {"map": self.pairs(depth + 1)}

    def hex(self, length):
        return self.rng.randbytes(length).hex()

    def array(self):
        """Of any order, direction and gaps, and now and then more than 1 MiB."""
        rng = self.rng
        descr = rng.choice(self.DESCRS)
        itemsize = make_vectors.dtype_of(descr).itemsize
        shape = [rng.choice([1, 2, 3, 4, 7]) for _ in range(rng.randrange(5))]
        if shape and rng.random() < 0.05:
            shape[rng.randrange(len(shape))] = 0
        if shape and itemsize < 16 and rng.random() < 0.02:
            shape[0] = (MIB + rng.randrange(MIB)) // (itemsize * max(1, int(np.prod(shape[1:])))) + 1
        if rng.random() < 0.3:
            return make_vectors.array(descr, shape, buffer=self.buffer(itemsize * int(np.prod(shape, dtype=int))))
        strides, step = [0] * len(shape), itemsize
        for axis in rng.sample(range(len(shape)), len(shape)):
            step += rng.choice([0, 0, 0, 1, itemsize])
            strides[axis] = step * rng.choice([1, 1, 1, -1]) if rng.random() < 0.97 else 0
            step *= max(shape[axis], 1)
        offset = -sum((n - 1) * s for n, s in zip(shape, strides) if s < 0 and n > 0)
        last = sum((n - 1) * s for n, s in zip(shape, strides) if s > 0 and n > 0)
        return make_vectors.array(
            descr, shape, strides, offset, self.buffer(offset + last + itemsize + rng.randrange(3))
        )

    def buffer(self, length):
        if length > 4096:
            return {"multiply": self.rng.randrange(1, 2**32, 2), "length": length}
        return self.hex(length)

    # ---- one changed bit, and another order

    def bit_changed(self, call):
        """The call with one bit of one of its arguments turned over, None if it has no bit."""
        arguments = json.loads(json.dumps(call["arguments"]))
        leaves = []
        self.collect(arguments["positional"] + [value for _, value in arguments["keyword"]], leaves)
        if not leaves:
            return None
        self.turn_bit(self.rng.choice(leaves))
        return {**call, "arguments": arguments}

    def collect(self, values, leaves):
        for value in values:
            if not isinstance(value, dict):
                continue
            ((kind, inner),) = value.items()
            if kind == "list":
                self.collect(inner, leaves)
            elif kind == "map":
                self.collect([item for _, item in inner], leaves)
            elif kind == "array":
                if make_vectors.array_of(inner).nbytes:
                    leaves.append(value)
            elif kind in ("text", "bytes"):
                if inner:
                    leaves.append(value)
            elif kind != "bigint" or inner["magnitude"].strip("0"):  # else -0, which is 0
                leaves.append(value)

    def turn_bit(self, value):
        rng = self.rng
        ((kind, inner),) = value.items()
        if kind == "int":
            n = int(inner)
            value["int"] = str((-1 - ((-1 - n) ^ 1 << rng.randrange(63))) if n < 0 else n ^ 1 << rng.randrange(64))
        elif kind == "bigint":
            inner["magnitude"] = self.turned(inner["magnitude"])
        elif kind.startswith("complex"):
            inner[0] = self.turned(inner[0])
        elif kind == "text":
            # The lowest bit of a character is one of its last byte's: it stays UTF-8.
            i = rng.randrange(len(inner))
            value["text"] = inner[:i] + chr(ord(inner[i]) ^ 1) + inner[i + 1 :]
        elif kind == "array":
            self.turn_array_bit(inner)
        else:
            value[kind] = self.turned(inner)

    def turned(self, digits, bit=None):
        data = bytearray.fromhex(digits)
        bit = self.rng.randrange(8 * len(data)) if bit is None else bit
        data[bit // 8] ^= 1 << bit % 8
        return data.hex()

    def turn_array_bit(self, array):
        """A bit of an element, not of a gap."""
        made = make_vectors.array_of(array)
        indices = [self.rng.randrange(n) for n in made.shape]
        at = array["offset"] + sum(i * s for i, s in zip(indices, made.strides)) + self.rng.randrange(made.itemsize)
        bit = 8 * at + self.rng.randrange(8)
        buffer = array["buffer"]
        array["buffer"] = {**buffer, "flip": bit} if isinstance(buffer, dict) else self.turned(buffer, bit)

    def reordered(self, call):
        """The call with its keyword arguments, and the maps among its arguments, in another order."""
        arguments = json.loads(json.dumps(call["arguments"]))
        self.shuffle(arguments["keyword"])
        self.reorder(arguments["positional"] + [value for _, value in arguments["keyword"]])
        return {**call, "arguments": arguments}

    def reorder(self, values):
        for value in values:
            if isinstance(value, dict) and "list" in value:
                self.reorder(value["list"])
            if isinstance(value, dict) and "map" in value:
                self.shuffle(value["map"])
                self.reorder([item for _, item in value["map"]])

    def shuffle(self, pairs):
        pairs[:] = self.rng.sample(pairs, len(pairs))


@pytest.fixture(scope="module")
def random_calls(tmp_path_factory):
    """2,000 calls and their keys, by keys.c."""
    made = Calls(seed=20260718)
    calls = [made.call() for _ in range(2000)]
    directory = tmp_path_factory.mktemp("files")
    return calls, run_keys(["cache ~", *(line for call in calls for line in script(call, directory))])


def test_the_reference_and_the_c_builder_agree_on_random_calls(random_calls, tmp_path):
    for call, key in zip(*random_calls, strict=True):
        assert make_vectors.solve(call, tmp_path)[2] == key, json.dumps(call)


def test_the_order_of_keywords_and_keys_does_not_count(random_calls, tmp_path):
    calls, keys = random_calls
    made = Calls(seed=1)
    other = [made.reordered(call) for call in calls]
    assert sum(a != b for a, b in zip(calls, other)) > 500
    # Layout letters follow the encoding's order, so they do not change either.
    assert run_keys(["cache ~", *(line for call in other for line in script(call, tmp_path))]) == keys


def test_one_changed_bit_changes_the_key(random_calls, tmp_path):
    """10,000 cases, and no two of them have one key."""
    calls, keys = random_calls
    made = Calls(seed=2)
    lines, originals, cases = ["cache ~"], [], 0
    while cases < 10_000:
        i = cases % len(calls) if cases < len(calls) else made.rng.randrange(len(calls))
        changed = made.bit_changed(calls[i])
        if changed is None:
            calls, keys = calls[:i] + calls[i + 1 :], keys[:i] + keys[i + 1 :]
            continue
        lines += script(changed, tmp_path)
        originals.append(keys[i])
        cases += 1
    printed = run_keys(lines)
    assert len(printed) == 10_000
    for key, original in zip(printed, originals):
        assert len(key) == 64 and key != original


def test_every_bit_of_long_bytes_counts(tmp_path):
    """The first, the last, and one in each chunk of a tree whose last chunk is one byte."""
    length = 5 * MIB + 1
    flips = [None, 0, 8 * length - 1, *(8 * MIB * i + 12345 for i in range(5))]
    datas = [{"multiply": 2654435761, "length": length} | ({} if bit is None else {"flip": bit}) for bit in flips]
    calls = [make_vectors.call("long", {"bytes": data}) for data in datas]
    printed = run_keys(["cache ~", *(line for call in calls for line in script(call, tmp_path))])
    assert printed == [make_vectors.solve(call, tmp_path)[2] for call in calls]
    assert len(set(printed)) == len(flips)
