#!/usr/bin/env bash
# Everything that is worth half an hour of a GPU, in calls of nine minutes, without a person or a network:
#
#     GANFAST_REVISION=$(git rev-parse --short=12 HEAD) bench/gpu.sh [OUTDIR]          again and again, until it is complete
#
# The parts, in this order, what is worth most first:
#     install        the package and its extension, for this chip alone
#     environment    names, versions, revision
#     tests          pytest -m "gpu and not slow", twelve files at once
#     calibration    copy bandwidth, matmul rates, launch time
#     steps-bf16     whole steps in CUDA graphs at the sizes that papers have, beside torch as well as it does it
#     steps-fp32     the same in fp32
#     ops            each operator in CUDA graphs
#     host           the host's time of operators and steps
#     profile        traces of single steps, captured and eager, and tables by kernel
#     eager          whole steps called from Python
#     training       the trainer's steps: DCGAN, CycleGAN, pix2pix
#     tune           other constants for the kernels; the winners are in tune.json
#     sizes          steps at other sizes: how they scale with the batch
#     compiled       steps under torch.compile, in CUDA graphs
#     sanitize       the kernels on awkward sizes under compute-sanitizer
#     long           what is left, max-autotune last; only where --only names it
#
# OUTDIR (default build/gpu) gets two files, written anew after each part: results-CARD.json, for bench/results/, and
# gpu-CARD.tar.gz with logs, traces, tables, tuning.json and tune.json. What a later call goes on from lies in --work.
#
#     --budget MINUTES   of this call (default 9): what runs then is cut off, rows that are measured stay
#     --only PART,PART   these parts; what failed in them before is tried again
#     --work DIR         logs, results, caches (default build/gpu-work)
#     --from TAR         on another machine: go on from what the tar holds
#     --plan cpu|gpu     only say what would be measured, in which call; needs no GPU
#
# Needs python3 (PYTHON chooses another) with torch, triton, numpy, pytest, pytest-benchmark, pybind11, ninja; nvcc for
# the CUDA operators; pillow, safetensors and tqdm for the trainer's tests and rows. Without .git the revision is taken
# from GANFAST_REVISION. Without a GPU the same parts run on the CPU. GANFAST_GPU_SELECT narrows the rows (a pytest -k
# expression). Exit code: 0 complete, 1 something failed, 75 the budget ran out: run it again.
set -u
cd "$(dirname "$0")/.."

PARTS="install environment tests calibration steps-bf16 steps-fp32 ops host profile eager training tune compiled"
PARTS="$PARTS sanitize sizes long"
out=build/gpu work=build/gpu-work budget=9 only=${PARTS% sizes long} again= from= plan=
while [ $# -gt 0 ]; do
    case $1 in
        --budget) budget=${2:?--budget needs minutes}; shift 2 ;;
        --only) only=${2:?--only needs parts, of: $PARTS}; only="install ${only//,/ }" again=1; shift 2 ;;
        --work) work=${2:?--work needs a folder}; shift 2 ;;
        --from) from=${2:?--from needs a tar}; shift 2 ;;
        --plan) plan=${2:?--plan needs cpu or gpu}; shift 2 ;;
        -h|--help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
        -*) echo "gpu.sh: no option $1: --help lists them" >&2; exit 2 ;;
        *) out=$1; shift ;;
    esac
done
for part in $only; do
    case " $PARTS " in *" $part "*) ;; *) echo "gpu.sh: no part '$part': it has $PARTS" >&2; exit 2 ;; esac
done
python=${PYTHON:-python3}
[ -z "$plan" ] || exec "$python" bench/parts.py "$plan" --budget "$budget" --only $only

end=$(( $(date +%s) + $("$python" -c "print(round(60 * float('$budget')))") )) || exit 2
mkdir -p "$out" "$work" && out=$(cd "$out" && pwd) && work=$(cd "$work" && pwd) || exit 2
if [ -n "$from" ] && [ ! -e "$work/revision" ]; then tar xzf "$from" -C "$work" || exit 2; fi
revision=$("$python" bench/store.py) || exit 2
if [ "$revision" = unknown ]; then
    echo "gpu.sh: no .git here: say what is measured, GANFAST_REVISION=\$(git rev-parse --short=12 HEAD)" >&2; exit 2
fi
if [ -e "$work/revision" ] && [ "$(cat "$work/revision")" != "$revision" ]; then
    echo "gpu.sh: $work holds what revision $(cat "$work/revision") did, this is $revision: give another --work" >&2; exit 2
fi
echo "$revision" >"$work/revision"
card=$("$python" -c "
import torch
if torch.cuda.is_available():
    major, minor = torch.cuda.get_device_capability()
    print(f'{major}{minor}' + 'a' * (major > 8), torch.cuda.get_device_name())
else:
    print('none cpu')") || exit 2
chip=${card%% *} card=${card#* }  # 90a, NVIDIA H100 80GB HBM3
card=$(tr -cs 'A-Za-z0-9\n' - <<<"${card#NVIDIA }" | tr '[:upper:]' '[:lower:]')
device=gpu; [ "$card" != cpu ] || device=cpu

export python work device chip BENCH_COMMAND="bench/gpu.sh"  # what results.json says it comes from
export GANFAST_CACHE=$work/cache TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$work/triton}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$work/inductor} PYTHONUNBUFFERED=1
failed=0 unfinished=0 child=
left() { echo $(( end - $(date +%s) )); }

# What comes back, as it is now. Compiled kernels stay where they are.
pack() {
    local less
    [ ! -e "$work/results.json" ] || cp "$work/results.json" "$out/results-$card.json"
    for less in none profile; do  # traces are what may be large
        tar czf "$out/partial" -C "$work" --exclude=./triton --exclude=./inductor --exclude=./install.done \
            --exclude=./$less .
        [ "$(stat -c %s "$out/partial")" -ge 16000000 ] || break
    done
    mv "$out/partial" "$out/gpu-$card.tar.gz"
}
trap '[ -z "$child" ] || kill "$child" 2>/dev/null; wait; pack; exit 143' TERM INT HUP  # timeout ends all below it

# attempt PART COMMAND…: its exit code; its log in DIR; ended when the budget is
attempt() {
    local part=$1 rest; shift
    rest=$(left); [ "$rest" -gt 0 ] || return 124
    timeout --kill-after=20 "$rest" "$@" >>"$work/$part.log" 2>&1 &
    child=$!
    wait $child
    local code=$?
    child=
    return $code
}

# run PART COMMAND…: once; what was done before is not done again, nor what failed unless --only names it
run() {
    local part=$1 start code; shift
    [[ " $only " == *" $part "* ]] || return 0
    if [ -e "$work/$part.done" ]; then echo "gpu.sh: $part: done before"; return 0; fi
    if [ -e "$work/$part.failed" ] && [ -z "$again" ]; then
        echo "gpu.sh: $part: failed before; --only $part tries it again"; failed=1; return 0
    fi
    if [ "$(left)" -le 0 ]; then echo "gpu.sh: $part: no time left"; unfinished=1; return 0; fi
    start=$(date +%s)
    while attempt "$part" "$@"; code=$?; [ $code = 70 ]; do  # a row lost the device: the others in another process
        touch "$work/$part.lost"
        set -- "${@/#--retry/-q}"
    done
    case $code in 0|5) [ ! -e "$work/$part.lost" ] || code=1 ;; esac  # 5: pytest has nothing left to run
    rm -f "$work/$part.lost"
    echo "gpu.sh: $part: exit $code after $(( $(date +%s) - start )) s"
    case $code in
        0|5) touch "$work/$part.done"; rm -f "$work/$part.failed" ;;
        124|137) unfinished=1 ;;
        *) failed=1; touch "$work/$part.failed"; tail -n 25 "$work/$part.log" ;;
    esac
    pack
}

# measure PART: its rows of bench/
measure() {
    local select=() retry=()
    [ -z "${GANFAST_GPU_SELECT:-}" ] || select=(-k "$GANFAST_GPU_SELECT")
    [ -z "$again" ] || retry=(--retry)
    run "$1" "$python" -m pytest bench -q -p no:cacheprovider --benchmark-only --benchmark-columns=median,iqr,rounds \
        --budget-row 0.5 --results "$work/results.json" --part "$1" --device $device "${select[@]}" "${retry[@]}"
}

# Without an installer that takes this package, python finds it where it lies.
install() {
    [ "$chip" = none ] || export GANFAST_CUDA_ARCHS=${GANFAST_CUDA_ARCHS:-$chip}
    "$python" -m pip install -q --no-build-isolation --no-deps -e . && return 0
    echo "gpu.sh: it does not install: built in place, PYTHONPATH names it"
    ln -sfn ../kernels ganfast/kernels
    local plain=$work/plain  # an older setuptools does not read pyproject.toml
    rm -rf "$plain" && mkdir -p "$plain" && cp setup.py "$plain" && ln -s "$PWD/csrc" "$PWD/ganfast" "$PWD/kernels" "$plain"
    (cd "$plain" && "$python" setup.py -q build_ext --inplace) || return 1
    rm -rf "$plain"
    touch "$work/in-place"
}
export -f install

run install bash -c install
[ ! -e "$work/install.failed" ] || { echo "gpu.sh: ganfast does not install" >&2; exit 1; }
[ ! -e "$work/in-place" ] || export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
run environment bash -c '"$python" -c "
import json, sys; sys.path.insert(0, \"bench\"); import calibrate; print(json.dumps(calibrate.environment(), indent=1))
" | tee "$work/environment.json" && cat ganfast/_C.txt && { nvidia-smi || true; }'
run tests "$python" bench/gpu_tests.py --log "$work/tests.txt" ${again:+--again}
run calibration "$python" bench/calibrate.py --results "$work/results.json"
measure steps-bf16
measure steps-fp32
measure ops
measure host
run profile "$python" bench/profile_steps.py "$work/profile"
measure eager
measure training
if [ $device = gpu ]; then
    run tune "$python" bench/tune.py --minutes 1.5 --results "$work/tune.json"
fi
measure sizes
measure compiled
GANFAST_TESTS_LONGEST=300 run sanitize "$python" bench/gpu_tests.py --log "$work/sanitize.txt" ${again:+--again} -m gpu tests/kernels/test_memory.py
measure long
pack

echo "gpu.sh: $out/results-$card.json, $out/gpu-$card.tar.gz"
[ $failed = 0 ] || exit 1
[ $unfinished = 0 ] || { echo "gpu.sh: the budget of $budget minutes ran out: run it again to go on"; exit 75; }
echo "gpu.sh: complete"
