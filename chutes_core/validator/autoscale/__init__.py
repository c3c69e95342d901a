"""From load to the wanted number of instances."""
