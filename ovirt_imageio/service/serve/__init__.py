"""`ovirt-imageio serve`: share images with one command.

command        from the arguments to a running server, and back
images         what is served: an image, those of a folder, or files as they are
demo           a small disk to try things with
reach          by which names and addresses clients get here
certificate    the certificate of this user
greeting       what people and scripts are told
progress       what is moved, on the terminal
"""
