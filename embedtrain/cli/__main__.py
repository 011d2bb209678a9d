"""``python -m embedtrain.cli``, as launchers of several machines may have it in their scripts."""

from embedtrain.cli.main import main

main()
