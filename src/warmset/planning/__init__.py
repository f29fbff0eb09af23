"""Planning: what a bound costs, predicted from a recording or observed in a running registry."""
