"""What a description cannot say, for tools/schemathesis/check."""

import re

import schemathesis


@schemathesis.hook
def map_case(context, case):
    """If-Match and If-None-Match exclude each other: of two that are well formed, one stays."""
    headers = case.headers or {}
    match, none_match = headers.get("If-Match"), headers.get("If-None-Match")
    if none_match == "*" and isinstance(match, str) and re.fullmatch(r'\*|"[0-9]{1,19}"', match):
        del headers["If-Match" if match == "*" else "If-None-Match"]
    return case
