"""The bridge to mteb (extra ``mteb``): our models as mteb sees them, our data as its tasks, its results as ours."""
