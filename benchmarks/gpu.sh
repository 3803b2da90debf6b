#!/usr/bin/env bash
# All that only a machine with an NVIDIA GPU can show, in under 8 minutes.
#
# Usage: benchmarks/gpu.sh [folder]   in an environment with the project's packages; leaves the
# report of the default study, run on the GPU with each run alone, and the results of the tests there.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
  echo "There is no CUDA device here, so nothing is measured. On one this would run the tests that"
  echo "need a GPU (leases, energy against nvidia-smi, the ledger against CUDA events, kills, equal"
  echo "bytes) and the default study, and print how its trainings used the GPU."
  exit 0
fi

out=$(realpath -m "${1:-gpu-results}")
mkdir -p "$out"
nvidia-smi --query-gpu=name,uuid,driver_version --format=csv | tee "$out/device.csv"

echo "== tests that need a GPU"
timeout 200 python -m pytest -q -m gpu tests/devices/test_gpu.py | tee "$out/tests.txt"

echo "== the default study"
cp -r Snakefile config.yaml environment.yml workflow profiles src "$out"
cd "$out"
timeout 240 snakemake --cores all --config device=gpu 'execution={"timing": "exclusive"}'
python - << 'SUMMARY'
import pandas

table = pandas.read_csv("reports/digits/summary.csv")
columns = ["experiment", "accuracy_mean", "training_seconds_mean", "joules_mean",
           "mfu_mean", "peak_device_memory_bytes", "contended"]
print(table[columns].to_string(index=False))
SUMMARY
