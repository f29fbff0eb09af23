"""
Seeing inside: metrics, health, and what ships with them.

Nothing is imported here. `warmset.observe.prometheus` and `warmset.observe.otel` need the extras of
those names, `warmset.observe.health` holds the findings of `Registry.health`, and
`warmset.observe.files` the alert rules and the dashboard.
"""
