"""`python -m pd_server`."""

from pd_server.cli import main

if __name__ == "__main__":
    main()
