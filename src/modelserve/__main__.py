"""`python -m modelserve`: the command line."""

from modelserve.cli import main

if __name__ == "__main__":
    main()
