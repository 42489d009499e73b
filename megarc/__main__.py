"""``python -m megarc`` is the command ``megarc``."""

from megarc.command import main

if __name__ == "__main__":
    main()
