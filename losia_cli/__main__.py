"""`python -m losia_cli` is `losia`."""

from losia_cli.cli import main

if __name__ == "__main__":
    main()
