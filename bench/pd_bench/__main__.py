"""`python -m pd_bench`."""

from pd_bench.cli import main

main()
