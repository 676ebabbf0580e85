"""Reads what integration/differential_test.go sends, one "<kind> <hex of the bytes>" a line, and writes a line with what Python makes of it."""
import json
import struct
import sys
from urllib.parse import parse_qs


def hexed(text):
    return text.encode("utf-8").hex()


def grouped(text):
    """Parameters as name=value,value;..., the values in their order."""
    parsed = parse_qs(text, keep_blank_values=True, errors="strict")
    return ";".join(sorted(f"{hexed(name)}={','.join(map(hexed, values))}" for name, values in parsed.items()))


def double(number):
    try:
        number = float(number)
    except OverflowError:
        number = float("inf") if number > 0 else float("-inf")
    return struct.pack(">d", number + 0.0 if number else 0.0).hex()


def canonical(value):
    """A value so that equal values of different languages look the same."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{hexed(value)}"'
    if isinstance(value, (int, float)):
        return double(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return "{" + ",".join(sorted(f"{hexed(name)}:{canonical(inner)}" for name, inner in value.items())) + "}"


READERS = {"query": grouped, "json": lambda text: canonical(json.loads(text))}

if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
for line in sys.stdin:
    kind, _, data = line.strip().partition(" ")
    try:
        print(READERS[kind](bytes.fromhex(data).decode("utf-8")))
    except Exception as error:  # whatever it is, it is no reading
        print("error", type(error).__name__)
