"""Gateways in processes of their own, on one public port: docs/workers.md.

`crew` is the main process's side, `worker` a worker's; between them runs one `channel` each.
"""
