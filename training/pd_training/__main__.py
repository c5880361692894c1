"""`python -m pd_training`."""

from pd_training.cli import main

if __name__ == "__main__":
    main()
