"""`python -m resnetkit` is the same as `resnetkit`."""

from resnetkit.cli.app import main

if __name__ == "__main__":
    main()
