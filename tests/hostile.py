"""Pickles that no reader may obey: calls, states and sizes of their own choice, by hand, in every protocol."""

import functools
import pickle
import struct

POINTERS = b"A" * 32  # what an array of four objects would take for addresses


def value(content, protocol):
    """The opcodes that put a value on the stack."""
    found = pickle.dumps(content, min(protocol, 3))  # protocol 3: no frames
    return found[2:-1] if found[:1] == b"\x80" else found[:-1]


def name(module, attribute, protocol):
    if protocol < 4:
        return f"c{module}\n{attribute}\n".encode()
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, attribute)) + b"\x93"


def arguments(*parts):
    return b"(" + b"".join(parts) + b"t"


def whole(body, protocol):
    return (b"\x80" + bytes([protocol]) if protocol > 1 else b"") + body + b"."


def dtype(text, protocol, order="<", fields=(None, None, None)):
    state = (3, order, *fields, -1, -1, 0)
    built = name("numpy", "dtype", protocol) + value((text, False, True), protocol) + b"R"
    return built + value(state, protocol) + b"b"


def array(kind, shape, data, protocol, order=0):
    made = name("numpy.core.multiarray", "_reconstruct", protocol)
    made += arguments(name("numpy", "ndarray", protocol), value((0,), protocol), value("b", protocol)) + b"R"
    state = [value(1, protocol), value(shape, protocol), kind, value(order, protocol)]
    return made + arguments(*state, value(data.decode("latin1"), protocol)) + b"b"


@functools.cache
def hostile(protocol):
    """{what it tries: the pickle}"""
    p = protocol

    def n(module, attribute):
        return name(module, attribute, p)

    def v(content):
        return value(content, p)

    pointers = v(POINTERS.decode("latin1"))
    ndarray, f8 = n("numpy", "ndarray"), dtype("f8", p)
    csr = n("scipy.sparse.csr", "csr_matrix")
    rebuild = n("numpy.core.multiarray", "_reconstruct") + arguments(ndarray, v((0,)), v("b")) + b"R"
    found = {
        "ndarray called with objects": ndarray + arguments(v((4,)), v("O"), pointers) + b"R",
        "ndarray made anew": ndarray + arguments(v((4,)), v("O")) + b"\x81",
        "ndarray, type and buffer": ndarray + arguments(v((1 << 40,)), f8, pointers) + b"R",
        "dtype of objects": array(dtype("O", p, "|"), (4,), POINTERS, p),
        "dtype with fields of objects": array(dtype("V8", p, "|", (None, ("a",), {"a": ("O", 0)})), (4,), POINTERS, p),
        "dtype that becomes one of fields": array(dtype("i8", p, "|", (None, ("a",), {"a": 0})), (4,), POINTERS, p),
        "dtype with a subarray": array(dtype("i8", p, "|", (("O", (1,)), None, None)), (4,), POINTERS, p),
        "dtype of text": array(dtype("U2", p), (4,), POINTERS, p),
        "dtype of dates": array(dtype("M8[s]", p), (4,), POINTERS, p),
        "dtype by the name of a class": n("numpy", "dtype") + arguments(n("builtins", "object")) + b"R",
        "dtype by a list of fields": n("numpy", "dtype") + arguments(v([("a", "O")])) + b"R",
        "another class of array": n("numpy.core.multiarray", "_reconstruct")
        + arguments(n("builtins", "list"), v((0,)), v("b"))
        + b"R",
        "more elements than bytes": array(f8, (1 << 20,), POINTERS, p),
        "sizes whose product overflows": array(f8, (1 << 62, 4, 0, 1 << 62), b"", p),
        "a product that wraps to the bytes": array(f8, (1 << 32, 1 << 32, 1), b"", p),
        "a negative size": array(f8, (-4,), POINTERS, p),
        "two negative sizes": array(f8, (-2, -2), POINTERS, p),
        "a size that is a bool": array(f8, (True,), POINTERS[:8], p),
        "a size that is a float": array(f8, (4.0,), POINTERS, p),
        "a list of objects": rebuild + arguments(v(1), v((1,)), dtype("O", p, "|"), v(False), v([{}])) + b"b",
        "an array without content": rebuild,
        "an array without content in a list": b"]" + rebuild + b"a",
        "an array twice, once without content": b"](" + rebuild + b"p9\ng9\ne",
        "an array's attributes": array(f8, (4,), POINTERS, p) + v({"data": 0}) + b"b",
        "a name's attributes": ndarray + v({"__setstate__": 0}) + b"b",
        "a name as the value": ndarray,
        "a name in a list": b"]" + ndarray + b"a",
        "a name in a dict": b"}" + v("a") + ndarray + b"s",
        "buffer of objects": n("numpy.core.numeric", "_frombuffer")
        + arguments(pointers, dtype("O", p, "|"), v((4,)), v("C"))
        + b"R",
        "buffer, a type by its name": n("numpy.core.numeric", "_frombuffer")
        + arguments(pointers, v("O"), v((4,)), v("C"))
        + b"R",
        "a scalar of objects": n("numpy.core.multiarray", "scalar") + arguments(dtype("O", p, "|"), pointers) + b"R",
        "a scalar of too few bytes": n("numpy.core.multiarray", "scalar") + arguments(f8, v("abc")) + b"R",
        "booleans that are none": array(dtype("b1", p, "|"), (4,), b"\x00\x01\x02\xff", p),
        "a factory that runs": n("collections", "defaultdict") + arguments(n("builtins", "eval")) + b"R",
        "code": n("os", "system") + arguments(v("false")) + b"R",
        "code, as an old object": b"(" + v("false") + b"ios\nsystem\n",
        "code, found by its class": b"(" + n("os", "system") + v("false") + b"o",
        "code, through a decoder": n("_codecs", "decode") + arguments(v("a"), v("b")) + b"R",
        "bytes without end": n("builtins", "bytes") + arguments(v(1 << 40)) + b"R",
        "bytearray without end": n("builtins", "bytearray") + arguments(v(1 << 40)) + b"R",
        "another encoding": n("_codecs", "encode") + arguments(v("a"), v("rot13")) + b"R",
        "a matrix called": csr + arguments(v((1 << 40, 1 << 40))) + b"R",
        "an object of any class": n("copyreg", "_reconstructor")
        + arguments(n("builtins", "list"), n("builtins", "list"), v([1]))
        + b"R",
        "an extension": b"\x82\x01",
        "a reference to elsewhere": b"Pelsewhere\n",
        "the next buffer": b"\x97",
        "a set": v([]) + b"\x8f(K\x01\x90",
        "bytes beyond the file": b"\x8e" + struct.pack("<Q", 1 << 60) + b"abc",
        "text beyond the file": b"\x8d" + struct.pack("<Q", 1 << 60) + b"abc",
        "a bytearray beyond the file": b"\x96" + struct.pack("<Q", 1 << 36) + b"abc",
        "a number beyond the file": b"\x8b" + struct.pack("<i", (1 << 31) - 1) + b"abc",
        "a frame beyond the file": b"\x95" + struct.pack("<Q", 1 << 60) + b"N",
        "a deep tuple as a key": b"})" + b"\x85" * 100_000 + b"Ns",
        "a deep tuple as a key of many": b"}()" + b"\x85" * 100_000 + b"Nu",
        "a list as a key": b"}]Ns",
        "an array as a key": b"}" + array(f8, (4,), POINTERS, p) + b"Ns",
        "items of an array": array(f8, (4,), POINTERS, p) + b"K\x00K\x01s",
        "an empty stack": b"R",
        "no memo": b"g5\n",
        "nothing": b"",
    }
    if protocol == 5:
        found["rows of an unknown order"] = (
            n("numpy.core.numeric", "_frombuffer") + arguments(pointers, f8, v((4,)), v("K")) + b"R"
        )
    return {what: whole(body, protocol) for what, body in found.items()}
