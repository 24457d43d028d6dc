"""``python -m dcae_bench`` is ``dcae-bench``."""

from dcae_bench.cli.main import main

main()
