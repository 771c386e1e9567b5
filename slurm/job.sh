# What the batch scripts share: where they run, and what they do when Slurm wants the machine back. Sourced by them.

export TQDM_MININTERVAL=${TQDM_MININTERVAL:-30} # seconds: a log is not a terminal
task=$SLURM_JOB_ID                              # the last task of an array has the array's number: it alone would mean all
[[ -n ${SLURM_ARRAY_JOB_ID:-} ]] && task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID

_runs() { [[ $(squeue --noheader --jobs "$task" --format %T) == RUNNING ]]; } # is not cancelled, requeued or preempted
_end_stage() { kill -TERM "$!"; }

# Run a command, and end with its exit status. Told to stop before it is done, put the job back in the queue: it goes on
# from there. Not so an error that came by itself, as it would come again, and not a job that was cancelled.
run_or_requeue() {
    local stopped='' status
    trap 'trap "" TERM; stopped=yes; _end_stage' TERM
    "$@" &
    wait $!
    status=$?
    if [[ $stopped ]]; then
        wait $! # the signal had ended the waiting, not the command
        status=$?
        if [[ $status -ne 0 ]] && _runs; then
            echo "job $task goes back in the queue" >&2
            scontrol requeue "$task"
        fi
    fi
    exit "$status"
}
