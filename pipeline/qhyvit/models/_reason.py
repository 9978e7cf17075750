"""The one line of an error of torch or of a converter that says most."""

from __future__ import annotations

import re

CALL = "The following call raised this error:"  # torch.export; general advice stands behind
TRACE = "Original traceback:"  # the converter; calls from the outermost to the one that failed


def first_line(error: BaseException) -> str:
    """What an error says, cut after its first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def reason(error: BaseException) -> str:
    """The first line, and where in the model's code it arose, if torch tells."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if CALL in lines:
        where = lines[lines.index(CALL) + 1 :][:2]
    elif TRACE in lines:
        calls = lines[lines.index(TRACE) + 1 :]
        places = [i for i, line in enumerate(calls) if re.match(r'File "[^<]', line)]
        where = calls[places[-1] :][:2] if places else []
    else:
        return lines[0] if lines else type(error).__name__
    return f"{lines[0].rstrip('.')}. At {': '.join(where)}"
