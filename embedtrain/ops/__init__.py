"""Operations with a plain reference, a chunked and a fused form that agree.

Tensors in, tensors out: only torch may be imported, and only this folder calls the Triton kernels. Start with
``similarity.py`` and ``infonce/``.
"""
