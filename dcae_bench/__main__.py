"""``python -m dcae_bench`` is ``dcae-bench``."""

from dcae_bench.cli import main

main()
