"""``qhyvit`` and ``python -m qhyvit``: the command line, or a line where only the device stage is installed."""

import resource
import sys

from qhyvit import memory
from qhyvit.errors import QhyvitError

# bytes that a process may map (ulimit -v); with less, libraries end the process while they are loaded, or wait for ever
LEAST_ADDRESS_SPACE = 3 * 10**9


def main() -> None:
    """Entry point; exit codes as :func:`qhyvit.cli.main` has them."""
    memory.share_one_heap()
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if resource.RLIM_INFINITY != limit < LEAST_ADDRESS_SPACE:
        print(f"qhyvit: error: cannot start: ulimit -v leaves {limit / 1e9:.2g} GB of address space, libraries of the "
              f"host stage map {LEAST_ADDRESS_SPACE / 1e9:.0f} GB; raise it", file=sys.stderr)  # fmt: skip
        sys.exit(2)
    try:
        from qhyvit.cli import main as run
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            print(f"qhyvit: error: cannot start: {error}", file=sys.stderr)
            sys.exit(2)
        print("qhyvit: error: the host stage is not installed; pip install 'qhyvit[pipeline]'. "
              "The device stage is qhyvit-device.", file=sys.stderr)  # fmt: skip
        sys.exit(2)
    except QhyvitError as error:  # what others have installed is looked for while modules are imported
        print(f"qhyvit: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (ImportError, MemoryError, OSError) as error:  # a library that cannot be mapped
        print(f"qhyvit: error: cannot start: {' '.join(str(error).split()) or 'out of memory'}", file=sys.stderr)
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
