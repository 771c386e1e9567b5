"""`python -m kn`: the command line."""

from kn.commands import main

if __name__ == "__main__":
    main()
