"""`python -m virtio`: the command `virtio`."""

import sys

from virtio.cli import main

if __name__ == "__main__":
    sys.exit(main())
