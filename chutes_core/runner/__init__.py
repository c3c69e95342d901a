"""What runs beside the chute's code: passive, serves cords over sealed connections."""
