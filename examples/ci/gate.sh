#!/bin/sh
# Fails a build when the GIL has become the bottleneck of a program: for any CI that runs a shell.
#
#   usage: examples/ci/gate.sh CMD ARGS…        for example: examples/ci/gate.sh python3 benchmark.py
#
# Limits are in gilprof.toml (or $GILPROF_LIMITS). Results are left in gilprof-results/ (or $GILPROF_RESULTS): gate.xml for JUnit, gate.sarif,
# gate.md. Ends with gilprof's own code: 0 pass, 1 a limit is broken, 2 usage, 3 inconclusive, 4 could not be measured; a program that
# failed by itself is said to have failed. Inconclusive is no pass: to let it through all the same, set GILPROF_INCONCLUSIVE=0.
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
  echo "gate.sh: not judged: measure for longer, or --runs 3; see docs/gate.md" >&2
  exit "${GILPROF_INCONCLUSIVE:-3}"
fi
exit "$status"
