"""``python -m embedtrain``: the command line, where no script is on the path."""

from embedtrain.cli.main import main

if __name__ == "__main__":
    main()
