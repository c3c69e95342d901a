"""Runs of jobs: asked for, paid, given an instance of their own, watched, their files kept."""
