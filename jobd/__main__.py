"""`python -m jobd`: the same as the command `jobd`."""

from jobd.cli import main

if __name__ == "__main__":
    main()
