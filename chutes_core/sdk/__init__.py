"""What a chute file imports: Image, Chute, cords, NodeSelector."""
