"""Many builds as jobs on dask.distributed: each in a process of its own, its result one file, made once."""
