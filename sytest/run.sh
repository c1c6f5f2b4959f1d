#!/bin/sh
# Runs SyTest against Matron and compares with the committed results:
#
#   SYTEST_DIR=<SyTest's source> sytest/run.sh [options of run-tests.pl, or test files]
#
# MATRON_BINARY (default: the release build), WORK_DIR (default: a new folder below /tmp), PORTS and TIMEOUT_FACTOR
# can be set too. A whole run ends with the comparison: status 0 when nothing that passed before fails now.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
: "${SYTEST_DIR:?the folder of the SyTest source}"
MATRON_BINARY=${MATRON_BINARY:-$here/../target/release/matron}
MATRON_BINARY=$(cd "$(dirname "$MATRON_BINARY")" && pwd)/$(basename "$MATRON_BINARY")
WORK_DIR=${WORK_DIR:-$(mktemp -d /tmp/matron-sytest.XXXXXX)}
mkdir -p "$WORK_DIR"
WORK_DIR=$(cd "$WORK_DIR" && pwd)

export MATRON_BINARY
export PERL5LIB="$here/perl-shims" SYTEST_PLUGINS="$here/plugins"
# JSON::PP would send a string that was logged as a number: "2" as 2.
export PERL_JSON_PP_USE_B=1
export TIMEOUT_FACTOR="${TIMEOUT_FACTOR:-2}"

status=0
(
    cd "$SYTEST_DIR"
    perl run-tests.pl -I Matron --bind-host 127.0.0.1 -p "${PORTS:-18800:18899}" \
        --work-directory "$WORK_DIR" -O tap --all "$@"
) > "$WORK_DIR/results.tap" 2> "$WORK_DIR/run.log" || status=$?

echo "results: $WORK_DIR/results.tap (SyTest's status: $status)"
python3 "$here/results.py" compare "$WORK_DIR/results.tap"
