"""The packer, as a process."""

import sys

from megarc.corpus.streamed.packer import main

if __name__ == "__main__":
    sys.exit(main())
