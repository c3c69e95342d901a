"""What crosses a process border: signing, sealing, frames and message models."""
