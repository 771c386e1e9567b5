"""What every stage does around its work."""
import sys
from kn.files import InputError


def guard(main):
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
