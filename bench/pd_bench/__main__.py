"""`python -m pd_bench`."""

from pd_bench.cli import main

if __name__ == "__main__":
    main()
