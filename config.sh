# The settings that the stages share. Each can be set for one command: MODEL=bert-large-cased bash 1_run_mlm.sh P101
# Paths that are not absolute are taken from this folder, whatever folder a script is called from.

MODEL=${MODEL:-bert-base-cased}          # a model's name on the hub, or a folder
DATA=${DATA:-data}                       # the folder with PARAREL and BingDistantTREx
MLAMA=${MLAMA:-$DATA/mlama1.1.zip}       # facts in several languages (stages 9 to 12): mLAMA's zip, or a folder
RESULTS=${RESULTS:-results}              # where results go; of stages 9 to 12 another folder for each model
FIGURES=${FIGURES:-figures}              # where figures go
PREFIX=${PREFIX:-TREx-all}               # how the names of stage 1's results begin
DEVICE=${DEVICE:-auto}                   # auto (a GPU if there is one), cpu, cuda or cuda:N
DTYPE=${DTYPE:-float32}                  # float32, tf32 (CUDA), bfloat16, float16 or float64
RULE=${RULE:-riemann}                    # how attributions are integrated: riemann, literal or gauss
MAX_SEQ_LENGTH=${MAX_SEQ_LENGTH:-128}    # longest prompt in word pieces
SEED=${SEED:-42}                         # where chance decides

# Several processes, a GPU each: GPUS=8 bash 1_run_mlm.sh P101. On several machines that see the same folders, start the
# same command on each: NODES=2 RENDEZVOUS=first-machine:29500 GPUS=8 bash 1_run_mlm.sh
GPUS=${GPUS:-1}                          # processes on this machine
NODES=${NODES:-1}                        # machines
RENDEZVOUS=${RENDEZVOUS:-}               # where they meet: a machine of theirs, and a free port
JOB=${JOB:-knowledge-neurons}            # the same for all machines of a job, another for another job

data=(--data_path "$DATA/PARAREL/data_all.json")

# How a stage that asks the model is run: `run_stage SCRIPT [relation …] [flag …]`, with its own flags in the array `own`.
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
    if [[ $NODES -gt 1 ]]; then
        launch=(-m kn.workers --nproc_per_node "$GPUS" --nnodes "$NODES" --rdzv_backend c10d
            --rdzv_endpoint "$RENDEZVOUS" --rdzv_id "$JOB")
    elif [[ $GPUS -gt 1 ]]; then
        launch=(-m kn.workers --nproc_per_node "$GPUS" --standalone)
    fi
    exec .venv/bin/python "${launch[@]}" "src/$script" \
        --bert_model "$MODEL" "${data[@]}" --output_dir "$RESULTS" \
        --device "$DEVICE" --dtype "$DTYPE" --max_seq_length "$MAX_SEQ_LENGTH" --seed "$SEED" \
        --pt_relation "${relations[@]}" "${own[@]}" "$@"
}

# How a stage of the second paper is run: `run_on_languages SCRIPT MODEL LANGUAGE … [relation …] [flag …]`.
run_on_languages() {
    local script=$1 languages=()
    shift
    if [[ $# -gt 0 && $1 != -* ]]; then MODEL=$1; shift; fi
    while [[ $# -gt 0 && $1 != -* && ! $1 =~ ^P[0-9]+$ ]]; do languages+=("$1"); shift; done
    if [[ ${#languages[@]} -eq 0 && ! " $* " =~ " "(--languages|--help|-h)" " ]]; then
        _fail "no language given: a model comes first, then languages, as in: bash ${0##*/} bert-base-multilingual-cased en P19 (stage 10: en zh)"
    fi
    data=(--mlama "$MLAMA")
    own+=(--fig_dir "$FIGURES")
    if [[ ${#languages[@]} -gt 0 ]]; then own+=(--languages "${languages[@]}"); fi
    run_stage "$script" "$@"
}
