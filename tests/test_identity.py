"""What makes a function that function: its version, the objects that it depends on, and the arguments as they were when
it was called; and that arguments which are none are errors.

keys.c runs the calls, each time as a new process, with a function from a library that the test builds.
"""

import shutil
import subprocess

import keys_reference as reference
import pytest
from conftest import compile_program
from test_keys import DTYPES, keys_program, run_keys, word

SOURCE = """
#include "npcache.h"

int32_t solve(void *user_data, const void *args, size_t args_len, npcache_output *out);

int32_t solve(void *user_data, const void *args, size_t args_len, npcache_output *out) {
    double *value = npcache_output_alloc(out, NULL, NPCACHE_FLOAT64, 0, NULL, NPCACHE_ORDER_C);
    (void)user_data, (void)args, (void)args_len;
    if (value == NULL) return 1;
    *value = CONSTANT;
    return npcache_output_commit(out);
}
"""

ERR_ARGUMENT, ERR_IO, ERR_BUILD_ID, ERR_DTYPE = -1, -4, -7, -8
MIB = 1 << 20
FLOAT64 = DTYPES["<f8"]


def build(path, constant, flags=()):
    """Builds a library whose function `solve` returns `constant`."""
    source = path.with_suffix(".c")
    source.write_text(SOURCE)
    built = compile_program(
        source, name=f"identity-{path.stem}", flags=("-shared", "-fPIC", f"-DCONSTANT={constant}", *flags)
    )
    path.unlink(missing_ok=True)
    shutil.move(built, path)
    return path


def build_id(path):
    notes = subprocess.run(["readelf", "-n", path], capture_output=True, text=True, check=True).stdout
    return "build-id:" + notes.split("Build ID: ")[1].split()[0]


def origin_and_value(line):
    return line.split(" ")[:2]


def call(cache, library, version):
    """A call of the library's function by npcache_call, in a new process: its origin and its value."""
    (line,) = run_keys(
        [f"cache {cache}", f"library {word(str(library))} solve", f"call {word('solve')} {version} {word('x')}"]
    )
    return origin_and_value(line)


@pytest.fixture
def cache(cache_path):
    """The cache's directory as a word of the script."""
    return word(str(cache_path))


# ------------------------------------------------------------------------------------------------------------- versions


def test_a_rebuilt_library_computes_anew_and_an_identical_one_does_not(cache, tmp_path):
    library = build(tmp_path / "libsolve.so", 1)
    bits = library.read_bytes()
    assert call(cache, library, "~") == ["computed", "1"]
    assert call(cache, library, "~") == ["disk", "1"]

    assert build(library, 1).read_bytes() == bits, "the compiler makes the same bits of the same source"
    assert call(cache, library, "~") == ["disk", "1"]

    assert build(library, 2).read_bytes() != bits
    assert call(cache, library, "~") == ["computed", "2"]

    build(library, 1)
    assert call(cache, library, "~") == ["disk", "1"], "versions live side by side"


def test_with_a_version_of_its_own_a_rebuilt_library_hits(cache, tmp_path):
    library = build(tmp_path / "libsolve.so", 1)
    for version in word("1.0"), word(""):
        build(library, 1)
        assert call(cache, library, version) == ["computed", "1"]
        build(library, 2)
        assert call(cache, library, version) == ["disk", "1"]
    assert call(cache, library, word("1.1")) == ["computed", "2"]


def test_a_library_without_a_build_id_needs_a_version(cache, tmp_path):
    library = build(tmp_path / "libsolve.so", 1, flags=("-Wl,--build-id=none",))
    # compile_program's own --build-id comes last, so take the note out of the finished library.
    subprocess.run(["objcopy", "--remove-section=.note.gnu.build-id", library], check=True)
    (error, code) = call(cache, library, "~")
    assert (error, int(code)) == ("error", ERR_BUILD_ID)
    assert call(cache, library, word("1")) == ["computed", "1"]


@pytest.mark.parametrize("version", ["~", word("1.0")], ids=["build ID", "version"])
def test_a_changed_second_library_counts_once_it_was_added(version, cache, tmp_path):
    first, second = build(tmp_path / "libfirst.so", 1), build(tmp_path / "libsecond.so", 10)
    first_object = f"object {word(str(first))} solve"
    second_object = f"object {word(str(second))} solve"

    def begin(*objects):
        lines = [f"cache {cache}", f"library {word(str(first))} solve", f"function {word('solve')} {version}", *objects]
        (line,) = run_keys([*lines, "args", "int 1", "begin"])
        return origin_and_value(line)

    alone = [first_object] if version == "~" else []
    assert begin(*alone) == ["computed", "1"]
    assert begin(*alone, second_object) == ["computed", "1"], "with it, another identity"
    assert begin(*alone, second_object) == ["disk", "1"]
    build(second, 20)
    assert begin(*alone) == ["disk", "1"], "not added, it does not count"
    assert begin(*alone, second_object) == ["computed", "1"]
    build(second, 10)
    assert begin(*alone, second_object) == ["disk", "1"]


def test_objects_have_the_names_and_values_of_the_page(tmp_path):
    library, other = build(tmp_path / "libsolve.so", 1), build(tmp_path / "libother.so.2", 2)
    link = tmp_path / "libother.so"
    link.symlink_to(other.name)
    function = f"function {word('solve')} ~"
    objects = [f"object {word(str(library))} solve", f"object {word(str(other))} solve", "object ~"]
    by_link = f"object {word(str(link))} solve"
    program = keys_program()
    dependencies = [("object:libother.so.2", build_id(other)), ("object:", build_id(program))]
    empty = reference.canonical()

    keys = run_keys(["cache ~", function, *objects, "args", "key"])
    assert keys == [reference.key("solve", build_id(library), dependencies, empty)]
    # The first to give a version is not a dependency; an explicit version makes it one.
    keys = run_keys(["cache ~", f"function {word('solve')} {word('1')}", *objects, "args", "key"])
    assert keys == [reference.key("solve", "1", [("object:libsolve.so", build_id(library)), *dependencies], empty)]
    # Adding one twice changes nothing, and neither does adding the version's own object again.
    keys = run_keys(["cache ~", function, "object ~", objects[1], "object ~", objects[1], "args", "key"])
    assert keys == [reference.key("solve", build_id(program), dependencies[:1], empty)]
    # The name is the one that it was loaded by: symbolic links are not followed.
    keys = run_keys(["cache ~", function, "object ~", by_link, "args", "key"])
    assert keys == [reference.key("solve", build_id(program), [("object:libother.so", build_id(other))], empty)]


# ----------------------------------------------------------------------------------------------- arguments as they were


def test_a_function_that_overwrites_its_argument_bytes_files_under_what_it_was_called_with(cache):
    short, long = word("abcdefgh"), f"*2654435761:{3 * MIB}"
    for data in short, long:
        lines = [f"cache {cache}", "overwrite", f"call {word('f')} {word('1')} {data}"]
        origins = [origin_and_value(run_keys(lines)[0]) for _ in range(2)]
        assert origins == [["computed", "1"], ["disk", "1"]]


def test_a_function_that_overwrites_its_array_files_under_what_it_was_called_with(cache):
    lines = [f"cache {cache}", "overwrite", f"function {word('f')} {word('1')}"]
    arrays = [
        f"array {FLOAT64} 3 ~ {bytes(range(24)).hex()} 0",
        f"array {FLOAT64} 512,768 8,4096 *2654435761:{3 * MIB} 0",
    ]
    ran = run_keys([*lines, "args", *arrays, "begin", "args", *arrays, "begin"])
    origins = [origin_and_value(line)[0] for line in ran]
    assert origins[0] == "computed" and origins[1] in ("memory", "disk")
    # Under the key of what it was called with, not of what it left behind.
    (key,) = run_keys(["cache ~", *lines[2:], "args", *arrays, "key"])
    assert {line.split(" ")[2] for line in ran} == {key}


# ------------------------------------------------------------------------------------------------- what is no argument

ARRAY = f"array {FLOAT64}"
EIGHT, BIG = "00" * 8, 2**62
QUOTE_IN_NAME = word("""[("it's", '<f8')]""")

WRONG = {
    "65 lists": (ERR_ARGUMENT, ["list"] * 65 + ["end"] * 65),
    "65 maps": (ERR_ARGUMENT, ["map", "name 61"] * 65 + ["null"] + ["end"] * 65),
    "65 lists by name": (ERR_ARGUMENT, ["name 61"] + ["list"] * 65 + ["end"] * 65),
    "lists in maps, 66 in all": (ERR_ARGUMENT, ["map", "name 61", "list"] * 33 + ["end"] * 66),
    "a million lists": (ERR_ARGUMENT, ["list"] * 1_000_000),
    "an end too many": (ERR_ARGUMENT, ["end"]),
    "an end too many, after a list": (ERR_ARGUMENT, ["list", "end", "end"]),
    "an end too few": (ERR_ARGUMENT, ["list", "int 1"]),
    "a map without its end": (ERR_ARGUMENT, ["map"]),
    "a key in a list": (ERR_ARGUMENT, ["list", "name 61", "null", "end"]),
    "a value without a key in a map": (ERR_ARGUMENT, ["map", "null", "end"]),
    "a list without a key in a map": (ERR_ARGUMENT, ["map", "list", "end", "end"]),
    "a key without a value in a map": (ERR_ARGUMENT, ["map", "name 61", "end"]),
    "a keyword without a value": (ERR_ARGUMENT, ["name 61"]),
    "two keys in a row": (ERR_ARGUMENT, ["map", "name 61", "name 62", "null", "end"]),
    "two keywords in a row": (ERR_ARGUMENT, ["name 61", "name 62", "null"]),
    "a key twice": (ERR_ARGUMENT, ["map", "name 61", "null", "name 62", "null", "name 61", "null", "end"]),
    "a keyword twice": (ERR_ARGUMENT, ["name 61", "null", "name 61", "int 1"]),
    "a key of more than 1 MiB": (ERR_ARGUMENT, ["map", f"name +6b:{MIB + 1}", "null", "end"]),
    "a key that is NULL": (ERR_ARGUMENT, ["name ~", "null"]),
    "a key that is not UTF-8": (ERR_ARGUMENT, ["name ff", "null"]),
    "text that is not UTF-8": (ERR_ARGUMENT, ["string ff"]),
    "text that is half a character": (ERR_ARGUMENT, ["string c3"]),
    "a surrogate": (ERR_ARGUMENT, ["string eda080"]),
    "a buffer one byte too short": (ERR_ARGUMENT, [f"{ARRAY} 1 ~ {EIGHT[2:]} 0"]),
    "a buffer one byte too short for its strides": (ERR_ARGUMENT, [f"{ARRAY} 2 9 {'00' * 16} 0"]),
    "a buffer too short for its offset": (ERR_ARGUMENT, [f"{ARRAY} 1 ~ {EIGHT} 1"]),
    "no buffer": (ERR_ARGUMENT, [f"{ARRAY} 1 ~ ~ 0"]),
    "a negative stride before the buffer": (ERR_ARGUMENT, [f"{ARRAY} 2 -8 {EIGHT * 2} 0"]),
    "a negative stride one byte before the buffer": (ERR_ARGUMENT, [f"{ARRAY} 2 -8 {EIGHT * 2} 7"]),
    "an offset of 2^64-1": (ERR_ARGUMENT, [f"{ARRAY} 1 ~ {EIGHT} {2**64 - 1}"]),
    "a size past 2^64": (ERR_ARGUMENT, [f"{ARRAY} {BIG},{BIG} ~ {EIGHT} 0"]),
    "a size past 2^64 of nothing between": (ERR_ARGUMENT, [f"{ARRAY} {BIG},{BIG} 0,8 {EIGHT} 0"]),
    "a stride of -2^63": (ERR_ARGUMENT, [f"{ARRAY} 2 {-(2**63)} {EIGHT * 2} 8"]),
    "a stride of 2^63-1": (ERR_ARGUMENT, [f"{ARRAY} 3 {2**63 - 1} {EIGHT * 2} 0"]),
    "strides whose sum wraps around": (ERR_ARGUMENT, [f"{ARRAY} 3,3 {BIG},{BIG} {EIGHT * 2} 0"]),
    "a negative dimension": (ERR_ARGUMENT, [f"{ARRAY} -1 ~ {EIGHT} 0"]),
    "33 dimensions": (ERR_ARGUMENT, [f"{ARRAY} {','.join(['1'] * 33)} ~ {EIGHT} 0"]),
    "dtype 0": (ERR_DTYPE, [f"array 0 1 ~ {EIGHT} 0"]),
    "dtype -1": (ERR_DTYPE, [f"array -1 1 ~ {EIGHT} 0"]),
    "dtype 99": (ERR_DTYPE, [f"array 99 1 ~ {EIGHT} 0"]),
    "a scalar of dtype 99": (ERR_DTYPE, [f"scalar 99 {EIGHT}"]),
    "objects": (ERR_DTYPE, [f"descr {word('|O')} 1 ~ {EIGHT} 0"]),
    "a structure without fields": (ERR_DTYPE, [f"descr {word('[]')} 1 ~ {EIGHT} 0"]),
    "a field's name with a quote": (ERR_DTYPE, [f"descr {QUOTE_IN_NAME} 1 ~ {EIGHT} 0"]),
    "a file that is not there": (ERR_IO, [f"file {word('/nonexistent/npcache')}"]),
    "a file that is a directory": (ERR_ARGUMENT, [f"file {word('/')}"]),
}

# What only the key or the call can find: more could be added.
UNFINISHED = ["an end too few", "a map without its end", "a keyword without a value"]


ERRORS_OF_THE_CALL = [wrong for wrong in WRONG if wrong not in UNFINISHED]

FUNCTION = ["cache ~", f"function {word('f')} {word('1')}"]


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_argument_is_an_error_and_no_crash(wrong):
    """It stays: in the key, in the call, and with what is added afterwards. Other arguments are not touched."""
    code, lines = WRONG[wrong]
    later = [] if wrong in UNFINISHED else ["null"]
    ran = run_keys(
        [*FUNCTION, "args", "int 1", *lines, "status", "key", "begin", *later, "key", "args", "int 1", "key"]
    )
    status, *errors, key = ran
    assert key == reference.key("f", "1", [], reference.canonical([1]))
    assert int(status) == (0 if wrong in UNFINISHED else code)
    assert [error.split(" ")[0] for error in errors] == ["error"] * 3, ran
    assert all(len(error.split(" ", 2)[2]) > 10 for error in errors), "and says why"


@pytest.mark.parametrize("wrong", ERRORS_OF_THE_CALL)
def test_the_first_error_is_the_calls(wrong):
    code, lines = WRONG[wrong]
    for error in run_keys([*FUNCTION, "args", *lines, "end", "end", "key", "begin"]):
        assert error.startswith(f"error {code} ")


def test_a_digest_of_no_array_is_an_error_and_leaves_the_arguments_alone():
    ran = run_keys([*FUNCTION, "args", f"digest {word('<f8')} 2 ~ {EIGHT} 0", "status", "key"])
    assert ran == [str(ERR_ARGUMENT), reference.key("f", "1", [], reference.canonical())]


def test_nothing_can_be_added_to_ready_bytes():
    lines = [*FUNCTION, "ready 8280a0", "key", "int 1", "status", "key"]
    key, status, error = run_keys(lines)
    assert key == reference.key("f", "1", [], reference.canonical())
    assert status == str(ERR_ARGUMENT) and error.startswith(f"error {ERR_ARGUMENT} ")


def test_64_levels_are_fine_and_a_positional_argument_may_follow_a_keyword():
    deep = None
    for _ in range(64):
        deep = [deep]
    ran = run_keys([*FUNCTION, "args", "name 6e", *["list"] * 64, "null", *["end"] * 64, "int 7", "key"])
    assert ran == [reference.key("f", "1", [], reference.canonical([7], {"n": deep}))]
    with pytest.raises(ValueError, match="64 levels"):
        reference.canonical([[deep]])


SPELLINGS = {
    "<f8": ["f8", "=f8", "|f8", "<f08"],
    "|i1": ["i1", ">i1", "<i1"],
    "|S8": ["S8", ">S8"],
    "<M8[ns]": ["M8[ns]", "=M8[ns]", "<M8[1ns]", "<M8[01ns]"],
    "<M8[ms]": ["<M8[s/1000]"],
    "<M8": ["M8", "<M8[generic]"],
    "[('a', '<f4'), ('b', '<i2', (2,))]": [
        "[ ( \"a\",'f4' ) ,('b','=i2',(2, ),),]",
        "[('a', '<f4', ()), ('b', '<i2', (2,))]",
        "[('a', '<f4'), ('b', '<i2', (02,))]",
    ],
}


@pytest.mark.parametrize("descr, other", [(descr, other) for descr in SPELLINGS for other in SPELLINGS[descr]])
def test_a_spelling_of_a_descr_is_no_argument_of_its_own(descr, other):
    """It is the same argument, or it is refused."""
    buffer = bytes(range(8)).hex()
    arrays = [f"descr {word(text)} 1 ~ {buffer} 0" for text in (descr, other)]
    expected, found = run_keys([*FUNCTION, *(line for array in arrays for line in ("args", array, "key"))])
    assert len(expected) == 64
    assert found == expected or found.startswith("error ")
