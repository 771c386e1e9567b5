#!/usr/bin/env bash
# Stage 3: suppress and amplify neurons. `bash 3_run_modify_activation.sh P101`: this relation; none: all. Flags: --help.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
source ./config.sh

own=(--kn_dir "$RESULTS/kn")
run_stage 3_modify_activation.py "$@"
