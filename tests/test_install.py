"""What `make install` installs serves programs that know of nothing else: by pkg-config, by CMake, by plain flags."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, need_tool

QUICKSTART = ROOT / "examples-c" / "quickstart.c"
PAGE = (ROOT / "docs" / "install.md").read_text()
FRAGMENT = "packaging/install.mk"
COMPUTED, FOUND = "zeta(3) = 1.202056903160, computed\n", "zeta(3) = 1.202056903160, from disk\n"

# Nothing of this checkout or of another npcache is to be found by accident.
CLEAN = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C"}

CMAKE_LISTS = """
cmake_minimum_required(VERSION 3.16)
project(user C CXX)
add_executable(program quickstart.c)
@PAGE@
target_link_libraries(program PRIVATE m)
find_package(npcache REQUIRED)  # finding it twice is no error
find_package(npcache 99 QUIET)
if(npcache_FOUND)
  message(FATAL_ERROR "version 99 is not installed")
endif()
foreach(kind npcache npcache_static)
  add_executable(${kind}_user quickstart.c)
  target_link_libraries(${kind}_user PRIVATE npcache::${kind} m)
  add_executable(${kind}_user_cpp user.cpp)
  target_link_libraries(${kind}_user_cpp PRIVATE npcache::${kind})
endforeach()
"""

USER_CPP = """
#include <npcache.hpp>
#include <cstdio>
int main() { std::printf("%u %s\\n", npcache_abi_version(), npcache_status_string(NPCACHE_OK)); }
"""


def make(goal, **variables):
    """Runs `make goal` with the given variables, with packaging/install.mk alone: it is to build nothing."""
    settings = [f"{name}={value}" for name, value in variables.items()]
    subprocess.run(["make", "--silent", "-f", FRAGMENT, goal, *settings], cwd=ROOT, check=True, env=CLEAN)


def run(*command, cwd=None, **environment):
    command = [str(each) for each in command]
    done = subprocess.run(command, cwd=cwd, env=CLEAN | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(ROOT) not in done.stdout
    return done.stdout


def files_below(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """An empty prefix with npcache in it."""
    prefix = tmp_path_factory.mktemp("install") / "prefix"
    make("install", PREFIX=prefix)
    return prefix


@pytest.fixture
def source(tmp_path):
    """A directory with the quickstart's source, to compile and run in."""
    shutil.copy(QUICKSTART, tmp_path)
    return tmp_path


def works(program, directory, library=None):
    """The program computes and then finds, with the shared library in `library`, or without one."""
    loads = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    linked = re.search(r"libnpcache\.so\.1 => (\S+)", loads)
    assert (linked and Path(linked[1]).resolve().parent) == (library and library.resolve())
    assert run(program, cwd=directory) == COMPUTED
    assert run(program, cwd=directory) == FOUND
    shutil.rmtree(directory / "quickstart-cache")


def pkg_config(prefix, *options):
    # PKG_CONFIG_LIBDIR takes the place of the directories that are searched by default.
    return run("pkg-config", *options, "npcache", PKG_CONFIG_LIBDIR=str(prefix / "lib" / "pkgconfig")).split()


def test_the_files_are_in_place_and_the_links_lead_to_the_library(prefix):
    expected = [
        "include/npcache.f90",
        "include/npcache.h",
        "include/npcache.hpp",
        "lib/cmake/npcache/npcacheConfig.cmake",
    ]
    expected += ["lib/cmake/npcache/npcacheConfigVersion.cmake", "lib/libnpcache.a", "lib/libnpcache.so"]
    expected += ["lib/libnpcache.so.0.1.0", "lib/libnpcache.so.1", "lib/pkgconfig/npcache.pc"]
    installed = files_below(prefix)
    assert [name for name in installed if not name.startswith(("bin/", "share/"))] == expected
    assert os.readlink(prefix / "lib/libnpcache.so") == "libnpcache.so.1"
    assert os.readlink(prefix / "lib/libnpcache.so.1") == "libnpcache.so.0.1.0"
    for name in expected:
        assert (prefix / name).stat().st_mode & 0o7777 == 0o644, name
        if not name.startswith("lib/libnpcache"):
            assert not re.search(r"@\w+@", (prefix / name).read_text()), name


def test_the_libraries_have_their_soname_and_no_debug_information(prefix):
    shared = prefix / "lib/libnpcache.so.0.1.0"
    dynamic, sections = run("readelf", "-d", shared), run("readelf", "-S", "-W", shared)
    assert "[libnpcache.so.1]" in dynamic and "NODELETE" in dynamic
    assert ".debug_" not in sections and ".note.gnu.build-id" in sections
    assert ".debug_" not in run("readelf", "-S", "-W", prefix / "lib/libnpcache.a")
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", shared).splitlines()}
    assert exported and all(name.startswith("npcache_") for name in exported)


def test_the_command_stands_alone_with_its_manual_and_completions(prefix, tmp_path):
    moved = shutil.copy(prefix / "bin/npcache", tmp_path)
    assert run(moved, "--version") == "npcache 0.1.0\n"
    assert "libnpcache" not in run("ldd", moved) and ".debug_info" not in run("readelf", "-S", "-W", moved)
    commands = re.findall(r"^  ([a-z]+) ", run(moved, "--help").partition("Options:")[0], re.MULTILINE)
    pages = {f"npcache-{command}.1" for command in commands if command != "help"} | {"npcache.1"}
    assert {path.name for path in (prefix / "share/man/man1").iterdir()} == pages and len(pages) > 10
    completions = ["bash-completion/completions/npcache", "zsh/site-functions/_npcache"]
    for file in [*completions, "fish/vendor_completions.d/npcache.fish"]:
        assert "verify" in (prefix / "share" / file).read_text()
        assert (prefix / "share" / file).stat().st_mode & 0o7777 == 0o644


def test_plain_flags(prefix, source):
    library = prefix / "lib"
    flags = [f"-I{prefix}/include", f"-L{library}", f"-Wl,-rpath,{library}", "-lnpcache", "-lm"]
    run("cc", "quickstart.c", *flags, cwd=source)
    works(source / "a.out", source, library)


def test_pkg_config_shared(prefix, source):
    library = prefix / "lib"
    flags = pkg_config(prefix, "--cflags", "--libs")
    assert pkg_config(prefix, "--modversion") == ["0.1.0"]
    run("cc", "quickstart.c", *flags, f"-Wl,-rpath,{library}", "-lm", cwd=source)
    works(source / "a.out", source, library)


def test_pkg_config_static(prefix, source):
    """The library alone is static, by its file's name, or the whole program is."""
    flags = pkg_config(prefix, "--static", "--cflags", "--libs")
    library_alone = [flag.replace("-lnpcache", "-l:libnpcache.a") for flag in flags]
    for each in library_alone, [*flags, "-static"]:
        run("cc", "quickstart.c", *each, "-lm", cwd=source)
        works(source / "a.out", source)
    assert "(NEEDED)" not in run("readelf", "-d", "a.out", cwd=source)


def test_pkg_config_in_fortran(prefix, source):
    gfortran = need_tool("gfortran", "gfortran")
    shutil.copy(ROOT / "examples-c" / "quickstart.f90", source)
    (module,), flags = pkg_config(prefix, "--variable=fortran_module"), pkg_config(prefix, "--libs")
    run(gfortran, module, "quickstart.f90", *flags, f"-Wl,-rpath,{prefix / 'lib'}", cwd=source)
    assert run(source / "a.out", cwd=source).endswith("computed\n")
    assert run(source / "a.out", cwd=source).endswith("from disk\n")


def test_cmake_finds_the_package_also_where_it_was_moved(prefix, source, tmp_path_factory):
    cmake = need_tool("cmake", "cmake")
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    shutil.copytree(prefix, moved, symlinks=True)
    (page,) = re.findall(r"^```cmake\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (source / "CMakeLists.txt").write_text(CMAKE_LISTS.replace("@PAGE@", page))
    (source / "user.cpp").write_text(USER_CPP)
    build = source / "build"
    run(cmake, "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={moved}", "-DCMAKE_BUILD_TYPE=Release")
    run(cmake, "--build", build)
    works(build / "program", source, moved / "lib")
    for kind, library in ("npcache", moved / "lib"), ("npcache_static", None):
        works(build / f"{kind}_user", source, library)
        assert run(build / f"{kind}_user_cpp").startswith("1 ")
    static = (build / "CMakeFiles" / "npcache_static_user.dir" / "link.txt").read_text()
    assert f" {moved}/lib/libnpcache.a " in static and str(prefix) not in static


def test_the_commands_of_the_page_work(prefix, source):
    """Each line of the page that compiles, with the prefix in place of PREFIX, in a shell."""
    need_tool("gfortran", "gfortran")
    (source / "program.c").write_text(QUICKSTART.read_text())
    shutil.copy(ROOT / "examples-c" / "quickstart.f90", source / "program.f90")
    commands = re.findall(r"^(?:cc|gfortran) .*$", PAGE, re.MULTILINE)
    assert len(commands) == 4
    environment = {"PKG_CONFIG_PATH": f"{prefix}/lib/pkgconfig", "LD_LIBRARY_PATH": f"{prefix}/lib"}
    for command in commands:
        command = command.split("  #")[0].replace("PREFIX", str(prefix))
        run("sh", "-c", f"{command} -lm", cwd=source, **environment)
        assert "computed" in run(source / "a.out", cwd=source, **environment)
        shutil.rmtree(source / "quickstart-cache")


def test_the_page_names_what_is_installed_and_what_it_needs(prefix):
    for path in files_below(prefix):
        name = path.rpartition("/")[2]
        assert name in PAGE or "lib/cmake/npcache/" in path or re.match("share/man/man1/npcache-[a-z]+.1$", path), path
    private = re.search(r"^Libs.private: (.*)$", (prefix / "lib/pkgconfig/npcache.pc").read_text(), re.MULTILINE)
    assert f"`{private[1]}`" in PAGE


def test_a_staged_installation_says_where_it_will_be(tmp_path, source):
    stage = tmp_path / "stage"
    directories = {"LIBDIR": "/usr/lib/x86_64-linux-gnu", "INCLUDEDIR": "/usr/include/npcache-1"}
    make("install", PREFIX="/usr", DESTDIR=stage, **directories)
    assert {name.split("/")[0] for name in files_below(stage)} == {"usr"}
    library, include = stage / "usr/lib/x86_64-linux-gnu", stage / "usr/include/npcache-1"
    assert (include / "npcache.h").exists()
    text = (library / "pkgconfig" / "npcache.pc").read_text()
    assert "prefix=/usr\nlibdir=${prefix}/lib/x86_64-linux-gnu\nincludedir=${prefix}/include/npcache-1\n" in text
    assert not [
        path for path in stage.rglob("*") if path.suffix in {".pc", ".cmake"} and str(stage) in path.read_text()
    ]
    # pkg-config leaves the directories that every compiler searches out.
    found = run("pkg-config", "--cflags", "--libs", "npcache", PKG_CONFIG_LIBDIR=str(library / "pkgconfig")).split()
    assert found == ["-I/usr/include/npcache-1", "-lnpcache", "-Wl,--build-id"]
    # What is staged serves, too: the CMake package goes by its own place.
    assert (library / "cmake/npcache" / "../../../../include/npcache-1").resolve() == include
    assert (
        '"${_npcache_here}/../../../../include/npcache-1"'
        in (library / "cmake/npcache/npcacheConfig.cmake").read_text()
    )

    make("uninstall", PREFIX="/usr", DESTDIR=stage, **directories)
    assert files_below(stage) == [] and not (library / "cmake/npcache").exists()


def test_installing_again_leaves_what_others_put_there(tmp_path):
    prefix = tmp_path / "prefix"
    other = prefix / "lib/cmake/npcache/other.cmake"
    other.parent.mkdir(parents=True)
    other.write_text("someone's")
    make("install", PREFIX=prefix)
    mapped = (prefix / "lib/libnpcache.so.0.1.0").stat().st_ino
    make("install", PREFIX=prefix)
    # A program that has the old file mapped keeps it.
    assert (prefix / "lib/libnpcache.so.0.1.0").stat().st_ino != mapped
    make("uninstall", PREFIX=prefix)
    assert files_below(prefix) == ["lib/cmake/npcache/other.cmake"]
