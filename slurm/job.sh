# What the batch scripts share: what they do when Slurm wants the machine back. They source this file.

export TQDM_MININTERVAL=${TQDM_MININTERVAL:-30} # in seconds: a progress bar in a log needs fewer updates
task=$SLURM_JOB_ID                              # in an array's last task, this ID means the whole array
[[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

_runs() { [[ $(squeue --noheader --jobs "$task" --format %T) == RUNNING ]]; } # false once the job is cancelled, requeued or preempted
_end_stage() { kill -TERM "$!"; }

# Runs a command and exits with its status. If a SIGTERM stops the command before it is done, the job goes back to the
# queue and resumes later. A command that fails by itself would fail again, so its job does not, nor does a cancelled job.
run_or_requeue() {
    local stopped='' status
    trap 'trap "" TERM; stopped=yes; _end_stage' TERM
    "$@" &
    wait $!
    status=$?
    if [[ $stopped ]]; then
        wait $! # the signal ended the first wait, but not the command
        status=$?
        if [[ $status -ne 0 ]] && _runs; then
            echo "job $task goes back to the queue" >&2
            scontrol requeue "$task"
        fi
    fi
    exit "$status"
}
