"""``python -m graftune``, which is also how torchrun and accelerate launch start it."""

from graftune.cli import main

if __name__ == "__main__":
    main()
