"""Operations with a plain reference, a chunked and a fused form that agree."""
