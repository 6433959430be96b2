#!/usr/bin/env bash
# Builds kollama's own code with sanitizers and runs the fast tests on it; with "thread" llama.cpp, too, and
# runs tests/stress.py, 24 threads on one model and on one context.
#
#   scripts/sanitize.sh [address,undefined] [pytest arguments]
#   scripts/sanitize.sh thread [seconds, 240]
#
# Needs gcc, and the `test` extra with scikit-build-core and cython in the active environment.
set -euo pipefail
cd "$(dirname "$0")/.."

kinds=${1:-address,undefined}
shift || true
build=$PWD/build/sanitize-${kinds//,/-}

python -m pip install --quiet --no-build-isolation --no-deps --upgrade --target "$build/site" \
    -C build-dir="$build/cmake" -C cmake.define.KOLLAMA_SANITIZE="$kinds" -C install.strip=false .

case $kinds in
    *thread*) runtime=libtsan.so ;;
    *) runtime=libasan.so ;;
esac
# The runtime comes first, and libstdc++ with it: it must see the exceptions that csrc throws.
export LD_PRELOAD="$(gcc -print-file-name=$runtime) $(gcc -print-file-name=libstdc++.so)"
# Leaks are looked for in the process that runs the tests, and reported to a file; leaks.py tells ours from Python's
# own. The processes that it starts end as they like, some with models open, some under a limit of memory.
reports=$build/reports
rm -rf "$reports" && mkdir -p "$reports"
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:log_path=$reports/report
export LSAN_OPTIONS=exitcode=0:max_leaks=0:report_objects=0
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
export PYTHONPATH="$build/site" PYTHONMALLOC=malloc
if [[ $kinds == *thread* ]]; then
    exec python -X faulthandler tests/stress.py "${@:-240}"
fi
python -c 'import os, sys, pytest
os.environ["ASAN_OPTIONS"] = "detect_leaks=0:abort_on_error=1"
sys.exit(pytest.main(sys.argv[1:]))' "${@:-tests}" &
tests=$!
status=0
wait $tests || status=$?
LD_PRELOAD= python scripts/leaks.py "$reports/report.$tests" || status=$?
exit $status
