"""`python -m pd_device_client`."""

from pd_device_client.cli import main

if __name__ == "__main__":
    main()
