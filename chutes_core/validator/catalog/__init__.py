"""Images, chutes and their versions: what developers have published."""
