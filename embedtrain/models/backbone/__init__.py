"""What any kind of model needs of transformers: loading, files of weights, attention without padding, LoRA.

Nothing here knows what a vector is used for. Start with ``loading.py``.
"""
