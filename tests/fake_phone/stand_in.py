"""A stand-in for `benchmark_model` on a fake phone: real flags, real output, but latencies that are arithmetic.

The median of a model is its `cksum` modulo 9,000 plus 1,000 microseconds, whoever asks and however often, so that two
tables of the same layers must be equal. Under ROOT/state, `slow` makes everything slower by so many percent,
`throttle` so many models by a core that is slow, `sleep` makes each model take so many seconds, `partial` leaves an
operator to the built-in kernels, and `asked` logs models. The program says nothing of ROOT: two phones have the same.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_SCRIPT = r"""#!/bin/sh
# Stand-in for benchmark_model: see tests/fake_phone/stand_in.py.
case $0 in /*) here=$0;; *) here=$PWD/$0;; esac
until [ -e "$here/state/help.txt" ]; do here=${here%/*}; [ -n "$here" ] || exit 9; done
graph=
for a in "$@"; do case $a in
--help) cat $here/state/help.txt; exit 1;;
--graph=*) graph=${a#--graph=};;
esac; done
[ -r "$graph" ] || { echo "ERROR: Could not open '$graph'." >&2; echo "ERROR: Benchmarking failed." >&2; exit 1; }
echo "${graph##*/}" >> $here/state/asked
set -- $(cksum < "$graph")
slow=0; read -r slow < $here/state/slow
if [ -e $here/state/throttle ]; then  # so many models at half the frequency, and slow
    left=0; read -r left < $here/state/throttle
    for f in $here/sys/devices/system/cpu/cpu*/cpufreq; do
        read -r khz < $f/cpuinfo_max_freq
        [ "$left" -gt 0 ] && khz=$((khz / 2))
        echo $khz > $f/scaling_cur_freq
    done
    if [ "$left" -gt 0 ]; then slow=40; echo $((left - 1)) > $here/state/throttle; else rm $here/state/throttle; fi
fi
us=$(( ($1 % 9000 + 1000) * (100 + slow) / 100 ))
[ -e $here/state/sleep ] && sleep $(cat $here/state/sleep)
echo "INFO: STARTING!"
echo "INFO: Graph: [$graph]"
echo "INFO: Loaded model $graph"
nodes=1; [ -e $here/state/partial ] && nodes=2
echo "VERBOSE: Replacing 1 out of $nodes node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions for subgraph 0." >&2
echo "INFO: Initialized session in 5.101ms."
echo "INFO: Running benchmark for at least 1 iterations and at least 0 seconds but terminate if exceeding 150 seconds."
echo "INFO: count=1 curr=$((us + 7)) p5=$((us + 7)) median=$((us + 7)) p95=$((us + 7))"
echo
echo "INFO: Running benchmark for at least 2 iterations and at least 0 seconds but terminate if exceeding 150 seconds."
echo "INFO: count=3 first=$((us + 1)) curr=$us min=$((us - 1)) max=$((us + 1)) avg=$us std=0 p5=$((us - 1)) median=$us p95=$((us + 1))"
echo
echo "INFO: Inference timings in us: Init: 5101, First inference: $((us + 7)), Warmup (avg): $((us + 7)), Inference (avg): $us"
"""  # noqa: E501


def stand_in_us(model: bytes) -> int:
    """What the stand-in says of a model, from an independent reckoning of POSIX `cksum`."""
    said = subprocess.run(["cksum"], input=model, capture_output=True, check=True).stdout
    return int(said.split()[0]) % 9000 + 1000


def install_stand_in(root: Path, help_text: str) -> Path:
    """Put it where people put benchmark_model by hand, and say so by its `--help`."""
    state = root / "state"
    state.mkdir(parents=True, exist_ok=True)
    (state / "help.txt").write_text(help_text)
    (state / "slow").write_text("0\n")
    (state / "asked").touch()
    path = root / "data/local/tmp/benchmark_model"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SCRIPT)
    path.chmod(0o755)
    return path
