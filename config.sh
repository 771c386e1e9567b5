# The settings that the stages share. Each line shows a setting's default.
# To change a setting for one command, put it first: MODEL=bert-large-cased bash 1_run_mlm.sh P101
# To change it for all commands, remove the "# " at the start of its line and edit the value after ":-".
# A flag on the command line overrides the setting. Relative paths start from this folder, wherever you call a script.

set -a # export the settings, so that Python sees them
# MODEL=${MODEL:-bert-base-cased}            # a folder, or a model's name on the hub
# DATA=${DATA:-data}                         # the folder that holds PARAREL and BingDistantTREx
# RESULTS=${RESULTS:-results}                # the folder for results; in stages 9 to 12 each model needs its own
# FIGURES=${FIGURES:-figures}                # the folder for figures
# DEVICE=${DEVICE:-auto}                     # auto (a GPU if there is one), cpu, cuda or cuda:N
# DTYPE=${DTYPE:-float32}                    # float32, tf32 (CUDA), bfloat16, float16 or float64
# MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-128}      # the longest text, in word pieces (default in stages 4 and 5: 512)
# SEED=${SEED:-42}                           # the seed of all random draws

# Only some stages use these:
# RULE=${RULE:-riemann}                      # stage 1: riemann, literal or gauss (stage 9: fixed by each preset)
# PREFIX=${PREFIX:-TREx-all}                 # stages 1, 2, 6, 8, 14: the prefix of the names of stage 1's results
# MLAMA=${MLAMA:-${DATA:-data}/mlama1.1.zip} # stages 9 to 12: facts in several languages, as mLAMA's zip or a folder
set +a

# To use several GPUs, one process each: GPUS=8 bash 1_run_mlm.sh P101
# To use several machines that see the same folders, start the same command on each of them:
#     NODES=2 RENDEZVOUS=first-machine:29500 GPUS=8 bash 1_run_mlm.sh
GPUS=${GPUS:-1}                              # the number of processes on this machine
NODES=${NODES:-1}                            # the number of machines
RENDEZVOUS=${RENDEZVOUS:-}                   # where the machines meet: the name of one of them, and a free port
JOB=${JOB:-knowledge-neurons}                # a name for the job: the same on all its machines, different for every job

# ---- Not settings: functions that the scripts use ----

stage_flags=() # flags that a stage's script adds to the user's

# Some stages run two Python scripts. `shared_flags NAME ... -- "$@"` copies from the user's flags those named, with their
# values, to the array `shared`: these go to both scripts.
shared_flags() {
    local names=" "
    while [[ $1 != -- ]]; do names+="$1 "; shift; done
    shared=()
    while [[ $# -gt 1 ]]; do
        shift
        [[ $names == *" ${1%%=*} "* ]] && shared+=("$1")
        [[ $names == *" $1 "* && $# -gt 1 ]] && { shared+=("$2"); shift; }
    done
}

# Runs a stage that uses the model: `run_stage SCRIPT [RELATION ...] [FLAG ...]`.
run_stage() {
    local script=$1 relations=()
    shift
    while [[ $# -gt 0 && $1 != -* ]]; do relations+=("$1"); shift; done
    local launch=() setting
    for setting in GPUS NODES; do
        [[ ${!setting} =~ ^[1-9][0-9]*$ ]] || _fail "$setting=${!setting}: expected a number above 0"
    done
    if [[ $NODES -gt 1 && -z $RENDEZVOUS ]]; then
        _fail "NODES=$NODES needs RENDEZVOUS, one of the machines and a free port: RENDEZVOUS=first-machine:29500"
    fi
    if [[ " $* " =~ " "(--help|-h)" " ]]; then
        launch=()
    elif [[ $NODES -gt 1 ]]; then
        launch=(-m kn.store.launcher --nproc_per_node "$GPUS" --nnodes "$NODES" --rdzv_backend c10d
            --rdzv_endpoint "$RENDEZVOUS" --rdzv_id "$JOB")
    elif [[ $GPUS -gt 1 ]]; then
        launch=(-m kn.store.launcher --nproc_per_node "$GPUS" --standalone)
    fi
    exec .venv/bin/python "${launch[@]}" "src/$script" --pt_relation "${relations[@]}" "${stage_flags[@]}" "$@"
}

# Runs a stage of the second paper: `run_on_languages SCRIPT MODEL LANGUAGE ... [RELATION ...] [FLAG ...]`.
run_on_languages() {
    local script=$1 languages=()
    shift
    if [[ $# -gt 0 && $1 != -* ]]; then stage_flags+=(--bert_model "$1"); shift; fi
    while [[ $# -gt 0 && $1 != -* && ! $1 =~ ^P[0-9]+$ ]]; do languages+=("$1"); shift; done
    if [[ ${#languages[@]} -eq 0 && ! " $* " =~ " "(--languages|--help|-h)" " ]]; then
        _fail "no language given; name a model, then its languages: bash ${0##*/} bert-base-multilingual-cased en P19 (stage 10: en zh)"
    fi
    if [[ ${#languages[@]} -gt 0 ]]; then stage_flags+=(--languages "${languages[@]}"); fi
    run_stage "$script" "$@"
}
