"""`python -m virtio`: the command `virtio`."""

import sys

from virtio.cli import main

sys.exit(main())
