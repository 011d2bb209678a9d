"""Other processes: how ranks start, meet, gather, share the work and fail together.

This is the only code that may import ``torch.distributed``. Start with ``gather.py``.
"""
