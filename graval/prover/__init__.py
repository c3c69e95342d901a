"""The prover: fills GPU memory and answers challenges; runs as a child process."""
