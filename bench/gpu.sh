#!/usr/bin/env bash
# Everything that is worth measuring on this machine, within a budget, without a person or a network:
#
#     bench/gpu.sh [OUTDIR] [--budget MINUTES] [--only PART,PART] [--plan cpu|gpu]
#
# The parts, in this order, what is worth most first (default: all):
#     environment    names, versions, revision
#     tests          pytest -m gpu
#     calibration    copy bandwidth, matmul rates, launch time
#     steps          whole steps at the sizes that the papers have, in fp32 and bf16
#     ops            each operator; what is beyond the quick set only in CUDA graphs
#     compiled       the steps' baselines under torch.compile, in CUDA graphs
#     sizes          steps at other sizes: how they scale with the batch
#     long           what is left; baselines that compile for minutes, max-autotune last
# OUTDIR (default build/gpu) then holds environment.json, tests.txt, results.json, one log for each part, and
# <part>.done for what is complete. results.json is written anew after each row: a run that is cut off, by the budget
# (default 9 minutes) or by a signal, keeps what it measured, and the same command goes on from there. --plan only says
# how many rows each part has that those before it have not, and for how many minutes they are planned.
#
# Needs: python3 with torch, triton, numpy, pytest, pytest-benchmark, pybind11, ninja; nvcc for the CUDA operators.
# Tests of the trainer also need what ganfast does (pillow, safetensors, tqdm); `pip install --target FOLDER` elsewhere and
# PYTHONPATH=FOLDER here will do; without them they are left out, and said to be.
# PYTHON chooses another python; without a GPU the same parts run on the CPU. GANFAST_GPU_SELECT narrows the rows (a
# pytest -k expression). Exit code: 0 complete, 1 something failed, 75 the budget ran out (run it again).
set -u
cd "$(dirname "$0")/.."

MEASURED="steps ops compiled sizes long"
PARTS="environment tests calibration $MEASURED"
out=build/gpu budget=9 only=$PARTS plan=
while [ $# -gt 0 ]; do
    case $1 in
        --budget) budget=${2:?--budget needs minutes}; shift 2 ;;
        --only) only=${2:?--only needs parts, of: $PARTS}; only=${only//,/ }; shift 2 ;;
        --plan) plan=${2:?--plan needs cpu or gpu}; shift 2 ;;
        -h|--help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        -*) echo "gpu.sh: no option $1: it has --budget MINUTES, --only PARTS and --plan DEVICE" >&2; exit 2 ;;
        *) out=$1; shift ;;
    esac
done
for part in $only; do
    case " $PARTS " in *" $part "*) ;; *) echo "gpu.sh: no part '$part': it has $PARTS" >&2; exit 2 ;; esac
done
python=${PYTHON:-python3}
BUDGET_ROW=0.5  # seconds of timing a row

# what each part measures, for pytest
args_of() {
    local slow="compiled or traced or max-autotune" ops
    ops=$(grep -l "^from frame import" bench/test_*.py | grep -v test_steps)
    case $1 in
        steps) args=(bench/test_steps.py -k "($select) and ($usual) and not ($slow)") ;;
        ops) args=($ops -k "($select) and ($captured or not full) and not ($slow)") ;;
        compiled) args=(bench/test_steps.py -k "($select) and ($usual) and $captured" -m "not long") ;;
        sizes) args=(bench/test_steps.py -k "($select) and not ($slow)") ;;
        long) args=($ops bench/test_steps.py -k "$select") ;;
    esac
}

on() {
    if [ "$1" = gpu ]; then
        select="cuda or graph" captured=graph usual="width64-batch128 or conv-width64-batch64 or resnet-width128-batch64"
    else
        select=cpu captured=cpu usual="width32-batch16 or width16-batch16"
    fi
    [ -z "${GANFAST_GPU_SELECT:-}" ] || select="($select) and ($GANFAST_GPU_SELECT)"
}

if [ -n "$plan" ]; then
    on "$plan"
    counted=
    for part in $MEASURED; do
        [[ " $only " == *" $part "* ]] || continue
        args_of "$part"
        rows=$("$python" -m pytest -q -p no:cacheprovider --collect-only --benchmark-only "${args[@]}" 2>/dev/null | grep ::)
        new=$(comm -23 <(sort <<<"$rows") <(sort -u <<<"$counted"))  # what an earlier part has measured is not again
        counted+=$'\n'$rows
        count=$(grep -c :: <<<"$new")
        case $part in steps) each=10 ;; ops) each=1.5 ;; sizes) each=6 ;; *) each=25 ;; esac  # seconds a row
        echo "$part: $count rows, $("$python" -c "print(f'{$count * $each / 60:.1f}')") minutes"
    done
    exit 0
fi

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

# measure PART
measure() {
    args_of "$1"
    run "$1" "$python" -m pytest -q -p no:cacheprovider --benchmark-only --benchmark-columns=median,iqr,rounds \
        --budget-row "$BUDGET_ROW" --results "$out/results.json" "${args[@]}"
}
export python out BENCH_COMMAND="bench/gpu.sh"  # what results.json says it comes from

if [ ! -e "$out/install.done" ]; then
    "$python" -m pip install -q --no-build-isolation --no-deps -e . >"$out/install.log" 2>&1 || {
        tail -n 15 "$out/install.log"; echo "gpu.sh: ganfast does not install" >&2; exit 1; }
    touch "$out/install.done"
fi

device=cpu
"$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())" && device=gpu
on "$device"

run environment bash -c '"$python" -c "
import json, sys; sys.path.insert(0, \"bench\"); import calibrate; print(json.dumps(calibrate.environment(), indent=1))
" > "$out/environment.json" && cat "$out/environment.json" && { nvidia-smi || true; } && cat ganfast/_C.txt'
run tests bash -c '"$python" bench/gpu_tests.py --passed "$out/passed.txt" | tee -a "$out/tests.txt"; exit ${PIPESTATUS[0]}'
run calibration "$python" bench/calibrate.py --results "$out/results.json"
for part in $MEASURED; do measure "$part"; done

[ $failed = 0 ] || exit 1
[ $unfinished = 0 ] || { echo "gpu.sh: the budget of $budget minutes ran out: run it again to go on"; exit 75; }
echo "gpu.sh: complete: $out/results.json"
