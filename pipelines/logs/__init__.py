"""The adapters of the log port, one module each."""
