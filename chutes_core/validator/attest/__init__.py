"""The proof path: challenges, timed sessions, verdicts."""
