"""How the sidecar gets into a pod: a pure function, and two places that ask it (admission webhook, offline YAML)."""
