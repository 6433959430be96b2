#!/usr/bin/env bash
# Fuzzes what reads files, under AddressSanitizer and UBSan.
#
#   scripts/fuzz.sh [tokenizer|gguf|legacy] [seconds]       (tokenizer, 600)
#
# Needs clang with libFuzzer (Debian: clang libclang-rt-dev), and for gguf and legacy an installed
# kollama, for ggml. Inputs that reach new code are kept in build/fuzz for the next run; one that
# fails is written there and named.
set -euo pipefail
cd "$(dirname "$0")/.."

target=tokenizer
case ${1:-} in
    tokenizer | gguf | legacy) target=$1; shift ;;
esac
seconds=${1:-600}
build=build/fuzz
corpus=$build/corpus-$target
mkdir -p "$corpus"

max_len=8192
libraries=()
sources=(csrc/byte_source.cpp csrc/errors.cpp "tests/fuzz/$target.cpp")
if [ "$target" = tokenizer ]; then
    max_len=4096
    sources+=(csrc/utf8.cpp csrc/legacy/vocabulary.cpp)
    for name in chars cuts decode json json_file known_pieces llama_kinds merges pieces pipelines read_json read_legacy specials tokenizer \
        unit_cache units utf16 vocabulary; do
        sources+=("csrc/tokenizer/$name.cpp")
    done
else
    sources+=(csrc/gguf_scan.cpp)
    [ "$target" = gguf ] && sources+=(csrc/gguf_check.cpp)
    if [ "$target" = legacy ]; then
        max_len=32768
        sources+=(csrc/utf8.cpp csrc/tokenizer/chars.cpp csrc/tokenizer/vocabulary.cpp)
        for name in gguf_view header repack scan vocabulary; do
            sources+=("csrc/legacy/$name.cpp")
        done
    fi
    folder=$(cd / && python -c 'import kollama, pathlib; print(pathlib.Path(kollama.__file__).parent / "lib")')
    libraries=("$folder/libkollama-ggml-base.so" "-Wl,-rpath,$folder")
fi
${CXX:-clang++} -std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=all -Icsrc -Ithird_party/llama.cpp/ggml/include -Ithird_party/llama.cpp/include \
    "${sources[@]}" "${libraries[@]}" -o "$build/$target"

KOLLAMA_FUZZ_SEEDS=$corpus "$build/$target"
exec "$build/$target" "$corpus" -max_total_time="$seconds" -max_len="$max_len" -timeout=20 \
    -rss_limit_mb=4096 -artifact_prefix="$build/" -print_final_stats=1
