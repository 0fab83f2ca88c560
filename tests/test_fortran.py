"""The Fortran module: it says what npcache.h says, and what Fortran stores is to numpy what it was to Fortran."""

import re
import subprocess

import driver
import numpy as np
import pytest
from conftest import LIBRARY, ROOT, need_tool
from keys_reference import canonical, key

MODULE = ROOT / "include" / "npcache.f90"
HEADER = ROOT / "include" / "npcache.h"
QUICKSTART = ROOT / "examples-c" / "quickstart.f90"
PAGE = ROOT / "docs" / "fortran.md"

# A parameter or result in C and in Fortran. A pointer that Fortran passes as an address it has is `type(c_ptr), value`.
HANDLE, OUT, TEXT, NUMBERS = "type(c_ptr), value", "type(c_ptr), intent(out)", "characters", "numbers"
IN_FORTRAN = {
    "int32_t": {"integer(c_int32_t), value"},
    "uint32_t": {"integer(c_int32_t), value"},
    "npcache_status": {"integer(c_int32_t), value"},
    "int64_t": {"integer(c_int64_t), value"},
    "size_t": {"integer(c_size_t), value"},
    "double": {"real(c_double), value"},
    "npcache_fn": {"type(c_funptr), value"},
    "npcache_log_fn": {"type(c_funptr), value"},
    "void (*)(void)": {"type(c_funptr), value"},
    "char *": {TEXT, HANDLE},
    "int64_t *": {NUMBERS},
    "int32_t *": {"integer(c_int32_t), intent(out)"},
    "size_t *": {"integer(c_size_t), intent(out)"},
    "uint64_t": {"integer(c_int64_t), value"},
    "npcache_view *": {"type(npcache_view), intent(out)"},
    "npcache_statistics *": {"type(npcache_statistics), intent(out)"},
}


def of_header():
    """The header's constants, its functions as lists of their result's and parameters' types, and its structs' fields."""
    text = HEADER.read_text()
    constants = {name: int(value) for name, value in re.findall(r"^#define (NPCACHE_\w+) (-?\d+)$", text, re.MULTILINE)}
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    functions = {}
    for result, name, parameters in re.findall(r"^([\w *]+?)(\bnpcache_\w+)\(([^;]*)\);", text, re.MULTILINE):
        parameters = [c_type(each) for each in re.split(r",(?![^(]*\))", parameters) if each.strip() != "void"]
        functions[name] = [c_type(result + "result"), *parameters]
    structs = {
        name: [(re.search(r"\w+$", each)[0], c_type(each)) for each in fields.split(";") if each.strip()]
        for fields, name in re.findall(r"typedef struct \{([^}]*)\} (npcache_\w+);", text)
    }
    return constants, functions, structs


def c_type(declaration):
    """`const int64_t *shape` is an `int64_t *`."""
    text = " ".join(declaration.replace("const ", "").split())
    if "(*" in text:
        return "void (*)(void)"
    return re.sub(r"\s*(\**)\w+$", lambda name: " " + name[1] if name[1] else "", text)


def fits(c, fortran):
    if c.endswith("**"):
        return fortran == OUT
    if c.endswith("*") and c not in IN_FORTRAN:
        return fortran == HANDLE
    return fortran in IN_FORTRAN[c]


def of_module():
    """The same of the module, whose functions are known by their bind(C) names."""
    text = re.sub(r" &\n\s*", " ", MODULE.read_text())
    text = re.sub(r"!.*", "", text)
    constants = re.findall(r"integer\(c_int32_t\), parameter :: (NPCACHE_\w+) = (-?\d+)", text)
    functions = {}
    for kind, name, dummies, head, body in re.findall(
        r"^ *(function|subroutine) (\w+)\(([^)]*)\) bind\(C([^\n]*)\n(.*?)^ *end \1", text, re.MULTILINE | re.DOTALL
    ):
        bound = re.search(r"name='(\w+)'", head)
        result = re.search(r"result\((\w+)\)", head)
        declared = {}
        for attributes, names in re.findall(r"^ *(\S.*?) :: (.*)$", body, re.MULTILINE):
            for dummy, is_array in re.findall(r"(\w+)(\(\*\))?", names):
                if attributes.startswith("character"):
                    attributes = TEXT
                declared[dummy] = NUMBERS if is_array and attributes == "integer(c_int64_t), intent(in)" else attributes
        names = [each.strip() for each in dummies.split(",") if each.strip()]
        types = [declared[result[1]] + ", value" if kind == "function" else None, *(declared[each] for each in names)]
        functions[bound[1] if bound else name] = types
    structs = {
        name: re.findall(r"^ *(\S+) :: (\w+)", fields, re.MULTILINE)
        for name, fields in re.findall(r"type, bind\(C\) :: (npcache_\w+)\n(.*?)end type", text, re.DOTALL)
    }
    return {name: int(value) for name, value in constants}, functions, structs


def test_the_constants_are_those_of_the_header():
    """Where one is missing, it was added to npcache.h: add it to npcache.f90 too."""
    assert of_module()[0] == of_header()[0]


def test_the_functions_have_the_parameters_and_types_of_the_header():
    declared, functions = of_header()[1], of_module()[1]
    for name in ("npcache_fn", "strlen"):  # what is no function of npcache's
        del functions[name]
    assert len(functions) > 50
    for name, types in functions.items():
        assert name in declared, f"{name} is not in npcache.h"
        assert len(types) == len(declared[name]), f"{name}: {declared[name]}"
        for c, fortran in zip(declared[name], types, strict=True):
            assert (c == "void" and fortran is None) or fits(c, fortran), f"{name}: {c}, in Fortran {fortran}"


@pytest.mark.parametrize("struct", ["npcache_view", "npcache_statistics"])
def test_a_struct_has_the_fields_of_the_header(struct):
    fields = of_header()[2][struct]
    expected = [(name, "type(c_ptr)" if c.endswith("*") else next(iter(IN_FORTRAN[c]))) for name, c in fields]
    of_fortran = [(name, kind) for kind, name in of_module()[2][struct]]
    assert of_fortran == [(name, kind.removesuffix(", value")) for name, kind in expected]


@pytest.fixture
def compile_fortran(tmp_path):
    """Compiles a Fortran source with the module, warnings being errors, and returns the program."""
    gfortran = need_tool("gfortran", "gfortran")

    def compile_(source):
        library = LIBRARY.parent
        program = tmp_path / source.stem
        warnings = ["-std=f2008", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fcheck=all", "-g", "-J", str(tmp_path)]
        paths = [f"-L{library}", f"-Wl,-rpath,{library}", "-Wl,--build-id"]
        command = [gfortran, *warnings, str(MODULE), str(source), "-o", str(program), *paths, "-lnpcache"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return program

    return compile_


def run(program, directory):
    done = subprocess.run([program], cwd=directory, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_computes_once_and_numpy_reads_its_table_column_major(compile_fortran, tmp_path):
    program = compile_fortran(QUICKSTART)
    assert run(program, tmp_path) == "J_1(1) = 0.440050585745, computed\n"
    assert run(program, tmp_path) == "J_1(1) = 0.440050585745, from disk\n"
    (entry,) = (tmp_path / "quickstart-cache").rglob("*.npy")
    table = np.load(entry)
    assert table.shape == (4, 6) and table.dtype == np.float64 and table.flags.f_contiguous
    # Bessel's integral; the midpoint rule is exact to rounding for a periodic function.
    t = (np.arange(64) + 0.5) * np.pi / 64
    for n in range(4):
        for k in range(6):
            assert table[n, k] == pytest.approx(np.cos(n * t - k / 5 * np.sin(t)).mean(), abs=1e-12)


def test_the_page_is_a_program(compile_fortran, tmp_path):
    declarations, *statements = re.findall(r"^```fortran\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (expected,) = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    source = tmp_path / "page.f90"
    source.write_text("\n".join(["program page", declarations, *statements, "end program"]))
    program = compile_fortran(source)
    assert run(program, tmp_path) == expected
    assert run(program, tmp_path) == expected.replace("computed", "found   ")


PROGRAM = r"""
module work
    use npcache
    implicit none
contains
    function halves(user_data, args, args_len, out) bind(C) result(code)
        type(c_ptr), value :: user_data, args, out
        integer(c_size_t), value :: args_len
        integer(c_int32_t) :: code
        integer(c_int32_t), pointer :: calls, n
        real(c_float), pointer :: values(:)

        call c_f_pointer(user_data, calls)
        call c_f_pointer(args, n)
        calls = calls + 1
        call c_f_pointer(npcache_output_alloc(out, 'halves'//c_null_char, NPCACHE_FLOAT32, 1_c_int32_t, &
            [int(n, c_int64_t)], NPCACHE_ORDER_F), values, [n])
        values = [(code / 2.0_c_float, code = 1, n)]
        code = merge(npcache_output_commit(out), -77_c_int32_t, args_len == 4)
    end function
end module

program traps
    use work
    implicit none
    type(c_ptr) :: cache, function, args, todo, result, copy, address, error
    type(npcache_view) :: view
    integer(c_int32_t) :: status, i
    integer(c_int32_t), target :: n = 5, calls = 0
    integer(c_int64_t) :: extents(2), extent(1), none(0)
    real(c_double), target :: matrix(2, 3) = reshape([1d0, 2d0, 3d0, 4d0, 5d0, 6d0], [2, 3])
    complex(c_float_complex), target :: z = (1.0, -2.0)
    integer(c_int8_t), target :: cube(2, 1, 3) = reshape([1_c_int8_t, 2_c_int8_t, 3_c_int8_t, 4_c_int8_t, 5_c_int8_t, &
        6_c_int8_t], [2, 1, 3])
    real(c_double), target :: read_back(2, 3)
    real(c_double), pointer :: scalar, writable(:, :)
    real(c_float), pointer :: values(:)
    character(kind=c_char) :: key(65)

    status = npcache_new(c_null_ptr, c_null_ptr, cache, error)
    call npcache_f_check(status, error)
    do i = 1, 2
        status = npcache_call(cache, 'halves'//c_null_char, '1'//c_null_char, c_loc(n), 4_c_size_t, c_funloc(halves), &
            c_loc(calls), result, error)
        call npcache_f_check(status, error)
        status = npcache_f_array(result, 0_c_int32_t, NPCACHE_FLOAT32, extent, address)
        call c_f_pointer(address, values, extent)
        print '(i0, 5f4.1, 1x, a, 1x, i0)', status, values, npcache_f_text(npcache_status_string( &
            npcache_buffer_stored(result))), npcache_buffer_origin(result)
        call npcache_buffer_release(result)
    end do
    status = npcache_call(cache, 'halves'//c_null_char, c_null_ptr, c_loc(n), 3_c_size_t, c_funloc(halves), &
        c_loc(calls), result, error)
    print '(2(i0, 1x), l1)', status, npcache_error_function_code(error), c_associated(result)
    call npcache_error_free(error)
    call npcache_free(cache)

    status = npcache_new('cache'//c_null_char, c_null_ptr, cache, error)
    status = npcache_function_new(cache, 'rows'//c_null_char, '1'//c_null_char, function, error)
    status = npcache_args_from_bytes(c_null_ptr, 0_c_size_t, args, error)
    status = npcache_begin(function, args, 0_c_int64_t, result, todo, error)
    call npcache_args_free(args)
    if (c_associated(todo)) then
        status = npcache_output_fail(todo, 'python did not store it'//c_null_char)
        status = npcache_end(todo, result, error)
    end if
    call npcache_f_check(status, error)
    print '(*(i0, 1x))', (npcache_f_array(result, i, NPCACHE_FLOAT64, extents, address), i = 0, 1), &
        npcache_f_array(result, 1_c_int32_t, NPCACHE_FLOAT32, extents, address), &
        npcache_f_array(result, 1_c_int32_t, NPCACHE_FLOAT64, extent, address), &
        npcache_f_array(result, 9_c_int32_t, NPCACHE_FLOAT64, extents, address)
    print '(2(i0, 1x), l1)', extents, c_associated(address)
    status = npcache_buffer_read(result, 0_c_int32_t, c_loc(read_back), 48_c_size_t, NPCACHE_ORDER_F)
    print '(*(f3.1, 1x))', read_back(1, :), read_back(2, :)
    status = npcache_f_array(result, 2_c_int32_t, NPCACHE_FLOAT64, none, address)
    call c_f_pointer(address, scalar)
    print '(f4.2)', scalar
    status = npcache_buffer_writable(result, copy, error)
    status = npcache_f_array(copy, 1_c_int32_t, NPCACHE_FLOAT64, extents, address)
    call c_f_pointer(address, writable, extents)
    writable(2, 3) = -1
    status = npcache_buffer_view(copy, 1_c_int32_t, view, c_sizeof(view))
    print '(*(i0, 1x))', view%flags - NPCACHE_ORDER_F - NPCACHE_WRITABLE, view%ndim, view%dtype, view%nbytes, &
        view%itemsize
    print '(a)', npcache_f_text(view%name)//npcache_f_text(view%descr)//npcache_f_text(c_null_ptr)
    status = npcache_f_array(result, 1_c_int32_t, NPCACHE_FLOAT64, extents, address)
    call c_f_pointer(address, writable, extents)
    print '(f3.1)', writable(2, 3)
    call npcache_buffer_release(copy)
    call npcache_buffer_release(result)

    args = npcache_args_new()
    status = npcache_args_add_int(args, -3_c_int64_t)
    status = npcache_args_add_string(args, 'mesh', 4_c_size_t)
    status = npcache_args_add_scalar(args, NPCACHE_COMPLEX64, c_loc(z))
    status = npcache_f_args_add_array(args, NPCACHE_FLOAT64, shape(matrix, c_int64_t), c_loc(matrix))
    status = npcache_f_args_add_array(args, NPCACHE_INT8, shape(cube, c_int64_t), c_loc(cube))
    status = npcache_args_key(args, 'dry'//c_null_char)
    status = npcache_args_add_bool(args, 1_c_int32_t)
    status = npcache_function_key(function, args, key, error)
    call npcache_f_check(status, error)
    print '(64a1)', key(:64)
    status = npcache_begin(function, args, -1_c_int64_t, result, todo, error)
    status = npcache_f_output_write(todo, 'cube'//c_null_char, NPCACHE_INT8, shape(cube, c_int64_t), c_loc(cube))
    status = npcache_output_commit(todo)
    status = npcache_end(todo, result, error)
    call npcache_f_check(status, error)
    print '(a)', npcache_f_text(npcache_buffer_path(result))
    call npcache_buffer_release(result)
    call npcache_args_free(args)
    call npcache_function_free(function)
    call npcache_free(cache)

    status = npcache_new('traps.f90'//c_null_char, c_null_ptr, cache, error)
    call npcache_f_check(status, error)
    print '(a)', 'not reached'
end program
"""


def test_orders_types_keys_and_errors_are_the_library_s(compile_fortran, tmp_path):
    rows = np.arange(1.0, 7.0).reshape(2, 3)
    with driver.Cache(tmp_path / "cache") as cache:
        todo = cache.begin("rows", "1")
        todo.write(rows)
        todo.write(np.asfortranarray(rows), "columns")
        todo.write(np.float64(0.25), "scalar")
        todo.commit()
        todo.end()
    source = tmp_path / "traps.f90"
    source.write_text(PROGRAM)
    done = subprocess.run([compile_fortran(source)], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    *lines, call_key, path = [line.strip() for line in done.stdout.splitlines()]
    # Without a directory; what memory then keeps is the library's to decide.
    assert all(line.startswith("0 0.5 1.0 1.5 2.0 2.5 not stored") for line in lines[:2])
    # The status of the call, the callback's own code, and that there is no result.
    assert lines[2] == f"{driver.ERR_FUNCTION} -77 F"
    # C's order is refused, then found; then another type, another rank, and no such array, which leaves nothing.
    assert lines[3] == "-1 0 -8 -1 -1" and lines[4] == "0 0 F"
    assert lines[5] == "1.0 2.0 3.0 4.0 5.0 6.0"
    # The copy's own element was written to, 6.0 is the result's, and what is found from now on.
    assert lines[6:] == ["0.25", "0 2 12 48 8", "columns<f8", "6.0"]
    with driver.Cache(tmp_path / "cache") as cache:
        assert (cache.begin("rows", "1").arrays[1] == rows).all()
    matrix = np.arange(1.0, 7.0).reshape(3, 2).T
    cube = np.arange(1, 7, dtype=np.int8).reshape((2, 1, 3), order="F")
    arguments = canonical([-3, "mesh", np.complex64(1 - 2j), matrix, cube], {"dry": True})
    assert call_key == key("rows", "1", [], arguments)
    stored = np.load(path)
    assert (stored == cube).all() and stored.dtype == np.int8 and stored.flags.f_contiguous
    assert done.returncode == 1 and done.stderr.startswith("npcache: ") and "traps.f90" in done.stderr
