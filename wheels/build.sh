#!/usr/bin/env bash
# Builds wheels and the source distribution into wheels/dist, and checks what is in them.
#
#     wheels/build.sh [--quick] [x86_64] [aarch64] [sdist]        all three without a name
#     wheels/build.sh blas rpc vulkan cuda                        plugins, for this machine
#
# --quick: for AVX2 alone, not every CPU variant; with a build number 0quick, as it is for tests only.
# On Debian 12 or newer: apt-get install git g++ python3-venv, for aarch64 also g++-aarch64-linux-gnu
# clang-19, for vulkan glslc libvulkan-dev spirv-headers, and for cuda nvcc 13 in the path. CMake and
# Ninja come from the package index where they are not installed.
set -euo pipefail
cd "$(dirname "$0")/.."

variants=(-C cmake.define.KOLLAMA_ALL_VARIANTS=ON)
if [ "${1:-}" = --quick ]; then
    variants=(-C cmake.define.KOLLAMA_NATIVE=OFF -C wheel.build-tag=0quick)
    shift
fi
targets=("$@")
[ $# -gt 0 ] || targets=(x86_64 aarch64 sdist)
work=$PWD/build/wheels
dist=$PWD/wheels/dist
mkdir -p "$work" "$dist"

tools=$work/tools
[ -x "$tools/bin/pip" ] || "${PYTHON:-python3}" -m venv "$tools"
export PATH="$tools/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1
pip install --quiet --requirement wheels/requirements.txt
python cmake/fetch_llama_cpp.py

# build_wheel ARCHITECTURE COMPILER [PIP_OPTION ...]: a wheel tagged manylinux, in dist
build_wheel() {
    local architecture=$1 compiler=$2
    local old=$work/old-$architecture raw=$work/raw-$architecture
    shift 2
    rm -rf "$raw" "$dist"/kollama-*_"$architecture".whl
    # Ninja does not know that libraries of an earlier build were linked with other stubs.
    find "$work" -name "libkollama*.so" -path "*linux_$architecture*" -delete
    python wheels/old_glibc.py "$old" --compiler "$compiler"
    # The platform is said, as it may be another one than this Python's.
    LDFLAGS="-L$old -Wl,--exclude-libs,ALL" _PYTHON_HOST_PLATFORM="linux-$architecture" \
        pip wheel --quiet --no-deps --wheel-dir "$raw" -C build-dir="build/wheels/cmake-{wheel_tag}" \
        "${variants[@]}" "$@" .
    auditwheel repair --only-plat --wheel-dir "$dist" "$raw"/*.whl
    python wheels/content.py "$dist"/kollama-*_"$architecture".whl
}

# build_plugin NAME: what it finds beside it at run time, kollama's ggml too, stays out of its wheel
build_plugin() {
    local architecture raw=$work/raw-$1
    architecture=$(uname -m)
    rm -rf "$raw" "$dist"/kollama_"$1"-*.whl
    python wheels/old_glibc.py "$work/old-$architecture" >/dev/null
    LDFLAGS="-L$work/old-$architecture -Wl,--exclude-libs,ALL" pip wheel --quiet --no-deps \
        --wheel-dir "$raw" -C build-dir="$work/cmake-$1" "wheels/kollama-$1"
    auditwheel repair --only-plat --wheel-dir "$dist" --exclude 'libkollama-*' \
        --exclude 'libscipy_openblas*' --exclude 'libvulkan.so.*' --exclude 'libcu*.so.*' "$raw"/*.whl
    python wheels/content.py "$dist"/kollama_"$1"-*.whl
}

for target in "${targets[@]}"; do
    echo "== $target"
    start=$SECONDS
    case $target in
        x86_64) build_wheel x86_64 "${CC:-gcc}" ;;
        aarch64) build_wheel aarch64 aarch64-linux-gnu-gcc \
            -C cmake.args="-DCMAKE_TOOLCHAIN_FILE=$PWD/wheels/aarch64.cmake" ;;
        sdist)
            rm -f "$dist"/kollama-*.tar.gz
            python -m build --sdist --outdir "$dist" . >"$work/sdist.log" 2>&1 || { cat "$work/sdist.log"; exit 1; }
            python wheels/content.py "$dist"/kollama-*.tar.gz ;;
        blas | rpc | vulkan | cuda) build_plugin "$target" ;;
        *) echo "$target: not one of x86_64, aarch64, sdist, blas, rpc, vulkan, cuda" >&2; exit 2 ;;
    esac
    echo "$target: $((SECONDS - start)) s"
done
ls -l "$dist"
