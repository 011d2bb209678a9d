"""Other programs that read a model folder are run, and their vectors compared with ours.

A reader (:mod:`.readers`) is a program in a process of its own (:mod:`.process`). It gets the same texts, alone and in
batches (:mod:`.asking`). Where vectors differ, :mod:`.diagnosis` looks for the change of our own encoding that gives the
reader's vectors: only such a change is named as the cause.
"""
