"""``python -m bitline``."""

import sys

from bitline.cli import main

sys.exit(main())
