"""An observability sidecar and log normalizer for Go services written with Gin."""

__version__ = "0.1.0"
