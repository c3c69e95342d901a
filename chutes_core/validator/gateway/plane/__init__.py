"""The data plane: an HTTP/1.1 server and sealed upstream connections as bare protocols.

Path: socket -> http -> fast -> link -> relay; what is unusual goes http -> bridge -> front.
"""
