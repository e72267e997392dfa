"""`python -m trimtab.cli`: the same as `trimtab`, wherever the script is not on the path."""

from trimtab.cli.main import main

if __name__ == "__main__":
    main()
