#!/usr/bin/env bash
# Everything that needs a GPU, in one go: its tests, the benchmarks, and the paper's networks, trained, analysed and
# compared. What is already done is not done again, so that it can be restarted after it was stopped.
#   bash scripts/on_gpu.sh OUT --data DATA [further options of resnet-lesion reproduce]
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONUNBUFFERED=1 # so that the files have everything printed before it was stopped
failed=0

# Whether the tests ran to their end, some passed and none failed.
passed() { tail -n 1 "$out/tests.txt" 2>/dev/null | grep ' passed' | grep -Evq ' (failed|errors?)\b'; }
if ! passed; then
    # one process, as there is one GPU; one file, as others import packages that a bare machine lacks
    (cd "$here" && python -m pytest -v -o addopts=--import-mode=importlib -m gpu tests/test_gpu.py) >"$out/tests.txt" 2>&1
    passed || failed=1
fi
(cd "$here" && python -m benchmarks run --resume --device cuda --out "$out/benchmarks") >"$out/benchmarks.txt" 2>&1 ||
    failed=1
if (($#)); then
    # networks of this size keep a GPU waiting for the next launch, so several share it
    resnet-lesion reproduce --amp --channels-last --parallel 5 --batch-size 256 --epochs 100 --out "$out/reproduction" \
        "$@" >"$out/reproduction.txt" 2>&1 || failed=1
fi
tail -n 3 "$out"/*.txt
exit "$failed"
