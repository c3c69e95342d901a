"""Entrances: read settings, build, run, stop on SIGTERM."""
