"""Registries on the workers of a cluster: `warmset.engines.dask`, `warmset.engines.ray`."""
