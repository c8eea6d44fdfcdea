"""Files that mean harm, byte by byte: opcodes and zip records by hand; nothing here is ever given to `pickle` or torch.

`CORPUS` has, for each file, how it is made and the code of its refusal, or None where it may be read, since what it names
stays inert. The formats' own definitions (pickletools, APPNOTE.TXT) are followed, not our reader.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

Make = Callable[[], bytes]
CORPUS: dict[str, tuple[Make, str | None]] = {}

STOP, MARK, TUPLE, REDUCE, BUILD, NEWOBJ, EMPTY, NONE = b".", b"(", b"t", b"R", b"b", b"\x81", b")", b"N"


def case(name: str, code: str | None) -> Callable[[Make], Make]:
    def enter(make: Make) -> Make:
        assert name not in CORPUS
        CORPUS[name] = make, code
        return make

    return enter


# Opcodes -------------------------------------------------------------------------------------------------------------


def proto(*parts: bytes, version: int = 2) -> bytes:
    return b"\x80" + bytes([version]) + b"".join(parts) + STOP


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_of(*parts: bytes) -> bytes:
    return MARK + b"".join(parts) + TUPLE


def dict_of(**entries: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u"


def call(module: str, attribute: str, *args: bytes) -> bytes:
    return name(module, attribute) + tuple_of(*args) + REDUCE


def built(module: str, attribute: str, state: bytes) -> bytes:
    return name(module, attribute) + EMPTY + NEWOBJ + state + BUILD


def stored(kind: str = "FloatStorage", key: str = "0", numel: int = 4) -> bytes:
    return tuple_of(text("storage"), name("torch", kind), text(key), text("cpu"), number(numel)) + b"Q"


def tensor(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0, storage: bytes | None = None, hooks: bytes = NONE
) -> bytes:
    return call("torch._utils", "_rebuild_tensor_v2", *tensor_arguments(shape, strides, offset, storage), hooks)


def tensor_arguments(
    shape: tuple[int, ...] = (4,), strides: tuple[int, ...] = (1,), offset: int = 0, storage: bytes | None = None
) -> list[bytes]:
    sizes = tuple_of(*map(number, shape)), tuple_of(*map(number, strides))
    return [stored() if storage is None else storage, number(offset), *sizes, b"\x89"]


SYSTEM = call("os", "system", text("touch pwned"))
TENSOR = tensor((4,), (1,))


# The archive ---------------------------------------------------------------------------------------------------------


@dataclass
class Record:
    """A record of a zip, with what its two headers say when they lie."""

    name: str
    content: bytes
    method: int = 0
    size: int | None = None
    central: dict[str, int] = field(default_factory=dict)
    local_name: str | None = None
    listed: bool = True


def zip_of(*records: Record, tail: bytes = b"", count: int | None = None, gap: bytes = b"") -> bytes:
    out, directory, listed = b"", b"", 0
    for record in records:
        begin = len(out)
        raw = record.content
        if record.method == 8:
            packer = zlib.compressobj(9, zlib.DEFLATED, -15)
            raw = packer.compress(raw) + packer.flush()
        size = len(record.content) if record.size is None else record.size
        title, local_title = record.name.encode(), (record.local_name or record.name).encode()
        fields = {
            "flags": 0,
            "method": record.method,
            "packed": len(raw),
            "size": size,
            "header": begin,
            **record.central,
        }
        out += struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, record.method, 0, 0, 0, len(raw), size, len(local_title), 0)
        out += local_title + raw + gap
        if record.listed:
            listed += 1
            directory += struct.pack(
                "<4s6H3I5H2I",
                *(b"PK\1\2", 20, 20, fields["flags"], fields["method"], 0, 0, 0, fields["packed"], fields["size"]),
                *(len(title), 0, 0, 0, 0, 0, fields["header"]),
            )
            directory += title
    total = listed if count is None else count
    return out + directory + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, total, total, len(directory), len(out), 0) + tail


def saved(pickle: bytes, content: bytes = b"\0\0\x80?" * 4, **more: bytes) -> bytes:
    """The archive of torch.save around `pickle`, with one storage."""
    extra = [Record(f"a/{path}", raw) for path, raw in more.items()]
    return zip_of(Record("a/data.pkl", pickle), Record("a/data/0", content), *extra, Record("a/version", b"3\n"))


def model(*parts: bytes, version: int = 2) -> bytes:
    return saved(proto(*parts, version=version))


def stream(pickle: bytes, keys: tuple[str, ...] = ("0",), tail: bytes | None = None) -> bytes:
    """The legacy stream of torch.save around `pickle`, with one storage of four floats."""
    magic = 0x1950A86A20F9469CFC6C
    system = b"}(" + text("protocol_version") + number(1001) + text("little_endian") + b"\x88u"
    names = b"](" + b"".join(map(text, keys)) + b"e"
    data = struct.pack("<q", 4) + b"\0\0\x80?" * 4 if tail is None else tail
    return b"".join([proto(number(magic)), proto(number(1001)), proto(system), pickle, proto(names), data])


# os.system in every disguise -----------------------------------------------------------------------------------------


@case("system-by-global-and-reduce", None)
def _() -> bytes:
    return model(SYSTEM)


@case("system-by-posix", None)
def _() -> bytes:
    return model(call("posix", "system", text("touch pwned")))


@case("system-by-stack-global", None)
def _() -> bytes:
    return model(text("os"), text("system"), b"\x93", tuple_of(text("touch pwned")), REDUCE, version=4)


@case("system-by-stack-global-from-the-memo", None)
def _() -> bytes:
    parts = [text("system"), b"\x94", b"0" * 0, text("os"), b"\x94"]
    return model(MARK, *parts, b"h\x01h\x00\x93", tuple_of(text("touch pwned")), REDUCE, TUPLE, version=4)


@case("system-by-inst", "bad-opcode")
def _() -> bytes:
    return model(MARK, text("touch pwned"), b"ios\nsystem\n")


@case("system-by-obj", "bad-opcode")
def _() -> bytes:
    return model(MARK, name("os", "system"), text("touch pwned"), b"o")


@case("system-by-newobj", None)
def _() -> bytes:
    return model(name("os", "system"), tuple_of(text("touch pwned")), NEWOBJ)


@case("popen-by-newobj-ex", None)
def _() -> bytes:
    keywords = dict_of(shell=b"\x88")
    return model(name("subprocess", "Popen"), tuple_of(text("touch pwned")), keywords, b"\x92", version=4)


@case("system-by-extension", "bad-opcode")
def _() -> bytes:
    return model(b"\x82\x01", tuple_of(text("touch pwned")), REDUCE)


@case("system-by-wide-extension", "bad-opcode")
def _() -> bytes:
    return model(b"\x84\x01\0\0\0", tuple_of(text("touch pwned")), REDUCE)


@case("system-by-setstate", None)
def _() -> bytes:
    return model(built("functools", "partial", tuple_of(name("os", "system"), tuple_of(text("pwned")), b"}", NONE)))


@case("system-by-a-chain-of-reduces", None)
def _() -> bytes:
    return model(name("builtins", "getattr"), tuple_of(name("os", "path"), text("os")), REDUCE, EMPTY, REDUCE)


@case("system-by-import-and-getattr", None)
def _() -> bytes:
    imported = call("builtins", "__import__", text("os"))
    return model(call("builtins", "getattr", imported, text("system")), tuple_of(text("touch pwned")), REDUCE)


@case("system-by-a-dotted-name", None)
def _() -> bytes:
    return model(text("torch.nn.modules"), text("os.system"), b"\x93", tuple_of(text("pwned")), REDUCE, version=4)


@case("system-by-a-dotted-name-of-a-layer", None)
def _() -> bytes:
    return model(call("torch.nn.modules.container", "operator.os.system", text("touch pwned")))


@case("eval-exec-and-compile", None)
def _() -> bytes:
    code = text("__import__('os').system('touch pwned')")
    return model(tuple_of(*(call("builtins", function, code) for function in ("eval", "exec", "compile", "open"))))


@case("system-in-python-2", None)
def _() -> bytes:
    return model(call("__builtin__", "apply", name("os", "system"), tuple_of(text("touch pwned"))))


@case("system-thrown-away", None)
def _() -> bytes:
    return stream(proto(dict_of(weight=tensor((4,), (1,), hooks=SYSTEM))))


@case("system-in-backward-hooks", None)
def _() -> bytes:
    return model(dict_of(weight=tensor((4,), (1,), hooks=dict_of(hook=SYSTEM))))


@case("system-in-forward-hooks", None)
def _() -> bytes:
    state = dict_of(_forward_hooks=dict_of(hook=name("os", "system")), training=b"\x89")
    return model(built("torch.nn.modules.linear", "Linear", state))


@case("system-as-forward", None)
def _() -> bytes:
    return model(built("torch.nn.modules.linear", "Linear", dict_of(forward=name("os", "system"))))


@case("system-as-class-of-a-module-id", None)
def _() -> bytes:
    source = text("import os; os.system('touch pwned')")
    module = tuple_of(text("module"), name("os", "system"), text("/etc/passwd"), source) + b"Q"
    return stream(proto(tuple_of(module + tuple_of(text("touch pwned")) + REDUCE, TENSOR)))


@case("system-as-default-factory", None)
def _() -> bytes:
    return model(call("collections", "defaultdict", name("os", "system")))


@case("system-as-metadata-of-an-ordered-dict", None)
def _() -> bytes:
    return model(call("collections", "OrderedDict"), dict_of(_metadata=SYSTEM), BUILD)


@case("system-as-a-storage-type", "unknown-dtype")
def _() -> bytes:
    return model(tuple_of(text("storage"), name("os", "system"), text("0"), text("cpu"), number(4)), b"Q")


@case("system-by-persistent-line", "bad-opcode")
def _() -> bytes:
    return model(b"Pos.system\n")


@case("load-from-bytes", None)
def _() -> bytes:
    inner = proto(SYSTEM)
    return model(call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(inner)) + inner))


@case("torch-load-and-hub", None)
def _() -> bytes:
    return model(tuple_of(call("torch", "load", text("x")), call("torch.hub", "load", text("x"), text("y"))))


# Attributes that are none of its business ----------------------------------------------------------------------------


@case("attributes-of-a-class", "bad-pickle")
def _() -> bytes:
    return model(name("torch.nn.modules.conv", "Conv2d"), dict_of(forward=name("os", "system")), BUILD)


@case("attributes-of-a-tensor", "bad-pickle")
def _() -> bytes:
    return model(TENSOR, dict_of(data=NONE), BUILD)


@case("attributes-twice", "bad-pickle")
def _() -> bytes:
    return model(built("torch.nn.modules.conv", "Conv2d", dict_of(a=NONE)), dict_of(b=NONE), BUILD)


@case("rebuild-from-type-calls-a-module", None)
def _() -> bytes:
    upsample = built("torch.nn.modules.upsampling", "Upsample", dict_of(scale_factor=number(16384)))
    kind = name("torch.nn.modules.conv", "Conv2d")
    return model(call("torch._tensor", "_rebuild_from_type_v2", upsample, kind, tuple_of(TENSOR), NONE))


@case("rebuild-from-type-poisons-a-class", None)
def _() -> bytes:
    function, kind = name("builtins", "id"), name("torch.nn.modules.conv", "Conv2d")
    state = dict_of(forward=name("os", "system"))
    return model(call("torch._tensor", "_rebuild_from_type_v2", function, kind, tuple_of(kind), state))


@case("rebuild-from-type-with-odd-state", None)
def _() -> bytes:
    function, kind = name("torch._utils", "_rebuild_tensor_v2"), name("torch", "Tensor")
    state = dict_of(__class__=name("os", "system"))
    arguments = tuple_of(*tensor_arguments(), NONE)
    return model(call("torch._tensor", "_rebuild_from_type_v2", function, kind, arguments, state))


@case("items-of-a-tensor", "bad-pickle")
def _() -> bytes:
    return model(TENSOR, number(0), number(1), b"s")


@case("append-to-a-tensor", "bad-pickle")
def _() -> bytes:
    return model(TENSOR, number(0), b"a")


@case("the-same-key-twice", "duplicate-key")
def _() -> bytes:
    return model(b"}(", text("weight"), TENSOR, text("weight"), NONE, b"u")


@case("the-same-memo-twice", "bad-pickle")
def _() -> bytes:
    return model(MARK, text("a"), b"q\0", name("os", "system"), b"q\0", TUPLE)


@case("a-memo-never-given", "bad-pickle")
def _() -> bytes:
    return model(b"h\x07")


# Tensors that are not where they say ---------------------------------------------------------------------------------


def _tensor_case(title: str, code: str, *args: object, **more: object) -> None:
    CORPUS[title] = (lambda: model(tensor(*args, **more)), code)  # type: ignore[arg-type]


_tensor_case("storage-too-small", "bad-tensor", (4,), (1,), storage=stored(numel=8))
_tensor_case("storage-too-large", "bad-tensor", (2,), (1,), storage=stored(numel=2))
_tensor_case("storage-of-another-type", "bad-tensor", (4,), (1,), storage=stored("DoubleStorage"))
_tensor_case("storage-of-negative-size", "bad-tensor", (4,), (1,), storage=stored(numel=-4))
_tensor_case("storage-of-huge-size", "tensor-too-large", (4,), (1,), storage=stored(numel=2**62))
_tensor_case("storage-that-is-not-there", "missing-entry", (4,), (1,), storage=stored(key="7"))
_tensor_case("storage-outside-the-archive", "missing-entry", (4,), (1,), storage=stored(key="../../../etc/passwd"))
_tensor_case("storage-of-floats-as-booleans", "bad-value", (16,), (1,), storage=stored("BoolStorage", numel=16))
_tensor_case("quantised-storage", "quantised-model", (4,), (1,), storage=stored("QInt8Storage"))
_tensor_case("tensor-beyond-its-storage", "bad-tensor", (5,), (1,))
_tensor_case("offset-beyond-the-storage", "bad-tensor", (1,), (1,), 4)
_tensor_case("offset-of-nothing-beyond-the-storage", "bad-tensor", (0,), (1,), 5)
_tensor_case("offset-negative", "bad-tensor", (1,), (1,), -1)
_tensor_case("offset-huge", "bad-tensor", (1,), (1,), 2**63)
_tensor_case("stride-negative", "bad-tensor", (2,), (-1,), 1)
_tensor_case("stride-huge", "bad-tensor", (2,), (2**62,))
_tensor_case("stride-that-wraps-around", "bad-tensor", (5,), (2**62,))
_tensor_case("size-negative", "bad-tensor", (-1, -4), (4, 1))
_tensor_case("size-huge", "bad-tensor", (2**63,), (0,))
_tensor_case("elements-10-to-the-12", "tensor-too-large", (2**20, 2**20), (0, 0))
_tensor_case("nothing-times-huge", "tensor-too-large", (0, 2**30, 2**30), (1, 1, 1))
_tensor_case("elements-repeated", "bad-tensor", (2**20,), (0,))
_tensor_case("dimensions-64", "bad-tensor", (1,) * 64, (1,) * 64)
_tensor_case("strides-missing", "bad-tensor", (2, 2), (1,))
_tensor_case("tensor-of-a-tensor", "bad-tensor", (4,), (1,), storage=TENSOR)
_tensor_case("tensor-of-no-storage", "bad-tensor", (4,), (1,), storage=NONE)


@case("booleans-as-sizes", "bad-tensor")
def _() -> bytes:
    arguments = [stored(), number(0), tuple_of(b"\x88"), tuple_of(b"\x88"), b"\x89", NONE]
    return model(call("torch._utils", "_rebuild_tensor_v2", *arguments))


@case("negated-by-metadata", "bad-tensor")
def _() -> bytes:
    return model(call("torch._utils", "_rebuild_tensor_v2", *tensor_arguments(), NONE, dict_of(neg=b"\x88")))


@case("two-sizes-of-one-storage", "bad-tensor")
def _() -> bytes:
    return model(tuple_of(TENSOR, tensor((4,), (1,), storage=stored("IntStorage"))))


@case("many-views-of-one-storage", "too-large")
def _() -> bytes:
    tensors = (tensor((2**16,), (0,), offset, stored(numel=4096)) for offset in range(300))
    return saved(proto(tuple_of(*tensors)), bytes(4 * 4096))


@case("quantised-tensor", "quantised-model")
def _() -> bytes:
    return model(call("torch._utils", "_rebuild_qtensor", *tensor_arguments(), NONE))


@case("view-of-a-storage", "bad-tensor")
def _() -> bytes:
    view = tuple_of(text("1"), number(0), number(2**40))
    saved_id = tuple_of(text("storage"), name("torch", "FloatStorage"), text("0"), text("cpu"), number(4), view)
    return stream(proto(tensor((4,), (1,), storage=saved_id + b"Q")))


# Bombs ---------------------------------------------------------------------------------------------------------------


@case("bytearray-of-4-gib", None)
def _() -> bytes:
    return model(call("builtins", "bytearray", number(4 * 2**30)))


@case("linear-of-200000-squared", None)
def _() -> bytes:
    return model(call("torch.nn.modules.linear", "Linear", number(200_000), number(200_000)))


@case("tensor-by-size", None)
def _() -> bytes:
    return model(call("torch", "Tensor", number(2**20), number(2**14)))


@case("range-as-a-list", None)
def _() -> bytes:
    return model(call("builtins", "list", call("builtins", "range", number(2**40))))


@case("power-by-int", None)
def _() -> bytes:
    return model(call("builtins", "pow", number(9), number(10**9)))


def _doubled(levels: int) -> bytes:
    steps = (b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) + b"0" * 0 for k in range(levels))
    return MARK + EMPTY + b"q\0" + b"".join(steps)


@case("node-bomb-of-doubled-tuples", "too-many-nodes")
def _() -> bytes:
    return model(_doubled(60), TUPLE)


@case("hash-bomb-of-doubled-tuples", "bad-pickle")
def _() -> bytes:
    return model(_doubled(60), TUPLE, b"}", b"h\x3c", NONE, b"s")


@case("node-bomb-of-ten-times-ten-lists", "too-many-nodes")
def _() -> bytes:
    levels = (b"](" + (b"h" + bytes([k])) * 10 + b"eq" + bytes([k + 1]) for k in range(9))
    return model(MARK, NONE, b"q\0", *levels, TUPLE)


@case("numbers-that-collide", "too-many-nodes")
def _() -> bytes:
    numbers = (k * (2**61 - 1) for k in range(1, 60_000))
    return model(b"}(", *(b"\x8a\x0b" + value.to_bytes(11, "little") + NONE for value in numbers), b"u")


@case("numbers-that-collide-in-many-tables", "too-many-nodes")
def _() -> bytes:
    numbers = [b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") + NONE for k in range(1, 1000)]
    return model(MARK, (b"}(" + b"".join(numbers) + b"u") * 100, TUPLE)


@case("fractions-that-collide", "too-many-nodes")
def _() -> bytes:
    fractions = (sign * k * 2.0 ** (61 * power) for power in range(1, 16) for k in range(1, 2000) for sign in (1, -1))
    return model(b"}(", *(b"G" + struct.pack(">d", fraction) + NONE for fraction in fractions), b"u")


@case("tuples-that-collide", "too-many-nodes")
def _() -> bytes:
    numbers = (b"\x8a\x0b" + (k * (2**61 - 1)).to_bytes(11, "little") for k in range(1, 60_000))
    long = b"\x8a\xff" + b"\x7f" * 255
    return model(long, b"q\0", b"}(", *(MARK + b"h\0" * 15 + value + TUPLE + NONE for value in numbers), b"u")


@case("none-5e8-times-deflated", "compressed-entry")
def _() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(b"\x80\2(") + b"".join(packer.compress(NONE * 10**6) for _ in range(20)) + packer.flush()
    record = Record("a/data.pkl", block, size=5 * 10**8, central={"method": 8})
    raw = bytearray(zip_of(record, Record("a/version", b"3\n")))
    raw[8:10] = struct.pack("<H", 8)
    return bytes(raw)


@case("none-3e6-times", "too-many-nodes")
def _() -> bytes:
    return model(MARK, NONE * 3_000_000, TUPLE)


@case("none-3e6-times-in-a-stream", "too-many-nodes")
def _() -> bytes:
    return stream(proto(MARK, NONE * 3_000_000, TUPLE))


@case("sets-without-end", "too-large")
def _() -> bytes:
    return model(MARK, b"\x8f" * 900_000, TUPLE, version=4)


@case("records-without-end", "too-large|too-many-nodes")
def _() -> bytes:
    return model(MARK, name("os", "system"), b"q\0", b"h\0)R" * 300_000, TUPLE)


@case("sets-of-the-same-list-again", "too-large|too-many-nodes")
def _() -> bytes:
    again = (name("builtins", "set"), b"q\1", b"h\1h\0\x85R" * 50_000)
    return model(MARK, b"](", b"".join(map(number, range(20_000))), b"eq\0", *again, TUPLE)


@case("text-encoded-again-and-again", "too-large")
def _() -> bytes:
    again = (name("_codecs", "encode"), b"q\1", text("latin1"), b"q\2", b"h\1h\0h\2\x86R" * 1000)
    return model(MARK, text("ÿ" * 2**20), b"q\0", *again, TUPLE)


@case("the-same-parameter-marks-again", "too-many-nodes|too-large")
def _() -> bytes:
    marks = b"}(" + b"".join(text(str(k)) + NONE for k in range(50_000)) + b"uq\0"
    again = (name("torch._utils", "_rebuild_parameter_with_state"), b"q\1", b"h\1(h\2\x88Nh\0tR" * 80_000)
    return model(MARK, marks, TENSOR, b"q\2", *again, TUPLE)


@case("nested-900000-deep", "too-deep")
def _() -> bytes:
    return model(EMPTY, b"\x85" * 900_000)


@case("nested-200-deep", "too-deep")
def _() -> bytes:
    return model(EMPTY, b"\x85" * 200)


@case("lists-nested-300000-deep", "too-deep")
def _() -> bytes:
    return model(b"]" * 300_000, b"a" * 299_999)


@case("marks-without-end", "bad-pickle|too-large")
def _() -> bytes:
    return model(MARK * 900_000)


@case("a-list-in-itself", "too-deep")
def _() -> bytes:
    return model(b"]q\0h\0a")


@case("a-dict-in-itself", "too-deep")
def _() -> bytes:
    return model(b"}q\0", text("self"), b"h\0s")


@case("a-module-in-itself", None)
def _() -> bytes:
    return model(name("torch.nn.modules.container", "Sequential"), EMPTY, NEWOBJ, b"q\0", dict_of(self=b"h\0"), BUILD)


@case("stack-underflow", "bad-pickle")
def _() -> bytes:
    return model(REDUCE)


@case("mark-underflow", "bad-pickle")
def _() -> bytes:
    return model(TUPLE)


@case("values-left-over", "bad-pickle")
def _() -> bytes:
    return model(SYSTEM, TENSOR)


# Lengths that lie ----------------------------------------------------------------------------------------------------


@case("frame-longer-than-the-pickle", "truncated")
def _() -> bytes:
    return model(b"\x95" + struct.pack("<Q", 2**63), NONE, version=4)


@case("long4-of-2-gib", "too-large")
def _() -> bytes:
    return model(b"\x8b" + struct.pack("<I", 2**31 - 1))


@case("long4-negative", "too-large")
def _() -> bytes:
    return model(b"\x8b" + struct.pack("<i", -1))


@case("long-of-255-bytes-as-a-size", "bad-tensor")
def _() -> bytes:
    arguments = [stored(), b"\x8a\xff" + b"\x7f" * 255, tuple_of(number(1)), tuple_of(number(1)), b"\x89", NONE]
    return model(call("torch._utils", "_rebuild_tensor_v2", *arguments))


@case("unicode8-of-2-to-the-63", "too-large")
def _() -> bytes:
    return model(b"\x8d" + struct.pack("<Q", 2**63), version=4)


@case("bytes8-of-1-tib", "too-large")
def _() -> bytes:
    return model(b"\x8e" + struct.pack("<Q", 2**40), version=4)


@case("bytearray8-of-1-tib", "too-large")
def _() -> bytes:
    return model(b"\x96" + struct.pack("<Q", 2**40), version=5)


@case("text-longer-than-the-pickle", "truncated")
def _() -> bytes:
    return model(b"X" + struct.pack("<I", 1000), b"abc")


@case("text-that-is-no-utf-8", "bad-pickle")
def _() -> bytes:
    return model(b"X\2\0\0\0\xff\xfe")


@case("name-without-end", "bad-pickle")
def _() -> bytes:
    return model(b"c" + b"a" * 10_000)


@case("name-with-escape-codes", "bad-pickle")
def _() -> bytes:
    return model(text("os"), text("\x1b[2Jsystem"), b"\x93", version=4)


@case("buffer-out-of-band", "bad-opcode")
def _() -> bytes:
    return model(b"\x97", version=5)


@case("protocol-77", "bad-pickle")
def _() -> bytes:
    return model(NONE, version=77)


@case("python-2-protocol-0", "not-torch")
def _() -> bytes:
    return b"cos\nsystem\n(S'touch pwned'\ntR."


@case("python-2-text-in-the-archive", "bad-opcode")
def _() -> bytes:
    return saved(b"(S'touch pwned'\nios\nsystem\n.")


# The archive's games -------------------------------------------------------------------------------------------------

GOOD = proto(dict_of(weight=TENSOR))
DATA = Record("a/data/0", b"\0\0\x80?" * 4)


@case("two-pickles-of-one-name", "duplicate-entry")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data.pkl", proto(SYSTEM)), DATA)


@case("two-pickles-in-two-folders", "duplicate-entry")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("b/data.pkl", proto(SYSTEM)), DATA)


@case("records-in-two-folders", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, Record("b/other", b""))


@case("a-pickle-in-no-directory", "overlapping-entries")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", proto(SYSTEM), listed=False), Record("a/data.pkl", GOOD), DATA)


@case("a-pickle-between-the-records", "overlapping-entries")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, gap=proto(SYSTEM) + bytes(40))


@case("a-deflated-tensor", "compressed-entry")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(2**24), 8))


@case("a-deflated-pickle", "compressed-entry")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD, 8), DATA)


@case("a-bzip2-record", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), 12))


@case("a-record-larger-than-it-is", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), size=2**31))


@case("a-record-of-4-gib-in-the-directory", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), central={"size": 2**32 - 1}))


@case("sizes-that-differ", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), central={"size": 8, "packed": 8}))


@case("names-that-differ", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), local_name="a/data/1"))


@case("a-method-that-differs", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), central={"method": 8}))


@case("an-encrypted-record", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), central={"flags": 1}))


@case("two-records-at-one-place", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, Record("a/data/1", b"", central={"header": 0}))


@case("a-record-inside-another", "overlapping-entries")
def _() -> bytes:
    inner = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0, 0, 16, 16, 8, 0) + b"a/data/1" + bytes(16)
    at = 30 + len("a/data.pkl") + len(GOOD) + 30 + len("a/data/0")
    lie = Record("a/data/1", bytes(16), central={"header": at})
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", inner), lie)


@case("a-record-beyond-the-end", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), Record("a/data/0", bytes(16), central={"header": 2**32 - 2}))


@case("path-traversal", "bad-entry-name")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, Record("a/../../etc/cron.d/pwned", b"x"))


@case("absolute-path", "bad-entry-name")
def _() -> bytes:
    return zip_of(Record("/etc/passwd", GOOD))


@case("path-with-backslashes", "bad-entry-name")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, Record("a/..\\..\\pwned", b"x"))


@case("path-with-a-zero", "bad-entry-name")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, Record("a/data\0.pkl", b"x"))


@case("more-records-than-there-are", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, count=40_000)


@case("more-records-than-any-model-has", "too-many-entries")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, count=60_000)


@case("fewer-records-than-there-are", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, count=1)


@case("bytes-before-the-archive", "not-torch")
def _() -> bytes:
    return b"#!/bin/sh\ntouch pwned\n" + zip_of(Record("a/data.pkl", GOOD), DATA)


@case("bytes-after-the-archive", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA, tail=b"\0" * 10)


@case("an-archive-after-the-archive", "broken-archive")
def _() -> bytes:
    return zip_of(Record("a/data.pkl", GOOD), DATA) + zip_of(Record("a/data.pkl", proto(SYSTEM)))


@case("an-archive-of-nothing", "not-torch")
def _() -> bytes:
    return zip_of()


@case("a-pickle-after-the-pickle", "bad-pickle")
def _() -> bytes:
    return saved(GOOD + proto(SYSTEM))


@case("a-cut-archive", "broken-archive")
def _() -> bytes:
    return saved(GOOD)[:-30]


@case("a-cut-pickle", "truncated")
def _() -> bytes:
    return saved(GOOD[:-1])


@case("big-endian", "big-endian")
def _() -> bytes:
    return saved(GOOD, byteorder=b"big")


@case("no-pickle", "not-torch")
def _() -> bytes:
    return zip_of(Record("a/other", b"x"), DATA)


@case("exported-program", "exported-program")
def _() -> bytes:
    return zip_of(Record("a/archive_format", b"pt2"), Record("a/models/model.json", b"{}"))


# The stream's games --------------------------------------------------------------------------------------------------


@case("a-plain-pickle", "not-torch")
def _() -> bytes:
    return proto(SYSTEM)


@case("a-stream-of-system", None)
def _() -> bytes:
    return stream(proto(SYSTEM), keys=(), tail=b"")


@case("system-in-the-preamble", "not-torch")
def _() -> bytes:
    return proto(SYSTEM) + stream(GOOD)


@case("a-storage-in-the-preamble", "not-torch")
def _() -> bytes:
    return proto(stored()) + stream(GOOD)


@case("a-stream-from-a-big-endian-machine", "big-endian")
def _() -> bytes:
    return stream(GOOD).replace(text("little_endian") + b"\x88", text("little_endian") + b"\x89")


@case("a-stream-with-other-keys", "bad-tensor")
def _() -> bytes:
    return stream(GOOD, keys=("0", "1"))


@case("a-stream-with-a-key-twice", "truncated|bad-tensor")
def _() -> bytes:
    data = struct.pack("<q", 4) + bytes(16)
    return stream(GOOD, keys=("0", "0"), tail=data + data)


@case("a-stream-with-another-size", "bad-tensor")
def _() -> bytes:
    return stream(GOOD, tail=struct.pack("<q", 2**40) + bytes(16))


@case("a-stream-cut-off", "truncated")
def _() -> bytes:
    return stream(GOOD)[:-1]


@case("a-stream-that-goes-on", "bad-tensor")
def _() -> bytes:
    return stream(GOOD) + proto(SYSTEM)


@case("a-stream-with-system-as-its-keys", "bad-tensor")
def _() -> bytes:
    return stream(GOOD).replace(proto(b"](" + text("0") + b"e"), proto(SYSTEM))


@case("a-tar-archive", "tar-era")
def _() -> bytes:
    return b"storages".ljust(257, b"\0") + b"ustar\x0000" + bytes(1024)


@case("an-empty-file", "empty-file")
def _() -> bytes:
    return b""


@case("one-byte", "truncated")
def _() -> bytes:
    return b"\x80"


@case("only-the-magic", "broken-archive")
def _() -> bytes:
    return b"PK\3\4"


# TorchScript ---------------------------------------------------------------------------------------------------------


def torchscript(code: str, state: bytes) -> bytes:
    return zip_of(
        Record("a/data.pkl", proto(built("__torch__", "M", state))),
        Record("a/data/0", bytes(16)),
        Record("a/code/__torch__.py", code.encode(), 8),
        Record("a/constants.pkl", proto(EMPTY)),
    )


@case("torchscript-that-reads-a-file", "torchscript")
def _() -> bytes:
    return torchscript("def forward(self, x):\n  return torch.from_file('/etc/passwd')\n", dict_of(weight=TENSOR))


@case("torchscript-with-setstate", "torchscript")
def _() -> bytes:
    return torchscript("def __setstate__(self, s):\n  torch.save(s, '/tmp/pwned')\n", tuple_of(TENSOR, SYSTEM))
