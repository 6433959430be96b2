#!/usr/bin/env bash
# Fuzzes the tokenizer and the readers of its files under AddressSanitizer and UBSan.
#
#   scripts/fuzz.sh [seconds]       (600)
#
# Needs clang with libFuzzer (Debian: clang libclang-rt-dev). Inputs that reach new code are kept in
# build/fuzz/corpus for the next run; one that fails is written to build/fuzz and named.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-600}
build=build/fuzz
mkdir -p "$build/corpus"

sources=(csrc/byte_source.cpp csrc/errors.cpp csrc/utf8.cpp csrc/legacy/vocabulary.cpp tests/fuzz/tokenizer.cpp)
for name in chars cuts decode json json_file merges pieces pipelines read_json read_legacy specials tokenizer \
    unit_cache units vocabulary; do
    sources+=("csrc/tokenizer/$name.cpp")
done
${CXX:-clang++} -std=c++17 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=all -Icsrc -Ithird_party/llama.cpp/ggml/include \
    "${sources[@]}" -o "$build/tokenizer"

KOLLAMA_FUZZ_SEEDS=$build/corpus "$build/tokenizer"
exec "$build/tokenizer" "$build/corpus" -max_total_time="$seconds" -max_len=4096 -timeout=20 \
    -rss_limit_mb=4096 -artifact_prefix="$build/" -print_final_stats=1
