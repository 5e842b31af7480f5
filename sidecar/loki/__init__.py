"""What Loki's push API asks for: times, streams, bytes and the meaning of its answers. Pure; `sinks.loki` sends."""
