#!/bin/sh
# Fails a build if the GIL has become the bottleneck of a program. For any CI that runs a shell.
#
#   usage: examples/ci/gate.sh CMD ARGS…        for example: examples/ci/gate.sh python3 benchmark.py
#
# Limits: gilprof.toml, or $GILPROF_LIMITS. Results: gate.xml (JUnit), gate.sarif and gate.md in
# gilprof-results/, or $GILPROF_RESULTS. The exit code is gilprof's: 0 pass, 1 a limit is broken,
# 2 usage or files, 3 inconclusive, 4 not measured, 5 the program itself failed (its own code is in
# the results), 130 interrupted.
# Inconclusive is not a pass. GILPROF_INCONCLUSIVE=0 lets it pass with a warning.
set -eu

if [ $# -eq 0 ]; then
  echo "usage: examples/ci/gate.sh CMD ARGS..." >&2
  exit 2
fi
results=${GILPROF_RESULTS:-gilprof-results}
mkdir -p "$results"

status=0
"${GILPROF:-gilprof}" gate \
  --limits "${GILPROF_LIMITS:-gilprof.toml}" \
  --format human \
  --format "junit=$results/gate.xml" \
  --format "sarif=$results/gate.sarif" \
  --format "markdown=$results/gate.md" \
  -- "$@" || status=$?

if [ "$status" -eq 3 ]; then
  echo "gate.sh: inconclusive, for the reason above; docs/gate.md says what helps" >&2
  exit "${GILPROF_INCONCLUSIVE:-3}"
fi
exit "$status"
