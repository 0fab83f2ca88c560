#!/bin/sh
# Gets a real Julia, 1.5.3 of Debian's suite bullseye, into target/julia and prints the path of a `julia` that runs.
#
#     julia=$(tests/get_julia.sh)
#
# The packages come from the mirror that this machine's apt is configured with, through apt-get, with lists, cache and
# status file of its own: nothing is installed, root is not needed, and apt's state stays as it was. Later calls print
# the path and do nothing else. What goes wrong is said in one line on standard error, with exit status 1. Takes 7 seconds on
# two cores, and 360 MB.
set -eu

SUITE=bullseye
ROOT=$(cd "$(dirname "$0")/.." && pwd)
JULIA=$ROOT/target/julia
WRAPPER=$JULIA/bin/julia

# These come from the machine and not from the old suite: the host's libnpcache.so needs the newer ones.
HOST_LIBRARIES='libc6_* libstdc++6_* libgcc-s1_* libcrypt1_*'
# What julia depends on as a package, but never opens.
UNUSED='*-doc_* fonts-* libjs-* debconf_* dpkg_* perl-base_* tar_* install-info_*'

give_up() {
    echo "get_julia.sh: $*" >&2
    exit 1
}

if [ -x "$WRAPPER" ]; then
    echo "$WRAPPER"
    exit 0
fi

for tool in apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || give_up "Julia is had from Debian's packages, and this machine has no $tool"
done

# The mirror of the machine's own suite, so not that of its security updates or of another project's packages.
own_suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v suite="$own_suite" '($2 == suite || $2 == "stable") && $3 == "main" { print $1; exit }')
[ -n "$mirror" ] || give_up "apt is configured with no mirror of Debian's suite '$own_suite'"

mkdir -p "$ROOT/target"
build=$(mktemp -d "$ROOT/target/julia-XXXXXX")
trap 'rm -rf "$build"' EXIT
mkdir -p "$build/apt/lists/partial" "$build/apt/archives/partial" "$build/tree/bin"
: >"$build/apt/status"

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] && signed="[signed-by=$keyring]" || signed=
echo "deb $signed $mirror $SUITE main" >"$build/apt/sources.list"
cat >"$build/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$build/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
Dir::State "$build/apt";
Dir::State::Lists "$build/apt/lists";
Dir::State::Status "$build/apt/status";
Dir::Cache "$build/apt";
Dir::Cache::Archives "$build/apt/archives";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Post-Invoke;
CONF

log=$build/apt/log
# The status file is empty, so that all dependencies are had, and not only those that this machine lacks.
apt-get -c "$build/apt/apt.conf" update >"$log" 2>&1 ||
    give_up "apt's mirror does not serve the suite $SUITE: $(grep -E '^(E|Err)' "$log" | head -n 1)"
apt-get -c "$build/apt/apt.conf" install --yes --download-only --no-install-recommends julia >"$log" 2>&1 ||
    give_up "the suite $SUITE has no julia that can be had: $(grep '^E' "$log" | head -n 1)"

for package in "$build"/apt/archives/*.deb; do
    name=$(basename "$package")
    for pattern in $HOST_LIBRARIES $UNUSED; do
        case $name in $pattern) continue 2 ;; esac
    done
    dpkg-deb --extract "$package" "$build/tree" || give_up "cannot unpack $name: is the disk full?"
done

# The libraries' own folders, below the folder of the wrapper, wherever it is moved to.
triplet=$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo "$(uname -m)-linux-gnu")
cat >"$build/tree/bin/julia" <<WRAPPER
#!/bin/sh
# Runs the Julia beside it with that Julia's libraries; glibc, libstdc++ and libgcc_s are the machine's.
tree=\$(cd "\$(dirname "\$0")/.." && pwd)
lib=\$tree/usr/lib/$triplet
export LD_LIBRARY_PATH="\$lib:\$lib/julia:\$lib/openblas-pthread:\$lib/blas:\$lib/lapack:\$tree/lib/$triplet\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export JULIA_DEPOT_PATH="\${JULIA_DEPOT_PATH:-\$tree/depot}"
exec "\$tree/usr/bin/julia" "\$@"
WRAPPER
chmod +x "$build/tree/bin/julia"

"$build/tree/bin/julia" --startup-file=no -e 'using Libdl, Test, LinearAlgebra; [2.0 1; 1 3] \ [1, 2]' >"$log" 2>&1 ||
    give_up "the unpacked Julia does not run: $(head -n 1 "$log")"

rm -rf "$JULIA"
mv "$build/tree" "$JULIA"
echo "$WRAPPER"
