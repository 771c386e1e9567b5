#!/usr/bin/env bash
# Starts a real Slurm with two nodes on this machine, and runs the batch scripts on it with the sample's data: jobs are
# interrupted, preempted and given nonsense. Takes minutes.
# Usage, as root: apt-get install slurmd slurmctld slurm-client munge && bash slurm/try_on_one_machine.sh
# All files are in a temporary folder, where the logs say more than the output. The daemons end with the script.
[ -n "$BASH_VERSION" ] || exec bash "$0" "$@" # if started with sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../setup.sh"
set -e
try=$(mktemp -d) && chmod 755 "$try" && echo "in $try"

export SLURM_CONF=$try/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=try
SlurmUser=root
SlurmctldHost=$(hostname -s)
SlurmctldPort=26817
AuthInfo=socket=$try/munge
StateSaveLocation=$try/state
SlurmdSpoolDir=$try/spool-%n
SlurmctldPidFile=$try/slurmctld.pid
SlurmdPidFile=$try/%n.pid
SlurmctldLogFile=$try/slurmctld.log
SlurmdLogFile=$try/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SchedulerParameters=sched_interval=5,bf_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=try1 NodeHostname=$(hostname -s) Port=26818 CPUs=2 RealMemory=2000 Gres=gpu:2
NodeName=try2 NodeHostname=$(hostname -s) Port=26819 CPUs=2 RealMemory=2000 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=2
CONF
echo "NodeName=try[1-2] Name=gpu File=/dev/tty[0-1]" >"$try/gres.conf" # any two devices; nothing opens them
mkdir "$try/state"
(umask 077 && head -c 128 /dev/urandom >"$try/key")
trap 'for pid in "$try"/*.pid; do kill "$(<"$pid")"; done' EXIT
munged --socket="$try/munge" --key-file="$try/key" --pid-file="$try/munge.pid" --log-file="$try/munge.log" --seed-file="$try/seed"
slurmctld && sleep 2 && slurmd -N try1 && slurmd -N try2

export MODEL=data/sample/model DATA=data/sample OMP_NUM_THREADS=1 SBATCH_OUTPUT=$try/%j.out
small=(--cpus-per-task=1 --mem=500M --parsable)
wait_until_begun() { until compgen -G "$RESULTS/*$1*.parts/0*.jsonl" >/dev/null; do sleep 0.1; done; } # until the first unit is written
wait_until_ended() {
    while [[ $(squeue --noheader --jobs "$1" 2>/dev/null) ]]; do
        sleep 1
        for requeued in $(squeue --noheader --jobs "$1" --states PENDING --format %i); do
            scontrol update JobId="$requeued" StartTime=now # else Slurm lets it wait for two minutes
        done
    done
}
restarts() { scontrol show job "$1" | grep -o "Restarts=[0-9]*"; }
same() { for file in "$try/plain/"*.jsonl; do cmp "$file" "$RESULTS/${file##*/}"; done; echo "same bytes as a plain run: $1"; }

RESULTS=$try/plain bash 1_run_mlm.sh P19 P20 P27 --debug 20 2>"$try/plain.err"

export RESULTS=$try/array
job=$(sbatch "${small[@]}" --array=0-2,14 --output="$try/%A_%a.out" slurm/relations.sbatch 1_run_mlm.sh --debug 20)
wait_until_begun P20 && scancel --batch --signal=TERM "${job}_1"
wait_until_begun P27 && scontrol requeue "${job}_2"
wait_until_ended "$job" && same "array, one task stopped ($(restarts "${job}_1")), one requeued ($(restarts "${job}_2"))"
echo "no such task: $(restarts "${job}_14"), $(cat "$try/${job}_14.out")"

export RESULTS=$try/gpus RENDEZVOUS=localhost:29555 # no resolver knows the nodes' names
job=$(sbatch "${small[@]}" --nodes=2 --gres=gpu:2 slurm/gpus.sbatch 1_run_mlm.sh P19 P20 P27 --debug 20)
wait_until_begun P19 && scancel --batch --signal=TERM "$job"
wait_until_ended "$job" && same "two nodes with two processes each, stopped ($(restarts "$job"))"

export RESULTS=$try/preempted
job=$(sbatch "${small[@]}" --gres=gpu:2 slurm/gpus.sbatch 1_run_mlm.sh P19 P20 P27 --debug 20)
wait_until_begun P19 && sbatch "${small[@]}" --partition=high --nodes=2 --gres=gpu:2 --wrap "sleep 5" >/dev/null
wait_until_ended "$job" && same "preempted ($(restarts "$job"))"

job=$(sbatch "${small[@]}" --gres=gpu:2 slurm/gpus.sbatch 1_run_mlm.sh P9999)
wait_until_ended "$job" && echo "bad relation: $(restarts "$job"), $(cat "$try/$job.out")"
