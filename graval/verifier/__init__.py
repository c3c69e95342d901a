"""The verifier: builds challenges and checks answers on a CPU; never imports torch."""
