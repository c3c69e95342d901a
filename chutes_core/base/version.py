"""The software version, sent in every handshake. setup.py carries the same (a test compares)."""

VERSION = "0.1.0"
