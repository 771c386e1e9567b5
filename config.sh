# The settings that the stages share. Set one for a command, as in MODEL=bert-large-cased bash 1_run_mlm.sh P101, or for
# all commands: take away the # before its line and change what stands behind :-. Flags win over settings.
# Paths that are not absolute are taken from this folder, whatever folder a script is called from.

set -a # Python reads them from the environment
# MODEL=${MODEL:-bert-base-cased}            # a model's name on the hub, or a folder
# DATA=${DATA:-data}                         # the folder with PARAREL and BingDistantTREx
# RESULTS=${RESULTS:-results}                # where results go; for stages 9 to 12 a folder of its own for each model
# FIGURES=${FIGURES:-figures}                # where figures go
# DEVICE=${DEVICE:-auto}                     # auto (a GPU if there is one), cpu, cuda or cuda:N
# DTYPE=${DTYPE:-float32}                    # float32, tf32 (CUDA), bfloat16, float16 or float64
# MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-128}      # longest text in word pieces; where it is not set, stages 4 and 5 take 512
# SEED=${SEED:-42}                           # where chance decides

# Of some stages only:
# RULE=${RULE:-riemann}                      # stage 1: riemann, literal or gauss (in stage 9 each preset has its own)
# PREFIX=${PREFIX:-TREx-all}                 # stages 1, 2 and 8: how the names of stage 1's results begin
# MLAMA=${MLAMA:-${DATA:-data}/mlama1.1.zip} # stages 9 to 12: facts in several languages: mLAMA's zip, or a folder
set +a

# Several processes, a GPU each: GPUS=8 bash 1_run_mlm.sh P101. On several machines that see the same folders, start the
# same command on each: NODES=2 RENDEZVOUS=first-machine:29500 GPUS=8 bash 1_run_mlm.sh
GPUS=${GPUS:-1}                              # processes on this machine
NODES=${NODES:-1}                            # machines
RENDEZVOUS=${RENDEZVOUS:-}                   # where they meet: a machine of theirs, and a free port
JOB=${JOB:-knowledge-neurons}                # the same for all machines of a job, another for another job

own=() # a stage's own flags, set by its script

# Which of the flags given to a script are for its other part, too: `shared_flags NAME … -- "$@"` leaves them in `shared`.
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

# How a stage that asks the model is run: `run_stage SCRIPT [relation …] [flag …]`.
run_stage() {
    local script=$1 relations=()
    shift
    while [[ $# -gt 0 && $1 != -* ]]; do relations+=("$1"); shift; done
    local launch=() setting
    for setting in GPUS NODES; do
        [[ ${!setting} =~ ^[1-9][0-9]*$ ]] || _fail "$setting=${!setting}: expected a number above 0"
    done
    if [[ $NODES -gt 1 && -z $RENDEZVOUS ]]; then
        _fail "NODES=$NODES, but RENDEZVOUS names no place where they meet: RENDEZVOUS=first-machine:29500"
    fi
    if [[ " $* " =~ " "(--help|-h)" " ]]; then
        launch=()
    elif [[ $NODES -gt 1 ]]; then
        launch=(-m kn.store.launcher --nproc_per_node "$GPUS" --nnodes "$NODES" --rdzv_backend c10d
            --rdzv_endpoint "$RENDEZVOUS" --rdzv_id "$JOB")
    elif [[ $GPUS -gt 1 ]]; then
        launch=(-m kn.store.launcher --nproc_per_node "$GPUS" --standalone)
    fi
    exec .venv/bin/python "${launch[@]}" "src/$script" --pt_relation "${relations[@]}" "${own[@]}" "$@"
}

# How a stage of the second paper is run: `run_on_languages SCRIPT MODEL LANGUAGE … [relation …] [flag …]`.
run_on_languages() {
    local script=$1 languages=()
    shift
    if [[ $# -gt 0 && $1 != -* ]]; then own+=(--bert_model "$1"); shift; fi
    while [[ $# -gt 0 && $1 != -* && ! $1 =~ ^P[0-9]+$ ]]; do languages+=("$1"); shift; done
    if [[ ${#languages[@]} -eq 0 && ! " $* " =~ " "(--languages|--help|-h)" " ]]; then
        _fail "no language given: a model comes first, then languages, as in: bash ${0##*/} bert-base-multilingual-cased en P19 (stage 10: en zh)"
    fi
    if [[ ${#languages[@]} -gt 0 ]]; then own+=(--languages "${languages[@]}"); fi
    run_stage "$script" "$@"
}
