#!/usr/bin/env bash
# All that needs a GPU, in one go: its tests, the benchmarks, and the paper's networks trained, analysed and compared.
# What is there already is not done again, so that it can be started again after it was stopped.
#   bash scripts/on_gpu.sh OUT --data DATA [further options of resnet-lesion reproduce]
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")/.." && pwd)
failed=0

if ! grep -qs ' passed' "$out/tests.txt"; then
    # one process, as there is one GPU
    (cd "$here" && python -m pytest -q -o addopts=--import-mode=importlib -m gpu) >"$out/tests.txt" 2>&1 || failed=1
fi
if (($#)); then
    # networks of this size keep a GPU waiting for the next launch, so that several share it
    resnet-lesion reproduce --amp --channels-last --parallel 5 --batch-size 256 --epochs 100 --out "$out/reproduction" \
        "$@" >"$out/reproduction.txt" 2>&1 || failed=1
fi
python "$here/benchmarks/run.py" --device cuda --out "$out/benchmarks" >"$out/benchmarks.txt" 2>&1 || failed=1
tail -n 3 "$out"/*.txt
exit "$failed"
