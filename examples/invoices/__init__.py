"""An invoice service: an API, a task queue and a batch pipeline over the same instances."""
