"""`ovirt-imageio serve`: share one image with one command.

command        from the arguments to a running server, and back
certificate    the certificate of this user
progress       what is moved, on the terminal
"""
