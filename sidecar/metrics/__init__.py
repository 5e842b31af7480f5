"""The metrics derived from requests: from single durations to the bytes of a scrape.

Upwards: a `sketch` (one label set's durations) → `series` (sketches by label set, capped) → `durations` (what the pump
observes into) → `families` (what a scrape shows) → `exposition` (the bytes, in the form `negotiation` chose). The
metrics the sidecar keeps about itself are `sidecar.telemetry`'s.
"""
