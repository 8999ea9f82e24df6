#!/usr/bin/env bash
# Everything that is worth measuring on this machine, within a budget, without a person or a network:
#
#     bench/gpu.sh [OUTDIR] [--budget MINUTES] [--only PART,PART]
#
# The parts, in this order (default: all): environment, tests, calibration, ops, steps, long (max-autotune baselines).
# OUTDIR (default build/gpu) then holds environment.json, tests.txt, results.json, one log for each part, and
# <part>.done for what is complete. results.json is written anew after each row: a run that is cut off, by the budget
# (default 9 minutes) or by a signal, keeps what it measured, and the same command goes on from there.
#
# Needs: python3 with torch, triton, numpy, pytest, pytest-benchmark, pybind11, ninja; nvcc for the CUDA operators.
# PYTHON chooses another python; without a GPU the same parts run on the CPU. GANFAST_GPU_SELECT narrows the rows (a
# pytest -k expression). Exit code: 0 complete, 1 something failed, 75 the budget ran out (run it again).
set -u
cd "$(dirname "$0")/.."

PARTS="environment tests calibration ops steps long"
out=build/gpu budget=9 only=$PARTS
while [ $# -gt 0 ]; do
    case $1 in
        --budget) budget=${2:?--budget needs minutes}; shift 2 ;;
        --only) only=${2:?--only needs parts, of: $PARTS}; only=${only//,/ }; shift 2 ;;
        -h|--help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        -*) echo "gpu.sh: no option $1: it has --budget MINUTES and --only PARTS" >&2; exit 2 ;;
        *) out=$1; shift ;;
    esac
done
for part in $only; do
    case " $PARTS " in *" $part "*) ;; *) echo "gpu.sh: no part '$part': it has $PARTS" >&2; exit 2 ;; esac
done
python=${PYTHON:-python3}
end=$(( $(date +%s) + $("$python" -c "print(round(60 * float('$budget')))") )) || exit 2
mkdir -p "$out" && out=$(cd "$out" && pwd)
failed=0 unfinished=0

child=
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; wait; exit 143' TERM INT HUP  # timeout ends all below it

left() { echo $(( end - $(date +%s) )); }

# run PART COMMAND…: its log in OUTDIR; ended when the budget is
run() {
    local part=$1 start code; shift
    [[ " $only " == *" $part "* ]] || return 0
    if [ -e "$out/$part.done" ]; then echo "gpu.sh: $part: done before"; return 0; fi
    if [ "$(left)" -le 0 ]; then echo "gpu.sh: $part: no time left"; unfinished=1; return 0; fi
    start=$(date +%s)
    timeout --kill-after=20 "$(left)" "$@" >>"$out/$part.log" 2>&1 &
    child=$!
    wait $child
    code=$?
    echo "gpu.sh: $part: exit $code after $(( $(date +%s) - start )) s"
    case $code in
        0|5) touch "$out/$part.done" ;;  # 5: pytest has nothing to run that is not there already
        124|137) unfinished=1 ;;
        *) failed=1; tail -n 15 "$out/$part.log" ;;
    esac
}

bench() { "$python" -m pytest -q -p no:cacheprovider --benchmark-only --benchmark-columns=median,iqr,rounds \
    --results "$out/results.json" "$@"; }
export -f bench; export python out

if [ ! -e "$out/install.done" ]; then
    "$python" -m pip install -q --no-build-isolation --no-deps -e . >"$out/install.log" 2>&1 || {
        tail -n 15 "$out/install.log"; echo "gpu.sh: ganfast does not install" >&2; exit 1; }
    touch "$out/install.done"
fi

select=cpu
"$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" && select="cuda or graph"
[ -z "${GANFAST_GPU_SELECT:-}" ] || select="($select) and ($GANFAST_GPU_SELECT)"
export select

run environment bash -c '"$python" -c "
import json, sys; sys.path.insert(0, \"bench\"); import calibrate; print(json.dumps(calibrate.environment(), indent=1))
" > "$out/environment.json" && cat "$out/environment.json" && { nvidia-smi || true; } && cat ganfast/_C.txt'
run tests bash -c '"$python" bench/gpu_tests.py | tee "$out/tests.txt"; exit ${PIPESTATUS[0]}'
run calibration "$python" bench/calibrate.py --results "$out/results.json"
run ops bash -c 'bench $(grep -l "^from frame import" bench/test_*.py | grep -v test_steps) -k "$select"'
run steps bash -c 'bench bench/test_steps.py -k "$select" -m "not long"'
run long bash -c 'bench bench/test_steps.py -k "$select" -m long'

[ $failed = 0 ] || exit 1
[ $unfinished = 0 ] || { echo "gpu.sh: the budget of $budget minutes ran out: run it again to go on"; exit 75; }
echo "gpu.sh: complete: $out/results.json"
